package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestAccessLogAtStop: each reply that a client has had before or during a stop has its whole line.
func TestAccessLogAtStop(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil)
	const clients = 4
	answered := make([][]string, clients) // the ids of the requests that were
	var asking sync.WaitGroup
	var once sync.Once
	for i := range clients {
		asking.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			for n := 0; ; n++ {
				id := fmt.Sprintf("client-%d-%d", i, n)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+"/ping", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("X-Request-Id", id)
				resp, err := (&http.Client{Transport: transport}).Do(req)
				if err != nil {
					return // the mirror stops
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil {
					return
				}
				answered[i] = append(answered[i], id)
				if n == 500 {
					once.Do(func() { m.signal(syscall.SIGTERM) })
				}
			}
		})
	}
	asking.Wait()
	if code := m.awaitExit(20 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
	logged := make(map[string]int)
	for line := range strings.Lines(m.log()) {
		_, after, found := strings.Cut(line, " request_id=")
		if !found {
			continue
		}
		id, agent, _ := strings.Cut(after, " ")
		if !strings.HasPrefix(line, "time=") || agent != "user_agent=Go-http-client/1.1\n" {
			t.Errorf("no whole line: %q", line)
		}
		logged[id]++
	}
	for _, ids := range answered {
		for _, id := range ids {
			if logged[id] != 1 {
				t.Errorf("%s has %d lines", id, logged[id])
			}
		}
	}
}

// TestLogRequests: log.requests says which requests have a line, and a SIGHUP is enough.
func TestLogRequests(t *testing.T) {
	t.Parallel()
	m := startMirror(t, settings{"log.requests": "errors"})
	reload := func(requests string) {
		t.Helper()
		before := strings.Count(m.log(), "configuration reloaded")
		m.set(settings{"log.requests": requests})
		m.configFile()
		m.signal(syscall.SIGHUP)
		m.until("the configuration is reloaded", func() bool { return strings.Count(m.log(), "configuration reloaded") > before })
	}
	ask := func(name string) {
		t.Helper()
		get(t, m.url+"/ping", "X-Request-Id", name+"-fine")
		get(t, m.url+"/nothing", "X-Request-Id", name+"-wrong")
	}
	ask("errors")
	reload("off")
	ask("off")
	reload("all")
	ask("all")
	m.stop()
	log, err := os.ReadFile(m.logFile())
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{
		"errors-fine": false, "errors-wrong": true, "off-fine": false, "off-wrong": false, "all-fine": true, "all-wrong": true,
	} {
		if got := strings.Contains(string(log), " request_id="+id+" "); got != want {
			t.Errorf("a line of %s: %v, want %v", id, got, want)
		}
	}
}

// TestClosedLog: a mirror goes on, and stops in good order, when nobody reads its log any more.
func TestClosedLog(t *testing.T) {
	t.Parallel()
	m := newMirror(t, nil)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m.stderr = write
	m.launch()
	write.Close()
	m.awaitReady()
	read.Close()
	for n := range 3 { // writes to the closed pipe
		get(t, m.url+"/ping")
		m.until("the loss is counted", func() bool { return m.metric("imgmirror_http_log_lost_total") > float64(n) })
	}
	m.stop()
}

// TestStuckLog: a log that takes nothing delays no reply, and a second signal ends the process.
func TestStuckLog(t *testing.T) {
	t.Parallel()
	m := newMirror(t, settings{"log.level": "info"})
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	m.stderr = write
	m.launch()
	write.Close()
	m.awaitReady()
	agent := strings.Repeat("a", 4000)
	for range 100 { // the pipe has 64 KiB
		get(t, m.url+"/ping", "User-Agent", agent)
	}
	m.until("the log is stuck", func() bool {
		get(t, m.url+"/ping", "User-Agent", agent)
		return m.metric("imgmirror_http_log_lines") > 20
	})
	m.signal(syscall.SIGTERM)
	m.until("the client listener is closed", func() bool {
		_, err := tryGet(m.url + "/ping")
		return err != nil
	})
	m.untilEach(250*time.Millisecond, "a further signal ends the process", func() bool {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // fails when the process has ended
		return !m.running()
	})
	if code := m.awaitExit(20 * time.Second); code != 1 {
		t.Errorf("exit %d", code)
	}
}
