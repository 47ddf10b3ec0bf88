package eventloop

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withFile has the answer to "file" end with so many bytes.
func (l *lab) withFile(size int) (content []byte) {
	l.Helper()
	content = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content) // has no errors
	path := filepath.Join(l.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		l.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		l.Fatal(err)
	}
	l.file.File, l.file.Size = f, int64(size) // the loops may have f until their end, so the garbage collector closes f
	return content
}

// full has a connection's client take nothing, and the kernel have room for little.
func (l *lab) full(text string) (far *net.TCPConn, near *Conn) {
	l.Helper()
	far, near = l.pair()
	if err := errors.Join(far.SetReadBuffer(64<<10), near.tcp.SetWriteBuffer(32<<10)); err != nil {
		l.Fatal(err)
	}
	l.open.Add(1)
	if err := l.loops.Add(near); err != nil {
		l.Fatal(err)
	}
	l.write(far, text)
	return far, near
}

// begun waits until the first bytes of a reply are there, and leaves them there.
func (l *lab) begun(far *net.TCPConn) {
	l.Helper()
	raw, err := far.SyscallConn()
	if err != nil {
		l.Fatal(err)
	}
	var errno error
	err = raw.Read(func(fd uintptr) bool {
		var n int
		n, _, errno = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return n > 0 || !errors.Is(errno, unix.EAGAIN)
	})
	if err := errors.Join(err, errno); err != nil {
		l.Fatal(err)
	}
}

// Replies with a file are whole, whether the client is fast or slow, and the connection goes on. A slow client holds
// up no other one.
func TestFile(t *testing.T) {
	for _, size := range []int{1, 5000, fileTurn, 3*fileTurn + 1} {
		l := newLab(t, Options{})
		content := string(l.withFile(size))
		slow, _ := l.full("file\n")
		l.begun(slow)
		for range 2 {
			far, _ := l.dial()
			for range 3 {
				l.write(far, "one\nfile\n")
				l.want(far, "re: one\nre: file\n"+content)
				<-l.answered
			}
			far.Close()
		}
		l.want(slow, "re: file\n"+content)
		l.write(slow, "two\n")
		l.want(slow, "re: two\n")
		slow.Close()
	}
}

// A file that the kernel has room for does not go out in one turn: another connection has its turn in between.
func TestFileTurn(t *testing.T) {
	l := newLab(t, Options{})
	content := string(l.withFile(2*fileTurn + fileTurn/2)) // what a socket takes; near comes before other once more
	asked, first := make(chan struct{}), make(chan struct{})
	var large *Conn
	left := make(chan int64, 1)
	l.hook = func(c *Conn, line string) {
		switch line {
		case "file":
			large = c
			close(asked)
			<-first // the other request has come
		case "turn":
			left <- large.rest.left
		}
	}
	far, near := l.pair()
	if err := near.tcp.SetWriteBuffer(4 * fileTurn); err != nil {
		t.Fatal(err)
	}
	l.open.Add(1)
	if err := l.loops.Add(near); err != nil {
		t.Fatal(err)
	}
	l.dial()
	other, _ := l.dial() // with the same loop as near
	l.write(far, "file\n")
	<-asked
	l.write(other, "turn\n")
	close(first)
	if n := <-left; n <= 0 {
		t.Errorf("%d bytes are left", n)
	}
	l.want(far, "re: file\n"+content)
	for _, c := range []*net.TCPConn{far, other} {
		c.Close()
	}
}

// The bytes before the file are whole, too, when the kernel has no room for them.
func TestFileBehindBytes(t *testing.T) {
	l := newLab(t, Options{})
	content := string(l.withFile(100_000))
	far, _ := l.dial()
	l.write(far, "big\nfile\n")
	l.want(far, "re: big\n"+strings.Repeat("\x00", bigSize)+"re: file\n"+content)
	l.write(far, "two\n")
	l.want(far, "re: two\n")
	far.Close()
}

// What a client sends during a reply is answered after the reply.
func TestRequestsDuringFile(t *testing.T) {
	l := newLab(t, Options{})
	content := string(l.withFile(1 << 20))
	far, _ := l.full("file\n")
	l.begun(far)
	l.write(far, "two\nfile\n")
	l.want(far, "re: file\n"+content+"re: two\nre: file\n"+content)
	far.Close()
}

// A connection that is to be closed after a file ends when the kernel has all of the file.
func TestLastFile(t *testing.T) {
	l := newLab(t, Options{})
	content := l.withFile(1 << 20)
	for _, begin := range []func() *net.TCPConn{
		func() *net.TCPConn { far, _ := l.full("last\nunread"); return far },
		func() *net.TCPConn { far, _ := l.dial(); l.write(far, "last\nunread"); return far },
		func() *net.TCPConn { far, _ := l.full("last\n"); l.begun(far); l.write(far, "unread"); return far },
	} {
		far := begin()
		if b, err := io.ReadAll(far); err != nil || string(b) != "re: last\n"+string(content) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
	}
	select {
	case <-l.answered:
		t.Error("a connection that was closed counts as answered")
	default:
	}
}

// A connection ends with an error when the client takes a reply too slowly, or leaves, when the file is too short,
// and when Close is called.
func TestFileEnds(t *testing.T) {
	l := newLab(t, Options{First: time.Hour, Idle: 80 * time.Millisecond}) // Idle makes the loops look often
	l.withFile(1 << 20)
	far, near := l.full("file\n")
	l.begun(far)
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	if err := <-l.ended; !errors.Is(err, unix.EPIPE) {
		t.Errorf("Close: %v", err)
	}
	far.Close()

	far, _ = l.full("file\n")
	l.begun(far)
	if err := far.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	far.Close()
	if err := <-l.ended; !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a client that left: %v", err)
	}

	far, _ = l.dial()
	l.write(far, "short\n")
	if err := <-l.ended; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short file: %v", err)
	}
	if b, err := io.ReadAll(far); err != nil || len(b) != len("re: short\n")+1<<20 {
		t.Errorf("a short file: %d bytes, %v", len(b), err)
	}

	l.file.Time = 300 * time.Millisecond
	began := time.Now()
	far, _ = l.full("file\n")
	if err := <-l.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a slow client: %v", err)
	}
	if took := time.Since(began); took < l.file.Time {
		t.Errorf("a slow client: after %v", took)
	}
	far.Close()
}

// CloseRead lets a reply end, and then the connection.
func TestCloseReadDuringFile(t *testing.T) {
	l := newLab(t, Options{})
	content := l.withFile(1 << 20)
	far, near := l.full("file\n")
	l.begun(far)
	if err := near.CloseRead(); err != nil {
		t.Error(err)
	}
	b, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(b, append([]byte("re: file\n"), content...)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
}
