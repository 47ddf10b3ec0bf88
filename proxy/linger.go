package proxy

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	// lingerTime and lingerBytes bound what is read, and thrown away, of a body that was refused.
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
)

// parting is the reply to a request whose body is not read. A connection that is closed with unread
// bytes is reset, and the reset may reach the client before the reply. So the reply goes out first,
// then the sending side is shut, and what the client still sends is thrown away for a while.
type parting struct {
	conn net.Conn
	text []byte
	stop <-chan struct{} // closed: there is no more time
}

// linger makes the reply of req, an error, a parting.
func (s *Server) linger(req *request) {
	text := req.ctx.Response.Body()
	req.ctx.Response.ImmediateHeaderFlush = true // the body goes past fasthttp's buffer
	req.ctx.Response.SetBodyStream(&parting{conn: req.ctx.Conn(), text: text, stop: s.base.Done()}, len(text))
}

// Read makes the body an io.Reader, as fasthttp demands; fasthttp itself uses WriteTo.
func (r *parting) Read([]byte) (int, error) {
	return 0, errors.New("proxy: the body of a parting is read by WriteTo")
}

// WriteTo sends the reply and waits for the client's end.
func (r *parting) WriteTo(io.Writer) (int64, error) {
	n, err := r.conn.Write(r.text)
	half, ok := r.conn.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		return int64(n), err
	}
	_ = r.conn.SetReadDeadline(time.Now().Add(lingerTime))
	buf := make([]byte, 16<<10)
	for left := lingerBytes; left > 0; {
		got, err := r.conn.Read(buf)
		left -= got
		if err != nil {
			break
		}
		select {
		case <-r.stop:
			return int64(n), nil
		default:
		}
	}
	return int64(n), nil
}
