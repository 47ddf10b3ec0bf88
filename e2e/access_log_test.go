package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

// TestClosedLogAtFailure: a mirror that fails without a reader of its log ends with its exit code, not by a signal that
// systemd takes for an end in good order.
func TestClosedLogAtFailure(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, set := range []settings{{"cache.max_size": "wrong"}, {"listen": ln.Addr().String()}} {
		m := newMirror(t, set)
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		read.Close()
		m.stderr = write
		m.launch()
		write.Close()
		if code := m.awaitExit(20 * time.Second); code != 1 {
			t.Errorf("%v: exit %d, %v", set, code, m.err)
		}
	}
}

// TestLogOfLibraries: what net/http tells is a line of the log like all others. Package log would write past the queue, and
// wait for a log that nothing reads.
func TestLogOfLibraries(t *testing.T) {
	t.Parallel()
	src := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"+
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	}))
	t.Cleanup(src.Close)
	m := startMirror(t, settings{"log.format": "json"}, from(src.URL))
	m.until("net/http tells of the source", func() bool { return strings.Contains(m.log(), "Unsolicited response") })
	m.stop()
	for line := range strings.Lines(m.log()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no line of the log: %s", line)
		}
	}
}

// stuckLog starts m with a log that takes nothing more than the pipe's own room.
func stuckLog(t *testing.T, m *mirror) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	m.stderr = write
	m.launch()
	write.Close()
	m.awaitReady()
}

// TestStuckLog: a log that takes nothing delays no reply and no stop. The replies with 5xx have lines of their own.
func TestStuckLog(t *testing.T) {
	t.Parallel()
	m := newMirror(t, settings{"log.level": "info"}, from("http://"+freeAddr(t))) // there is no source
	stuckLog(t, m)
	const clients, each = 8, 10_000 / 8
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
			for n := range each {
				resp, err := client.Get(fmt.Sprintf("%s/images/00000000-0000-4000-8000-%04d%08d", m.url, i, n))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("status %d", resp.StatusCode)
					return
				}
			}
		})
	}
	asking.Wait()
	if n := m.metric("imgmirror_http_log_lost_total"); n == 0 {
		t.Error("no line is lost: the log is not stuck")
	}
	start := time.Now()
	get(t, m.url+"/ping")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("/ping took %v", took)
	}
	m.signal(syscall.SIGTERM)
	if code := m.awaitExit(10 * time.Second); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestStuckLogAtTwoSignals: a second signal ends the process while the log takes nothing.
func TestStuckLogAtTwoSignals(t *testing.T) {
	t.Parallel()
	img := newImage("drains", 3_000_000)
	src := newSource(t, img)
	src.rate(100_000)
	m := newMirror(t, settings{"log.level": "info", "clients.drain_timeout": "60s"}, from(src.URL()))
	stuckLog(t, m)
	m.awaitList(1)
	resp, err := http.Get(m.url + "/images/" + img.uuid + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	agent := strings.Repeat("a", 4000)
	m.until("the log is stuck", func() bool {
		get(t, m.url+"/ping", "User-Agent", agent)
		return m.metric("imgmirror_http_log_lines") > 20
	})
	m.signal(syscall.SIGTERM)
	m.until("the client listener is closed", func() bool {
		_, err := tryGet(m.url + "/ping")
		return err != nil
	})
	start := time.Now()
	m.untilEach(250*time.Millisecond, "a further signal ends the process", func() bool {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // fails when the process has ended
		return !m.running()
	})
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("after the second signal the stop took %v", took)
	}
	if code := m.awaitExit(20 * time.Second); code != 1 {
		t.Errorf("exit %d", code)
	}
}
