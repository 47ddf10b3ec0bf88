package sender

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// turn is how many bytes a loop sends to one connection before the next one has its turn.
	turn = 512 << 10
	// window is how much of a file the kernel reads ahead by default: where the last byte of a window is in memory, the
	// others are, as a rule.
	window = 128 << 10
)

// loop sends to each of its connections when the kernel has room for more.
type loop struct {
	step  int64
	stall time.Duration
	every time.Duration // from one look for clients that stall to the next

	poll, end int // an epoll(7), and an eventfd(2) in the epoll: the loop has to end
	ended     chan struct{}
	load      atomic.Int32 // calls of Send

	mu   sync.Mutex
	jobs map[int32]*job // by socket
}

// job is one call of Send. Until done is closed the job belongs to the loop; afterwards, to Send.
type job struct {
	socket, file int
	offset, left int64
	err          error
	done         chan struct{}

	inStep   int64 // bytes of the step that went out
	deadline time.Time
}

func newLoop(step int64, stall time.Duration) (*loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	l := &loop{step: step, stall: stall, every: min(max(stall/8, 10*time.Millisecond), time.Second), poll: poll,
		ended: make(chan struct{}), jobs: make(map[int32]*job)}
	if l.end, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		free(poll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := l.watch(l.end, unix.EPOLLIN); err != nil {
		free(poll, l.end)
		return nil, err
	}
	return l, nil
}

func (l *loop) close() {
	_, _ = unix.Write(l.end, []byte{7: 1}) // an eventfd takes a number of 8 bytes other than 0, and has no other error
	<-l.ended
	free(l.poll, l.end)
}

func free(descriptors ...int) {
	for _, fd := range descriptors {
		_ = unix.Close(fd) // these have no data to lose
	}
}

// watch adds fd to the epoll. The loop is told of an event as long as the event lasts.
func (l *loop) watch(fd int, events uint32) error {
	err := unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}) //nolint:gosec // descriptors are small
	return os.NewSyscallError("epoll_ctl", err)
}

// take begins with j. false: the kernel does not watch the socket, and nothing was sent.
func (l *loop) take(j *job) bool {
	j.deadline = time.Now().Add(l.stall)
	l.mu.Lock() // over both steps: the loop finds a job for each event, and ends no job before the socket is watched
	defer l.mu.Unlock()
	if l.watch(j.socket, unix.EPOLLOUT) != nil {
		return false
	}
	l.jobs[int32(j.socket)] = j //nolint:gosec // descriptors are small
	return true
}

func (l *loop) run() {
	defer close(l.ended)
	events := make([]unix.EpollEvent, 64)
	var looked time.Time
	for {
		n, err := unix.EpollWait(l.poll, events, int(l.every.Milliseconds()))
		if err != nil { // a signal: there are no events
			n = 0
		}
		now := time.Now()
		for _, e := range events[:n] {
			if int(e.Fd) == l.end {
				return
			}
			l.mu.Lock()
			j := l.jobs[e.Fd]
			l.mu.Unlock()
			l.serve(j, now)
		}
		if now.Sub(looked) >= l.every {
			looked = now
			l.endStalled(now)
		}
	}
}

// serve gives j its turn.
func (l *loop) serve(j *job, now time.Time) {
	n := min(j.left, turn)
	if held, err := inMemory(j.file, j.offset, n); !held {
		l.finish(j, err)
		return
	}
	sent, err := unix.Sendfile(j.socket, j.file, &j.offset, int(n))
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case errors.Is(err, unix.EINVAL): // the file system has no sendfile(2)
		l.finish(j, ErrUnsupported)
		return
	case err != nil: // ENOSYS and EOPNOTSUPP match ErrUnsupported
		l.finish(j, os.NewSyscallError("sendfile", err))
		return
	case sent == 0:
		l.finish(j, io.ErrUnexpectedEOF)
		return
	}
	j.left -= int64(sent)
	if j.inStep += int64(sent); j.inStep >= l.step {
		j.inStep, j.deadline = 0, now.Add(l.stall)
	}
	if j.left == 0 {
		l.finish(j, nil)
	}
}

// endStalled ends the jobs of clients that take too little.
func (l *loop) endStalled(now time.Time) {
	var late []*job
	l.mu.Lock()
	for _, j := range l.jobs {
		if now.After(j.deadline) {
			late = append(late, j)
		}
	}
	l.mu.Unlock()
	for _, j := range late {
		l.finish(j, os.ErrDeadlineExceeded)
	}
}

// finish ends j.
func (l *loop) finish(j *job, err error) {
	_ = unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, j.socket, nil) // the socket is watched, and open
	l.mu.Lock()
	delete(l.jobs, int32(j.socket)) //nolint:gosec // descriptors are small
	l.mu.Unlock()
	j.err = err
	close(j.done)
}

// inMemory tells whether n bytes of the file, from offset on, can be read without a wait, as a rule: the last byte of each
// window is looked at. An offset behind the file's end counts as in memory. The error is ErrUnsupported: nothing is known.
func inMemory(file int, offset, n int64) (bool, error) {
	var b [1]byte
	for looked := int64(0); looked < n; {
		looked = min(looked+window, n)
		_, err := unix.Preadv2(file, [][]byte{b[:]}, offset+looked-1, unix.RWF_NOWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			return false, nil
		case err != nil: // of the file system, of a kernel without the call, of a filter of system calls
			return false, ErrUnsupported
		}
	}
	return true, nil
}
