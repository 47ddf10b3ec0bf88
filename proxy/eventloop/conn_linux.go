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

// spare is a descriptor in reserve, a copy of another one. The way out of the loops takes one more descriptor for a moment:
// the spare one makes room where no other descriptor is free.
type spare struct {
	of int

	mu sync.Mutex
	fd int // none: other descriptors have taken all room
}

func newSpare(of int) *spare {
	s := &spare{of: of, fd: none}
	s.fill()
	return s
}

// fill puts a descriptor in reserve where there is none, and room for one. s.mu is held.
func (s *spare) fill() {
	if s.fd != none {
		return
	}
	if fd, err := unix.FcntlInt(uintptr(s.of), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		s.fd = fd
	}
}

// empty makes room. s.mu is held.
func (s *spare) empty() {
	if s.fd != none {
		_ = unix.Close(s.fd) // the other descriptor stays
		s.fd = none
	}
}

// lose gives the reserve up, until the next connOf.
func (s *spare) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty()
}

// connOf is net.FileConn of file, and closes file unless the error is a lack of descriptors.
func (s *spare) connOf(file *os.File) (conn net.Conn, full bool, err error) {
	s.mu.Lock() // else other connections take the room
	defer s.mu.Unlock()
	defer s.fill()
	conn, err = net.FileConn(file)
	if isFull(err) {
		s.empty()
		conn, err = net.FileConn(file)
	}
	if isFull(err) {
		return nil, true, err
	}
	_ = file.Close() // conn has a descriptor of its own
	return conn, false, err
}

func isFull(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

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
