package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"imgmirror/proxy/nodes"
)

// agents is a journal of User-Agents.
type agents struct {
	mu    sync.Mutex
	notes []nodes.Request
}

func (a *agents) Note(r nodes.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notes = append(a.notes, r)
}

// Requests that come together on one connection have each its own path, id and agent, in its line of the log and in
// the journal of nodes, whatever the next request brings into the same memory.
func TestPipelined(t *testing.T) {
	const clients, each = 4, 30
	var manifests []string
	for i := range 9 {
		manifests = append(manifests, image{uuid: id(i), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", 4000) + `"`}.v2())
	}
	f := newFixture(t, manifests...)
	journal := &agents{}
	f.options.Nodes = journal
	f.start()
	targets := []string{"/ping", "/images", "/images/" + id(1), "/images/" + id(2) + "?x=y", "/nothing/at/all", "/images?name=" + strings.Repeat("n", 50), "/images/" + id(7)}
	var asking sync.WaitGroup
	for c := range clients {
		conn := f.dial()
		asking.Go(func() {
			var b strings.Builder
			for n := range each {
				fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: m\r\nUser-Agent: agent-%d-%d-%s\r\nX-Request-Id: id-%d-%d\r\n\r\n",
					targets[(n+c)%len(targets)], c, n, strings.Repeat("a", n%7), c, n)
			}
			go func() { _, _ = io.WriteString(conn, b.String()) }() // the replies are read meanwhile
			br := bufio.NewReader(conn)
			for n := range each {
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
				if got, want := resp.Header.Get("X-Request-Id"), fmt.Sprintf("id-%d-%d", c, n); got != want {
					t.Errorf("the reply is to %s, want %s", got, want)
				}
			}
		})
	}
	asking.Wait()
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	agent := func(c, n int) string { return fmt.Sprintf("agent-%d-%d-%s", c, n, strings.Repeat("a", n%7)) }
	seen := make(map[string]bool)
	for line := range strings.Lines(f.log.buf.String()) {
		var l struct {
			Path      string
			RequestID string `json:"request_id"`
			UserAgent string `json:"user_agent"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		var c, n int
		if _, err := fmt.Sscanf(l.RequestID, "id-%d-%d", &c, &n); err != nil {
			continue
		}
		path, _, _ := strings.Cut(targets[(n+c)%len(targets)], "?")
		if l.Path != path || l.UserAgent != agent(c, n) || seen[l.RequestID] {
			t.Errorf("the line of %s is %s", l.RequestID, line)
		}
		seen[l.RequestID] = true
	}
	if len(seen) != clients*each {
		t.Errorf("%d lines", len(seen))
	}
	noted := make(map[string]nodes.Kind)
	for _, r := range journal.notes {
		noted[r.Agent] = r.Kind
	}
	for c := range clients {
		for n := range each {
			target := targets[(n+c)%len(targets)]
			want, known := nodes.Other, true
			switch {
			case strings.HasPrefix(target, "/images/"):
				want = nodes.Manifest
			case strings.HasPrefix(target, "/images"):
				want = nodes.List
			case target != "/ping":
				known = false
			}
			if kind, ok := noted[agent(c, n)]; ok != known || ok && kind != want {
				t.Errorf("%s of %s: noted as %v, %v", agent(c, n), target, kind, ok)
			}
		}
	}
}
