package sender

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	size  = 3<<20 + 12345
	stall = 600 * time.Millisecond
)

func start(t *testing.T, loops int, stall time.Duration) *Sender {
	t.Helper()
	s, err := New(Options{Loops: loops, Step: 1 << 20, Stall: stall})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// fileOf is an open file in dir with random content.
func fileOf(t *testing.T, dir string, n int) (*os.File, []byte) {
	t.Helper()
	content := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	f, err := os.Create(filepath.Join(dir, "file"))
	if err == nil {
		_, err = f.Write(content)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, content
}

// pair is the two ends of a connection over TCP.
func pair(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func raw(t *testing.T, c *net.TCPConn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Many connections get the bytes, each its own range, in several calls, and before and after bytes of another way.
func TestSend(t *testing.T) {
	s := start(t, 2, time.Minute)
	f, content := fileOf(t, t.TempDir(), size)
	var all sync.WaitGroup
	for i := range 20 {
		server, client := pair(t)
		from, to := i*1000, size-i*2000
		middle := (from + to) / 2
		all.Go(func() {
			defer server.Close()
			_, _ = io.WriteString(server, "header")
			for _, r := range [][2]int{{from, middle}, {middle, middle}, {middle, to}} {
				want := int64(r[1] - r[0])
				if n, err := s.Send(nil, raw(t, server), f, int64(r[0]), want); n != want || err != nil {
					t.Errorf("%d bytes of %d, %v", n, want, err)
				}
			}
			_, _ = io.WriteString(server, "next")
		})
		all.Go(func() {
			got, err := io.ReadAll(client)
			if want := "header" + string(content[from:to]) + "next"; string(got) != want || err != nil {
				t.Errorf("client %d: %d bytes, want %d: %v", i, len(got), len(want), err)
			}
		})
	}
	all.Wait()
	for _, l := range s.loops {
		if n := len(l.jobs) + int(l.load.Load()); n != 0 {
			t.Errorf("%d jobs are left", n)
		}
	}
}

// A client that takes nothing, or less than a step in the time, is cut; a client that takes its steps in time is not,
// however long the whole lasts.
func TestStall(t *testing.T) {
	s := start(t, 1, stall)
	f, content := fileOf(t, t.TempDir(), 16<<20)
	send := func(server *net.TCPConn) (int64, error) {
		return s.Send(nil, raw(t, server), f, 0, int64(len(content)))
	}
	silent, _ := pair(t)
	began := time.Now()
	if n, err := send(silent); !errors.Is(err, os.ErrDeadlineExceeded) || n == int64(len(content)) {
		t.Errorf("a client that takes nothing got %d bytes: %v", n, err)
	}
	if took := time.Since(began); took < stall {
		t.Errorf("cut after %v", took)
	}

	steady, client := pair(t)
	_ = client.SetReadBuffer(64 << 10)
	_ = steady.SetWriteBuffer(64 << 10)
	var taken int64
	go func() { // a step in a quarter of the time
		began, buf := time.Now(), make([]byte, 64<<10)
		for {
			n, err := io.ReadFull(client, buf)
			taken += int64(n)
			if err != nil {
				return
			}
			<-time.After(time.Until(began.Add(stall / 4 * time.Duration(taken) / (1 << 20))))
		}
	}()
	began = time.Now()
	if n, err := send(steady); n != int64(len(content)) || err != nil {
		t.Errorf("a slow client got %d bytes: %v", n, err)
	}
	if took := time.Since(began); took < 3*stall {
		t.Errorf("the slow client took only %v", took)
	}
}

// A client that leaves, a stop and a file that is too short end Send; so does a stop that came before.
func TestEnds(t *testing.T) {
	s := start(t, 1, time.Minute)
	f, content := fileOf(t, t.TempDir(), 16<<20)
	all := int64(len(content))
	stopped := make(chan struct{})
	close(stopped)
	ends := func(name string, stop <-chan struct{}, n int64, during func(client *net.TCPConn), want error) {
		t.Helper()
		server, client := pair(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.ReadFull(client, make([]byte, 1<<20))
			during(client)
		})
		sent, err := s.Send(stop, raw(t, server), f, 0, n)
		server.Close()
		wg.Wait()
		if !errors.Is(err, want) || sent > all {
			t.Errorf("%s: %d bytes, %v, want %v", name, sent, err, want)
		}
	}
	stop := make(chan struct{})
	drop := func(client *net.TCPConn) { _, _ = io.Copy(io.Discard, client) }
	ends("a client that leaves", nil, all, func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, unix.ECONNRESET)
	ends("a stop", stop, all, func(*net.TCPConn) { close(stop) }, unix.EPIPE)
	ends("a stop before", stopped, all, drop, unix.EPIPE)
	ends("too short a file", nil, all+1, drop, io.ErrUnexpectedEOF)
	closed, _ := pair(t)
	r := raw(t, closed)
	closed.Close()
	if n, err := s.Send(nil, r, f, 0, all); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed connection: %d, %v", n, err)
	}
}

// Bytes that are not in memory are left to the caller; file systems that tell nothing are not served.
func TestNotInMemory(t *testing.T) {
	s := start(t, 1, time.Minute)
	f, content := fileOf(t, t.TempDir(), 8<<20)
	server, client := pair(t)
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(client)
		got <- b
	}()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	n, err := s.Send(nil, raw(t, server), f, 0, int64(len(content)))
	if n != 0 || err != nil && !errors.Is(err, ErrUnsupported) {
		t.Errorf("%d bytes of a file on disk, %v", n, err)
	}
	if _, err := f.ReadAt(make([]byte, len(content)), 0); err != nil {
		t.Fatal(err)
	}
	if n, err = s.Send(nil, raw(t, server), f, 0, int64(len(content))); err == nil && n != int64(len(content)) {
		t.Errorf("%d bytes of a file in memory", n)
	}
	server.Close()
	if b := <-got; err == nil && !bytes.Equal(b, content) {
		t.Errorf("%d bytes", len(b))
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	other, _ := pair(t)
	if n, err := s.Send(nil, raw(t, other), r, 0, 1); n != 0 || !errors.Is(err, ErrUnsupported) {
		t.Errorf("%d bytes of a pipe, %v", n, err)
	}
}

// A turn with a hole is left to the caller, although its last byte is in memory.
func TestHole(t *testing.T) {
	s := start(t, 1, time.Minute)
	f, _ := fileOf(t, t.TempDir(), turn)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, advice := range []int{unix.FADV_DONTNEED, unix.FADV_RANDOM} { // the second: nothing is read ahead
		if err := unix.Fadvise(int(f.Fd()), 0, 0, advice); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), turn-1); err != nil {
		t.Fatal(err)
	}
	server, _ := pair(t)
	if n, err := s.Send(nil, raw(t, server), f, 0, turn); n != 0 || err != nil && !errors.Is(err, ErrUnsupported) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// A client that stalls before Send, so that its connection has no event, is cut, too, also among signals: Go's own
// come at any time.
func TestStallFromTheStart(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		for tick := time.Tick(stall / 40); ; {
			select {
			case <-done:
				return
			case <-tick:
			}
			threads, _ := os.ReadDir("/proc/self/task")
			for _, thread := range threads {
				id, _ := strconv.Atoi(thread.Name())
				_ = unix.Tgkill(os.Getpid(), id, unix.SIGURG) // the thread may have ended
			}
		}
	}()
	s := start(t, 1, stall)
	f, _ := fileOf(t, t.TempDir(), size)
	server, _ := pair(t)
	for written := 1; written > 0; { // until the connection is full
		_ = server.SetWriteDeadline(time.Now().Add(stall / 2))
		written, _ = server.Write(make([]byte, 64<<10))
	}
	stop := make(chan struct{})
	defer time.AfterFunc(20*stall, func() { close(stop) }).Stop()
	if n, err := s.Send(stop, raw(t, server), f, 0, size); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
