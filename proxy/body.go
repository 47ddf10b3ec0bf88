package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/cache"
)

// errCut ends replies that are still waiting at the drain deadline.
var errCut = fmt.Errorf("%w: the drain deadline has passed", cache.ErrClosed)

// errNotSent is why a body has no bytes when not even its header could be sent.
var errNotSent = errors.New("the reply's header could not be sent")

// errGone is why a reply that had to wait for bytes was given up.
var errGone = errors.New("it has hung up")

// step is how much of a body goes out under one deadline: a client that takes so much within
// Options.ClientStall is slow, not stalled. At the default of 60s that is 17 KiB a second.
const step = 1 << 20

// clientLook is how often a reply that waits for bytes looks whether its client
// is still there: a fill may take hours.
const clientLook = 2 * time.Second

// fileBody is the body of a reply with a file: from disk, or from a fill as it
// goes on. It owns its Reader, and its end is the end of the request.
type fileBody struct {
	server *Server
	conn   net.Conn
	reader *cache.Reader
	left   int64
	sent   int64
	err    error
	record *record
}

// WriteTo sends the body. fasthttp's writer hands what SendTo gives it on to the TCP connection,
// which so gets its sendfile(2); anything between the two would lose it.
//
// It fails when the file turns out wrong, cannot be had to its end, or the client does not take it:
// fasthttp then closes the connection, and the client sees a body that is too short.
func (b *fileBody) WriteTo(w io.Writer) (int64, error) {
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

// Read is there because a body is an io.Reader; fasthttp takes WriteTo.
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

// wait waits until bytes may be sent, and for no client who has hung up. A part of a file is
// complete only if the whole file is right, and no body ends before its length.
func (b *fileBody) wait() (int64, error) {
	b.reader.Limit(b.left)
	for {
		ctx, cancel := context.WithTimeout(b.server.base, clientLook)
		n, err := b.reader.WaitContext(ctx)
		late := err != nil && err == ctx.Err() //nolint:errorlint // WaitContext gives it as it is
		cancel()
		switch {
		case late && b.server.base.Err() != nil:
			return 0, errCut
		case late && gone(b.conn):
			return 0, fmt.Errorf("client: %w", errGone)
		case late:
			continue
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
}

func (b *fileBody) fail(err error) error {
	b.err = err
	return err
}

// Close ends the request: the pin on the file goes, the access log gets its
// line. The fill, if one runs, goes on.
func (b *fileBody) Close() error {
	err := b.reader.Close()
	if b.left > 0 && b.err == nil {
		b.err = errNotSent
	}
	b.server.finish(b.record, b.sent, b.err)
	return err
}

// gone tells that the other side of conn has hung up, as far as the kernel
// knows. Nobody may be reading from conn, and nothing is taken from it.
func gone(conn net.Conn) bool {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = outer.NetConn()
	}
	inner, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := inner.SyscallConn()
	if err != nil {
		return false
	}
	over := false
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK) // does not wait: Go's sockets never do
		over = n == 0 && err == nil || errors.Is(err, unix.ECONNRESET)
	})
	return over || errors.Is(err, net.ErrClosed)
}
