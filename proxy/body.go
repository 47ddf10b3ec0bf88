package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"imgmirror/cache"
	"imgmirror/proxy/sender"
)

// errCut ends replies that are still waiting at the drain deadline.
var errCut = fmt.Errorf("%w: the drain deadline has passed", cache.ErrClosed)

// errNotSent is the end of a body whose header could not be sent.
var errNotSent = errors.New("the reply's header could not be sent")

// step is how much of a body goes out under one deadline: a client that takes a step within
// Options.ClientStall is slow, not stalled. A step in the default of 60s is 17 KiB a second.
const step = 1 << 20

const (
	// firstStep goes out with the header, before the loops of the sender go on.
	firstStep = 64 << 10
	// leastForLoop is how many bytes are worth a change of goroutines.
	leastForLoop = 256 << 10
	// mostForLoop is how much a loop sends before the body is looked at again, and counted.
	mostForLoop = 8 << 20
)

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

	noLoop bool // loops cannot send the file
	onDisk bool // the next bytes are not in memory
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
	b.server.bodies.n.Add(1)
	defer b.server.bodies.n.Add(-1)
	for b.left > 0 {
		n, err := b.wait()
		if err != nil {
			return b.sent, b.fail(err)
		}
		sent, err := b.send(w, min(n, b.left))
		b.sent += sent
		b.left -= sent
		if err != nil {
			return b.sent, b.fail(err)
		}
	}
	return b.sent, nil
}

// send sends up to n bytes. One body alone is sent by its own goroutine, which is faster; of several, a loop of the
// sender sends what is in memory.
func (b *fileBody) send(w io.Writer, n int64) (int64, error) {
	if b.sent == 0 {
		return b.sendStep(w, min(n, firstStep))
	}
	if !b.noLoop && !b.onDisk && n >= leastForLoop {
		if loops, conn := b.server.bodies.loops(b.conn); loops != nil {
			return b.sendByLoop(loops, conn, min(n, mostForLoop))
		}
	}
	b.onDisk = false
	return b.sendStep(w, min(n, step))
}

// sendByLoop sends up to n bytes.
func (b *fileBody) sendByLoop(loops *sender.Sender, conn syscall.RawConn, n int64) (int64, error) {
	sent, err := b.reader.SendBy(func(file *os.File, offset, n int64) (int64, error) {
		return loops.Send(b.server.base.Done(), conn, file, offset, n)
	}, n)
	switch {
	case errors.Is(err, sender.ErrUnsupported):
		b.noLoop = true
		return sent, nil
	case err != nil:
		return sent, b.notTaken(err)
	}
	b.onDisk = sent < n
	return sent, nil
}

// sendStep sends n bytes under one deadline.
func (b *fileBody) sendStep(w io.Writer, n int64) (int64, error) {
	if err := b.conn.SetWriteDeadline(time.Now().Add(b.server.opts.ClientStall)); err != nil {
		return 0, b.notTaken(err)
	}
	sent, err := b.reader.SendTo(w, n)
	switch {
	case err != nil:
		return sent, b.notTaken(err)
	case sent < n:
		return sent, fmt.Errorf("send %d bytes: %w", n, io.ErrShortWrite)
	}
	return sent, nil
}

// notTaken is the error of a client that took not all of the body, or was cut.
func (b *fileBody) notTaken(err error) error {
	if b.server.base.Err() != nil {
		return errCut
	}
	return fmt.Errorf("client: %w", err)
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
