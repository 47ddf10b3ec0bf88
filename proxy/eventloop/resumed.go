package eventloop

import (
	"io"
	"net"
)

// Resumed is a connection with bytes that have been read from the connection before.
type Resumed struct {
	*net.TCPConn
	unread []byte
}

// Read implements io.Reader: the bytes that have been read before come first.
func (r *Resumed) Read(p []byte) (int, error) {
	if len(r.unread) == 0 {
		return r.TCPConn.Read(p)
	}
	n := copy(p, r.unread)
	if r.unread = r.unread[n:]; len(r.unread) == 0 {
		r.unread = nil
	}
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *Resumed) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(r.unread)
	r.unread = r.unread[n:]
	if err != nil {
		return int64(n), err
	}
	more, err := r.TCPConn.WriteTo(w)
	return int64(n) + more, err
}

// resume is conn with the unread bytes.
func resume(conn *net.TCPConn, unread []byte) net.Conn {
	if len(unread) == 0 {
		return conn
	}
	return &Resumed{TCPConn: conn, unread: unread}
}
