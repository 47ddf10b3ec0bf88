//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// server is a running contender, or the source.
type server struct {
	url    string // http://127.0.0.1:PORT
	admin  string // of the mirror: the admin listener
	dir    string // the server's own
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// launch starts a program whose output goes to DIR/log, and waits until ready answers 200.
func launch(ctx context.Context, s *server, ready string, name string, args ...string) error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(name, args...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, s.dir
	s.cmd.Env = cleanEnv()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // the reason is in the log
		close(s.exited)
	}()
	return s.await(ctx, "an answer of "+name, func() bool { return answers(ctx, ready) })
}

// await is awaitEach for what takes a moment.
func (s *server) await(ctx context.Context, what string, seen func() bool) error {
	return s.awaitEach(ctx, 2*time.Millisecond, what, seen)
}

// awaitEach polls what can only be seen from outside, for a minute at most. Each poll is work of the server.
func (s *server) awaitEach(ctx context.Context, every time.Duration, what string, seen func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !seen() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w%s", what, ctx.Err(), s.tail())
		case <-s.exited:
			return fmt.Errorf("%s: %v%s", what, s.cmd.ProcessState, s.tail())
		case <-time.After(every):
		}
	}
	return nil
}

// tail is the end of the server's log, on lines of its own.
func (s *server) tail() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return "\n" + string(text[max(0, len(text)-2000):])
}

// stop ends the server, and waits for its end.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// cleanEnv is the environment without what would configure a mirror.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(strings.ToUpper(kv), "IMGMIRROR_") })
}

// freePort is a port of loopback on which nothing listens.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// family is the server's process and all below it.
func (s *server) family() []int {
	all := []int{s.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// cpu is the time that the server and its children have been on a core, in seconds, threads that have ended included.
func (s *server) cpu() (seconds float64) {
	for _, pid := range s.family() {
		var t unix.Timespec
		const scheduled = 2                                         // CPUCLOCK_SCHED: user and system, to the nanosecond
		if unix.ClockGettime(int32(^pid<<3|scheduled), &t) == nil { //nolint:gosec // a pid is below 2^22
			seconds += float64(t.Nano()) / 1e9
		}
	}
	return seconds
}

// forgetPeak makes peak begin anew.
func (s *server) forgetPeak() {
	for _, pid := range s.family() {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // if refused, the peak is that since the start
	}
}

// peak is the most memory that was resident since forgetPeak, of all processes together, in MB.
func (s *server) peak() float64 { return s.resident("VmHWM:") }

// resident is one line of /proc/PID/status, the sum over all processes of the server, in MB.
func (s *server) resident(line string) float64 {
	var kb int
	for _, pid := range s.family() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, after, _ := strings.Cut(string(text), line)
		if fields := strings.Fields(after); len(fields) > 0 {
			n, _ := strconv.Atoi(fields[0])
			kb += n
		}
	}
	return float64(kb) * 1024 / 1e6
}
