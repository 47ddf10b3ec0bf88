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
