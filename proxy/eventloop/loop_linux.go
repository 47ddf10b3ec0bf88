package eventloop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// inSize is the most bytes of a connection that are read at once.
const inSize = 8 << 10

// Loops are event loops. The methods may be called concurrently.
type Loops struct {
	all   []*loop
	next  atomic.Uint32
	spare *spare
}

// loop has some connections.
type loop struct {
	o      Options
	answer Answer
	every  time.Duration // from one look for connections without a request to the next
	in     []byte

	poll, end int    // an epoll(7), and an eventfd(2) in the epoll: the loop has to end
	spare     *spare // of all loops
	ended     chan struct{}

	mu    sync.Mutex
	conns map[int32]*Conn // by descriptor
}

// New starts the loops.
func New(o Options) (*Loops, error) {
	l := &Loops{}
	for range max(1, o.Loops) {
		one, err := newLoop(o)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("event loops: %w", err)
		}
		if l.spare == nil {
			l.spare = newSpare(one.end)
		}
		one.spare = l.spare
		l.all = append(l.all, one)
		go one.run()
	}
	return l, nil
}

// Close ends the loops. No connection may be left with a loop, and none may be added.
func (l *Loops) Close() {
	for _, one := range l.all {
		one.close()
	}
	if l.spare != nil {
		l.spare.lose()
	}
}

// Add gives c to a loop, for the first time, or once more after Options.Left. With an error c stays outside of the loops,
// as before.
func (l *Loops) Add(c *Conn) error {
	return l.all[l.next.Add(1)%uint32(len(l.all))].add(c) //nolint:gosec // a few
}

func newLoop(o Options) (*loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	every := min(max(min(o.First, o.Idle)/8, 10*time.Millisecond), 5*time.Second)
	l := &loop{o: o, answer: o.NewAnswer(), every: every, in: make([]byte, inSize), poll: poll, ended: make(chan struct{}), conns: make(map[int32]*Conn)}
	if l.end, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		_ = unix.Close(poll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := l.watch(l.end); err != nil {
		_, _ = unix.Close(poll), unix.Close(l.end)
		return nil, err
	}
	return l, nil
}

func (l *loop) close() {
	_, _ = unix.Write(l.end, []byte{7: 1}) // an eventfd takes a number of 8 bytes other than 0, and has no other error
	<-l.ended
	_, _ = unix.Close(l.poll), unix.Close(l.end) // these have no data to lose
}

// watch has the loop told of fd as long as fd has something to read.
func (l *loop) watch(fd int) error {
	err := unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}) //nolint:gosec // descriptors are small
	return os.NewSyscallError("epoll_ctl", err)
}

func (l *loop) add(c *Conn) error {
	stay := l.o.First
	if c.asked {
		stay = l.o.Idle
	}
	c.until = time.Now().Add(stay)
	l.mu.Lock() // the loop looks for no connection before the connection is complete
	defer l.mu.Unlock()
	if err := c.enter(l.watch); err != nil {
		return err
	}
	l.conns[int32(c.fd)] = c //nolint:gosec // descriptors are small
	return nil
}

// conn is the connection of a descriptor.
func (l *loop) conn(fd int32) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[fd]
}

// forget takes c away from the loop.
func (l *loop) forget(c *Conn) {
	_ = unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, c.fd, nil) // c is watched, and open
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, int32(c.fd)) //nolint:gosec // descriptors are small
}

func (l *loop) run() {
	defer close(l.ended)
	events := make([]unix.EpollEvent, 128)
	var looked time.Time
	for {
		n := ready(l.poll, events)
		if n == 0 {
			var err error
			if n, err = unix.EpollWait(l.poll, events, int(l.every.Milliseconds())); err != nil { // a signal
				n = 0
			}
		}
		now := time.Now()
		for _, e := range events[:n] {
			if int(e.Fd) == l.end {
				return
			}
			if c := l.conn(e.Fd); c.rest.left > 0 {
				l.sendRest(c, now)
			} else {
				l.serve(c, now)
			}
		}
		if now.Sub(looked) >= l.every {
			looked = now
			l.endIdle(now)
		}
		if l.o.Yield {
			runtime.Gosched()
		}
	}
}

// serve answers what has come from c. The first bytes are looked at before they are taken away, so that a connection
// which leaves with its first request, as one for a file does, leaves as it came.
func (l *loop) serve(c *Conn, now time.Time) {
	flags := 0
	if !c.asked {
		flags = unix.MSG_PEEK
	}
	n, errno := receive(c.fd, l.in, flags)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		l.finish(c, os.NewSyscallError("recv", errno))
		return
	case n == 0:
		l.finish(c, nil)
		return
	}
	r := l.answer(c, l.in[:n])
	if r.Then == Close {
		r.Read = n // see conclude
	}
	unread := l.in[r.Read:n]
	if !c.asked {
		unread = nil // the kernel has the bytes
		if r.Read > 0 {
			if taken, errno := receive(c.fd, l.in[:r.Read], 0); taken != r.Read {
				l.finish(c, os.NewSyscallError("recv", errno))
				return
			}
			c.asked = true
		}
	}
	if r.File.Size > 0 {
		l.sendWithFile(c, &r, now)
		return
	}
	sent := 0
	if len(r.Bytes) > 0 {
		if sent, errno = sendSome(c.fd, r.Bytes, 0); errno != 0 {
			l.finish(c, os.NewSyscallError("send", errno))
			return
		}
		if sent == len(r.Bytes) && r.Then != Close {
			l.o.Answered(c)
		}
	}
	switch {
	case sent < len(r.Bytes) || r.Then == Leave:
		l.leave(c, bytes.Clone(unread), bytes.Clone(r.Bytes[sent:]), r.Then == Close)
	case r.Then == Close:
		l.conclude(c)
	default:
		c.until = now.Add(l.o.Idle)
	}
}

// sendSome is send, and counts nothing where the kernel has no room.
func sendSome(fd int, b []byte, flags int) (sent int, errno unix.Errno) {
	switch sent, errno = send(fd, b, flags); errno {
	case 0:
		return sent, 0
	case unix.EAGAIN, unix.EINTR:
		return 0, 0
	}
	return 0, errno
}

// discards is how many reads take away what comes behind the last request of a connection.
const discards = 16

// conclude closes c after the last reply. What has come behind the last request is read first, up to a bound: a
// connection that is closed with unread bytes is reset, and the client may lose the end of the reply.
func (l *loop) conclude(c *Conn) {
	for range discards {
		if n, errno := receive(c.fd, l.in, 0); n <= 0 || errno != 0 {
			break
		}
	}
	l.finish(c, nil)
}

// finish closes c.
func (l *loop) finish(c *Conn, err error) {
	l.forget(c)
	c.closed()
	l.o.Ended(c, err)
}

// leave has c leave the loops.
func (l *loop) leave(c *Conn, unread, unsent []byte, last bool) {
	l.forget(c)
	go func() {
		conn, err := c.leave(l.spare)
		if err != nil {
			l.o.Ended(c, err)
			return
		}
		l.o.Left(c, resume(conn, unread), unsent, last)
	}()
}

// endIdle closes the connections that stay without a request for too long, or take a reply too slowly.
func (l *loop) endIdle(now time.Time) {
	var late []*Conn
	l.mu.Lock()
	for _, c := range l.conns {
		if now.After(c.until) {
			late = append(late, c)
		}
	}
	l.mu.Unlock()
	for _, c := range late {
		if c.rest.left > 0 {
			l.finish(c, os.ErrDeadlineExceeded)
		} else {
			l.finish(c, nil)
		}
	}
}

var _ net.Conn = (*Conn)(nil)
