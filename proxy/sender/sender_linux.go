package sender

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sender sends by its loops. The methods may be called concurrently.
type Sender struct{ loops []*loop }

// New starts the loops.
func New(o Options) (*Sender, error) {
	s := &Sender{}
	for range max(1, o.Loops) {
		l, err := newLoop(o.Step, o.Stall)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("sender: %w", err)
		}
		s.loops = append(s.loops, l)
		go l.run()
	}
	return s, nil
}

// Close ends the loops. Every Send must have returned.
func (s *Sender) Close() {
	var ended sync.WaitGroup
	for _, l := range s.loops {
		ended.Go(l.close)
	}
	ended.Wait()
}

// Send sends n bytes of file, from offset on, to a TCP connection, and tells how many were sent. The file's own offset
// stays. Fewer than n without an error: the next bytes are not in memory, so that the loop would wait for the disk, or the
// kernel cannot watch the connection; the caller has to send some of the bytes in another way.
//
// The error matches os.ErrDeadlineExceeded for a client that stalls, and io.ErrUnexpectedEOF for a file that is too
// short; else the error is sendfile(2)'s, or ErrUnsupported. A stop that is closed shuts the connection, and so ends
// Send with an error.
//
// Nothing else may be sent to the connection during Send. A Close of the connection waits for Send's end.
func (s *Sender) Send(stop <-chan struct{}, conn syscall.RawConn, file *os.File, offset, n int64) (int64, error) {
	if n <= 0 {
		return 0, nil
	}
	l := s.idlest()
	l.load.Add(1)
	defer l.load.Add(-1)
	j := &job{file: int(file.Fd()), offset: offset, left: n, done: make(chan struct{})} //nolint:gosec // descriptors are small
	err := conn.Control(func(fd uintptr) {                                              // fd stays open meanwhile
		j.socket = int(fd) //nolint:gosec // descriptors are small
		if !l.take(j) {
			return
		}
		select {
		case <-j.done:
		case <-stop:
			_ = unix.Shutdown(j.socket, unix.SHUT_RDWR) // the loop finds a broken connection, also after an error of this call
			<-j.done
		}
	})
	if err != nil {
		return 0, err
	}
	return n - j.left, j.err
}

// idlest is the loop with the fewest connections.
func (s *Sender) idlest() *loop {
	l := s.loops[0]
	for _, other := range s.loops[1:] {
		if other.load.Load() < l.load.Load() {
			l = other
		}
	}
	return l
}
