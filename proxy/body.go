package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"imgmirror/cache"
)

// errCut ends replies that are still waiting at the drain deadline.
var errCut = fmt.Errorf("%w: the drain deadline has passed", cache.ErrClosed)

// errNotSent is the end of a body whose header could not be sent.
var errNotSent = errors.New("the reply's header could not be sent")

// step is how much of a body goes out under one deadline: a client that takes a step within
// Options.ClientStall is slow, not stalled. A step in the default of 60s is 17 KiB a second.
const step = 1 << 20

// fileBody is the body of a reply with a file, from disk or from a running fill. A fileBody owns
// its Reader. Close of the body ends the request.
type fileBody struct {
	server *Server
	conn   net.Conn
	reader *cache.Reader
	left   int64
	sent   int64
	err    error
	record *record
}

// WriteTo sends the body. fasthttp's writer hands SendTo's source on to the TCP connection, so
// that the kernel's sendfile(2) is used; any writer between the two would lose sendfile.
//
// WriteTo fails when the file is wrong or its end is missing, or when the client stalls: fasthttp
// then closes the connection, and the client sees a body that is too short.
func (b *fileBody) WriteTo(w io.Writer) (int64, error) {
	if b.left > step {
		keepNear(b.conn)
	}
	for b.left > 0 {
		n, err := b.wait()
		if err != nil {
			return b.sent, b.fail(err)
		}
		n = min(n, b.left, step)
		if err := b.conn.SetWriteDeadline(time.Now().Add(b.server.opts.ClientStall)); err != nil {
			return b.sent, b.fail(fmt.Errorf("client: %w", err))
		}
		sent, err := b.reader.SendTo(w, n)
		b.sent += sent
		b.left -= sent
		if err != nil {
			return b.sent, b.fail(fmt.Errorf("client: %w", err))
		}
		if sent < n {
			return b.sent, b.fail(fmt.Errorf("send %d bytes: %w", n, io.ErrShortWrite))
		}
	}
	return b.sent, nil
}

// Read makes the body an io.Reader, as fasthttp demands; fasthttp itself uses WriteTo.
func (b *fileBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	if _, err := b.wait(); err != nil {
		return 0, b.fail(err)
	}
	n, err := b.reader.Read(p[:min(int64(len(p)), b.left)])
	b.sent += int64(n)
	b.left -= int64(n)
	if err != nil {
		return n, b.fail(err)
	}
	return n, nil
}

// wait waits until bytes may be sent, and gives their number. The last byte comes once the whole
// file is verified. The error is errGone after a hang-up, errCut at the drain deadline, and
// io.ErrUnexpectedEOF for a file that ends before the body's length.
func (b *fileBody) wait() (int64, error) {
	b.reader.Limit(b.left)
	w := &wait{Context: b.server.base, watch: &b.server.watch, conn: b.conn}
	n, err := b.reader.WaitContext(w)
	left := w.end()
	switch {
	case err == nil:
	case left:
		err = fmt.Errorf("client: %w", errGone)
	case errors.Is(err, b.server.base.Err()):
		err = errCut
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *fileBody) fail(err error) error {
	b.err = err
	return err
}

// Close ends the request: Close drops the pin on the file and writes the line of the access log.
// A running fill goes on.
func (b *fileBody) Close() error {
	err := b.reader.Close()
	if b.left > 0 && b.err == nil {
		b.err = errNotSent
	}
	b.server.finish(b.record, b.sent, b.err)
	return err
}
