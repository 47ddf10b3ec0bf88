package eventloop

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tcp != nil {
		return c.tcp.Close()
	}
	c.cut = true
	return c.shut(unix.SHUT_RDWR)
}

// CloseRead shuts the reading side of the connection. Requests that have arrived are still answered.
func (c *Conn) CloseRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tcp != nil {
		return c.tcp.CloseRead()
	}
	return c.shut(unix.SHUT_RD)
}

// shut makes the loop find the end of the connection. c.mu is held.
func (c *Conn) shut(how int) error {
	if c.fd == none {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, how))
}

// closed closes c, which was with a loop.
func (c *Conn) closed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = unix.Close(c.fd) // the kernel has all replies
	c.fd = none
}

// enter gives c to a loop: watch has the loop wait for fd, and fd alone is the connection afterwards.
func (c *Conn) enter(watch func(fd int) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	fd := none
	failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return os.NewSyscallError("fcntl", err)
	}
	if err := watch(fd); err != nil {
		_ = unix.Close(fd) // the other descriptor stays
		return err
	}
	_ = c.tcp.Close() // else Go's poller would wake for each request, too
	c.tcp, c.fd = nil, fd
	return nil
}

// leaveTime is how long a connection may wait for a free descriptor, which its way out of the loops takes for a moment.
const leaveTime = 10 * time.Second

// leave takes c, which no loop watches any more, out of the loops, or closes c.
func (c *Conn) leave() (*net.TCPConn, error) {
	file := os.NewFile(uintptr(c.fd), "connection") //nolint:gosec // a descriptor
	end := time.Now().Add(leaveTime)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		conn, err := net.FileConn(file)
		full := errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
		c.mu.Lock()
		if full && !c.cut && time.Now().Before(end) {
			c.mu.Unlock()
			time.Sleep(pause) // no event tells of a free descriptor
			continue
		}
		defer c.mu.Unlock()
		_ = file.Close() // conn has a descriptor of its own
		c.fd = none
		if err != nil {
			return nil, err
		}
		c.tcp = conn.(*net.TCPConn) //nolint:forcetypeassert // enter had one
		return c.tcp, nil
	}
}
