package eventloop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// words answers lines: "close" ends the connection after an answer, "leave" leaves, and "big" has a large answer. "file"
// has an answer with File, "last" too and ends the connection, and "short" has an answer with a file that is too short.
type words struct {
	replies []byte
	file    File
	hook    func(c *Conn, line string) // called by the loop
}

const bigSize = 32 << 20

func (w *words) answer(c *Conn, in []byte) (r Replies) {
	w.replies = w.replies[:0]
	reply := func(then Then) Replies {
		r.Bytes, r.Then = w.replies, then
		return r
	}
	for r.Read < len(in) {
		line, _, whole := bytes.Cut(in[r.Read:], []byte("\n"))
		if !whole || string(line) == "leave" {
			return reply(Leave)
		}
		r.Read += len(line) + 1
		if w.hook != nil {
			w.hook(c, string(line))
		}
		w.replies = append(append(w.replies, "re: "...), line...)
		w.replies = append(w.replies, '\n')
		switch string(line) {
		case "close":
			return reply(Close)
		case "big":
			w.replies = append(w.replies, make([]byte, bigSize)...)
		case "file", "last", "short":
			r.File = w.file
			if string(line) == "short" {
				r.File.Size++
			}
			if string(line) == "last" {
				return reply(Close)
			}
		}
	}
	return reply(Wait)
}

// left is one call of Options.Left.
type left struct {
	c      *Conn
	conn   net.Conn
	unsent []byte
	last   bool
}

// lab has loops, and tells what the loops tell.
type lab struct {
	*testing.T
	loops    *Loops
	answered chan *Conn
	ended    chan error
	left     chan left
	ln       *net.TCPListener
	file     File // of the answer to "file"
	hook     func(c *Conn, line string)
	open     sync.WaitGroup // connections with a loop
}

func newLab(t *testing.T, o Options) *lab {
	t.Helper()
	l := &lab{T: t, answered: make(chan *Conn, 100), ended: make(chan error, 100), left: make(chan left, 100)}
	l.file.Time = time.Hour
	o.Loops, o.NewAnswer = 2, func() Answer {
		w := new(words)
		return func(c *Conn, in []byte) Replies {
			w.file, w.hook = l.file, l.hook
			return w.answer(c, in)
		}
	}
	if o.First == 0 {
		o.First, o.Idle = time.Hour, time.Hour
	}
	o.Answered = func(c *Conn) { l.answered <- c }
	o.Ended = func(_ *Conn, err error) { l.ended <- err; l.open.Done() }
	o.Left = func(c *Conn, conn net.Conn, unsent []byte, last bool) {
		l.left <- left{c, conn, unsent, last}
		l.open.Done()
	}
	var err error
	if l.loops, err = New(o); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.ln = ln.(*net.TCPListener)
	t.Cleanup(func() {
		l.ln.Close()
		l.open.Wait()
		l.loops.Close()
	})
	return l
}

// pair gives both ends of a connection; the near one is outside of the loops.
func (l *lab) pair() (far *net.TCPConn, near *Conn) {
	l.Helper()
	c, err := net.Dial("tcp", l.ln.Addr().String())
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		l.Fatal(err)
	}
	tcp, err := l.ln.AcceptTCP()
	if err != nil {
		l.Fatal(err)
	}
	return c.(*net.TCPConn), NewConn(tcp)
}

// dial gives a connection that is with a loop.
func (l *lab) dial() (far *net.TCPConn, near *Conn) {
	l.Helper()
	far, near = l.pair()
	l.open.Add(1)
	if err := l.loops.Add(near); err != nil {
		l.Fatal(err)
	}
	return far, near
}

func (l *lab) write(c net.Conn, text string) {
	l.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) want(c io.Reader, text string) {
	l.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		l.Fatalf("%q, want %q (%v)", b, text, err)
	}
}

// wantEnd has c end without another byte.
func (l *lab) wantEnd(c io.Reader) {
	l.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		l.Fatalf("%q, %v", b, err)
	}
}

func TestAnswers(t *testing.T) {
	l := newLab(t, Options{})
	var fars []*net.TCPConn
	for range 10 {
		far, near := l.dial()
		if near.RemoteAddr().String() != far.LocalAddr().String() || near.LocalAddr().String() != far.RemoteAddr().String() {
			t.Errorf("%v, %v", near.RemoteAddr(), near.LocalAddr())
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection with a loop was written to: %v", err)
		}
		fars = append(fars, far)
	}
	for range 3 {
		for _, far := range fars {
			l.write(far, "one\ntwo\n")
		}
		for _, far := range fars {
			l.want(far, "re: one\nre: two\n")
		}
	}
	l.write(fars[0], "close\nnever\n")
	l.want(fars[0], "re: close\n")
	for _, far := range fars[1:] {
		far.Close()
	}
	for range fars {
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
	}
}

// A connection leaves with the bytes that were not read: its first ones are still in the kernel.
func TestLeaves(t *testing.T) {
	l := newLab(t, Options{})
	for _, test := range []struct{ first, reply, second, unread string }{
		{"", "", "leave", "leave"},
		{"", "", "a\nleave\nb\n", "leave\nb\n"},
		{"a\n", "re: a\n", "leave\nb\n", "leave\nb\n"},
		{"a\n", "re: a\n", "b\nc\nhalf", "half"},
	} {
		far, near := l.dial()
		if test.first != "" {
			l.write(far, test.first)
			l.want(far, test.reply)
			<-l.answered
		}
		l.write(far, test.second)
		got := <-l.left
		if got.c != near || len(got.unsent) > 0 || got.last {
			t.Errorf("%+v: %v, unsent %q, last %v", test, got.c == near, got.unsent, got.last)
		}
		if _, plain := got.conn.(*net.TCPConn); plain == (test.first != "") {
			t.Errorf("%+v: a %T", test, got.conn)
		}
		l.want(got.conn, test.unread)
		l.write(far, "more")
		l.want(got.conn, "more")
		if err := near.CloseRead(); err != nil {
			t.Error(err)
		}
		l.wantEnd(got.conn)
		l.write(near, "bye")
		if err := near.Close(); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(far); err != nil || !strings.HasSuffix(string(b), "bye") {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// WriteTo of a connection that was resumed begins with what was read before.
func TestResumedWriteTo(t *testing.T) {
	l := newLab(t, Options{})
	far, _ := l.dial()
	l.write(far, "a\n")
	l.want(far, "re: a\n")
	l.write(far, "leave")
	got := <-l.left
	l.write(far, " now")
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if n, err := io.Copy(&b, got.conn); err != nil || b.String() != "leave now" || n != int64(b.Len()) {
		t.Errorf("%q, %d, %v", b.String(), n, err)
	}
	got.conn.Close()
}

// A client that does not take its replies leaves, with what the kernel has no room for; no byte is lost.
func TestSlowClientLeaves(t *testing.T) {
	l := newLab(t, Options{})
	for _, test := range []struct {
		text string
		last bool
	}{{"big\n", false}, {"big\nclose\n", true}, {"big\nhalf", false}} {
		far, _ := l.dial()
		l.write(far, test.text)
		got := <-l.left
		if len(got.unsent) == 0 || got.last != test.last {
			t.Errorf("%d bytes, last %v", len(got.unsent), got.last)
		}
		go func() {
			_, _ = got.conn.Write(got.unsent)
			got.conn.Close()
		}()
		b, err := io.ReadAll(far)
		want := len("re: big\n") + bigSize
		if test.last {
			want += len("re: close\n")
		}
		if err != nil && !errors.Is(err, unix.ECONNRESET) || len(b) != want && !strings.HasSuffix(test.text, "half") {
			t.Errorf("%q: %d bytes, want %d, %v", test.text, len(b), want, err)
		}
	}
}

// A connection without a request ends after First, and after Idle; a request in between counts.
func TestIdleConnectionsEnd(t *testing.T) {
	const short = 300 * time.Millisecond
	l := newLab(t, Options{First: short, Idle: time.Hour})
	began := time.Now()
	far, _ := l.dial()
	l.wantEnd(far)
	if took := time.Since(began); took < short {
		t.Errorf("a new connection ends after %v", took)
	}
	if err := <-l.ended; err != nil {
		t.Error(err)
	}

	l = newLab(t, Options{First: time.Hour, Idle: short})
	far, _ = l.dial()
	asked := time.Now() // before the loop can have the request
	l.write(far, "a\n")
	l.want(far, "re: a\n")
	l.wantEnd(far)
	if took := time.Since(asked); took < short {
		t.Errorf("a connection ends %v after its request", took)
	}
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
}

// CloseRead and Close from outside end a connection that is with a loop.
func TestEndFromOutside(t *testing.T) {
	l := newLab(t, Options{})
	for name, end := range map[string]func(*Conn) error{"Close": (*Conn).Close, "CloseRead": (*Conn).CloseRead} {
		far, near := l.dial()
		l.write(far, "a\n")
		l.want(far, "re: a\n")
		if err := end(near); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		l.wantEnd(far)
		if err := <-l.ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := end(near); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s again: %v", name, err)
		}
	}
}

// A reset by the client is the error of the connection.
func TestReset(t *testing.T) {
	l := newLab(t, Options{})
	far, _ := l.dial()
	if err := far.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	far.Close()
	if err := <-l.ended; !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
}

// without runs do while no descriptor is free.
func (l *lab) without(do func()) {
	l.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		l.Fatal(err)
	}
	full := limit
	full.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &full); err != nil {
		l.Fatal(err)
	}
	do()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		l.Fatal(err)
	}
}

// A connection that no loop takes stays as it was.
func TestNotAdded(t *testing.T) {
	l := newLab(t, Options{})
	far, near := l.pair()
	var err error
	l.without(func() { err = l.loops.Add(near) })
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v", err)
	}
	l.write(near, "hello")
	l.want(far, "hello")
	near.Close()
	l.wantEnd(far)
	if err := l.loops.Add(near); err == nil {
		t.Error("a closed connection was added")
	}
}

// used runs do while all descriptors are in use, so that one is free once another is closed, until useAll.
func (l *lab) used(do func(useAll func())) {
	l.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		l.Fatal(err)
	}
	few := limit
	few.Cur = 128
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		l.Fatal(err)
	}
	var fillers []int
	defer func() {
		for _, fd := range fillers {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			l.Error(err)
		}
	}()
	useAll := func() {
		for {
			fd, err := unix.Dup(0)
			if err != nil {
				return
			}
			fillers = append(fillers, fd)
		}
	}
	useAll()
	do(useAll)
}

// wantLeft waits for a connection that leaves with "leave".
func (l *lab) wantLeft() {
	l.Helper()
	select {
	case got := <-l.left:
		l.want(got.conn, "leave")
		l.Cleanup(func() { got.conn.Close() })
	case err := <-l.ended:
		l.Fatal(err)
	}
}

// Connections leave although all descriptors are in use, one after the other and at the same moment. The reserve is there
// again afterwards, also when others have taken the room.
func TestLeaveByTheSpareDescriptor(t *testing.T) {
	l := newLab(t, Options{})
	const many = 10
	var far []*net.TCPConn
	for range 3*many + 2 {
		c, _ := l.dial()
		far = append(far, c)
	}
	next := func() (c *net.TCPConn) {
		c, far = far[0], far[1:]
		return c
	}
	l.used(func(useAll func()) {
		for range 2 {
			for range many / 2 {
				l.write(next(), "leave")
				l.wantLeft()
				useAll()
			}
			for range many {
				l.write(next(), "leave")
			}
			for range many {
				l.wantLeft()
			}
			useAll()
		}
		l.loops.spare.lose()
		useAll()
	})
	l.write(next(), "leave") // where there is room
	l.wantLeft()
	l.used(func(func()) {
		l.write(next(), "leave")
		l.wantLeft()
	})
}

// A connection that needs a descriptor to leave waits for one.
func TestLeaveWaitsForDescriptor(t *testing.T) {
	l := newLab(t, Options{})
	far, near := l.dial()
	l.without(func() {
		l.write(far, "leave")
		select {
		case got := <-l.left:
			t.Errorf("left as %T", got.conn)
		case err := <-l.ended:
			t.Errorf("ended: %v", err)
		case <-time.After(200 * time.Millisecond): // of leaveTime
		}
		if err := near.CloseRead(); err != nil {
			t.Error(err)
		}
	})
	got := <-l.left
	l.want(got.conn, "leave")
	l.wantEnd(got.conn)
	got.conn.Close()
}

// Close ends a connection that waits for a descriptor.
func TestCloseWhileLeaving(t *testing.T) {
	l := newLab(t, Options{})
	far, near := l.dial()
	l.write(far, "a\n")
	l.want(far, "re: a\n")
	began := time.Now()
	l.without(func() {
		l.write(far, "leave")
		for l.loops.conns() > 0 {
			time.Sleep(time.Millisecond) // no event tells that a connection begins to leave
		}
		if err := near.Close(); err != nil {
			t.Error(err)
		}
		if err := <-l.ended; !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	if took := time.Since(began); took > leaveTime/2 {
		t.Errorf("ended after %v", took)
	}
}

// conns is the number of connections that loops have.
func (l *Loops) conns() (n int) {
	for _, one := range l.all {
		one.mu.Lock()
		n += len(one.conns)
		one.mu.Unlock()
	}
	return n
}

// A connection that has left can be added once more, with all that its client has sent meanwhile.
func TestAddOnceMore(t *testing.T) {
	l := newLab(t, Options{})
	far, near := l.dial()
	l.write(far, "big\n")
	got := <-l.left
	l.open.Add(1)
	added := make(chan struct{})
	go func() {
		defer close(added)
		_, _ = got.conn.Write(got.unsent)
		if err := l.loops.Add(near); err != nil {
			t.Error(err)
		}
	}()
	l.write(far, "b\n")
	if b, err := io.ReadAll(io.LimitReader(far, int64(len("re: big\n"))+bigSize)); err != nil || !bytes.HasPrefix(b, []byte("re: big\n")) {
		t.Fatal(len(b), err)
	}
	l.want(far, "re: b\n")
	<-added
	far.Close()
}

// BenchmarkCalls compares two kinds of system calls: Go's scheduler is told of the first kind, and not of the second
// kind, which raw_linux.go has.
func BenchmarkCalls(b *testing.B) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	out, in := make([]byte, 400), make([]byte, 8<<10)
	b.Run("told", func(b *testing.B) {
		for b.Loop() {
			if n, err := unix.Write(fds[0], out); n != len(out) {
				b.Fatal(n, err)
			}
			if n, err := unix.Read(fds[1], in); n != len(out) {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("raw", func(b *testing.B) {
		for b.Loop() {
			if n, errno := send(fds[0], out, 0); n != len(out) {
				b.Fatal(n, errno)
			}
			if n, errno := receive(fds[1], in, 0); n != len(out) {
				b.Fatal(n, errno)
			}
		}
	})
}

// A connection that is to be closed loses no reply to what its client sends behind the last request, however much
// that is.
func TestCloseWithMuchUnread(t *testing.T) {
	l := newLab(t, Options{})
	for range 20 {
		far, _ := l.dial()
		l.write(far, "close\n"+strings.Repeat("x", 3*inSize))
		if b, err := io.ReadAll(far); err != nil || string(b) != "re: close\n" {
			t.Fatalf("%q, %v", b, err)
		}
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
	}
}
