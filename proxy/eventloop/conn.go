package eventloop

import (
	"net"
	"os"
	"sync"
	"time"
)

// Conn is a connection that may be with a loop. A Conn is a net.Conn: outside of the loops the methods are those of the
// TCP connection. With a loop, only Close, CloseRead and the addresses are of use; the other methods fail with
// net.ErrClosed.
//
// Close of a connection that is with a loop has the loop close the connection.
type Conn struct {
	local, remote net.Addr

	// Owner is what the one who has the loops keeps with the connection. It is set before Add, and stays.
	Owner any

	// These belong to the loop.
	asked bool      // a request has been read
	until time.Time // for so long the connection may stay without a request, or take the rest of a reply
	rest  rest      // of a reply

	mu  sync.Mutex   // guards what follows
	tcp *net.TCPConn // nil: a loop has fd, or the connection is closed
	fd  int
	cut bool // Close was called while a loop had fd
}

// rest is what the kernel has had no room for, of a reply with a File. A rest with nothing left is none.
type rest struct {
	before       []byte // what comes before the file
	file         *os.File
	offset, left int64
	close        bool // the connection ends with the reply
	watched      bool // the loop waits for room, not for requests
}

// NewConn is a Conn outside of the loops.
func NewConn(tcp *net.TCPConn) *Conn {
	return &Conn{local: tcp.LocalAddr(), remote: tcp.RemoteAddr(), tcp: tcp, fd: none}
}

// none is fd of a Conn that no loop has.
const none = -1

// outside is the TCP connection outside of the loops.
func (c *Conn) outside() (*net.TCPConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tcp == nil {
		return nil, net.ErrClosed
	}
	return c.tcp, nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	tcp, err := c.outside()
	if err != nil {
		return 0, err
	}
	return tcp.Read(p)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	tcp, err := c.outside()
	if err != nil {
		return 0, err
	}
	return tcp.Write(p)
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	tcp, err := c.outside()
	if err != nil {
		return err
	}
	return tcp.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	tcp, err := c.outside()
	if err != nil {
		return err
	}
	return tcp.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	tcp, err := c.outside()
	if err != nil {
		return err
	}
	return tcp.SetWriteDeadline(t)
}
