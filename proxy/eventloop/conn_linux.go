package eventloop

import (
	"errors"
	"net"
	"os"
	"sync"
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

// spare is a descriptor in reserve. The way out of the loops takes one more descriptor for a moment: the spare one makes
// room where no other descriptor is free.
type spare struct {
	mu sync.Mutex
	fd int
}

func newSpare() (*spare, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	return &spare{fd: fd}, os.NewSyscallError("eventfd", err)
}

// connOf is net.FileConn of file, and closes file unless the error is a lack of descriptors.
func (s *spare) connOf(file *os.File) (conn net.Conn, full bool, err error) {
	if conn, full, err = connOf(file); !full {
		return conn, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd != none {
		_ = unix.Close(s.fd) // an eventfd has nothing to lose
	}
	conn, full, err = connOf(file)
	if s.fd, _ = unix.Eventfd(0, unix.EFD_CLOEXEC); s.fd < 0 { // another one has taken the room: the next call tries again
		s.fd = none
	}
	return conn, full, err
}

func (s *spare) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd != none {
		_ = unix.Close(s.fd)
		s.fd = none
	}
}

// connOf is spare.connOf without a spare descriptor.
func connOf(file *os.File) (conn net.Conn, full bool, err error) {
	conn, err = net.FileConn(file)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return nil, true, err
	}
	_ = file.Close() // conn has a descriptor of its own
	return conn, false, err
}

// leaveTime is how long a connection may wait for a descriptor where the spare one does not help.
const leaveTime = 10 * time.Second

// leave takes c, which no loop watches any more, out of the loops, or closes c.
func (c *Conn) leave(s *spare) (*net.TCPConn, error) {
	file := os.NewFile(uintptr(c.fd), "connection") //nolint:gosec // a descriptor
	end := time.Now().Add(leaveTime)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		c.mu.Lock()
		conn, full, err := s.connOf(file)
		if full && !c.cut && time.Now().Before(end) {
			c.mu.Unlock()
			time.Sleep(pause) // no event tells of a free descriptor
			continue
		}
		defer c.mu.Unlock()
		if full {
			_ = file.Close()
		}
		c.fd = none
		if err != nil {
			return nil, err
		}
		c.tcp = conn.(*net.TCPConn) //nolint:forcetypeassert // enter had one
		return c.tcp, nil
	}
}
