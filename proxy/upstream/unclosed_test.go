package upstream

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// wantClosed fails the test if at its end the body of an answer that c was given is not closed, or a file of the folder
// that c reads.
func wantClosed(t *testing.T, c *Client) {
	t.Helper()
	if c.dir != nil {
		t.Cleanup(func() { wantFilesClosed(t, c.dir.path) })
		return
	}
	b := &bodies{RoundTripper: c.http.Transport, open: make(map[*counted]string)}
	c.http.Transport = b
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, what := range b.open {
			t.Errorf("the body of an answer was not closed: %s", what)
		}
	})
}

// bodies is a transport that knows which of its answers' bodies are open.
type bodies struct {
	http.RoundTripper
	mu   sync.Mutex
	open map[*counted]string // which answer
}

func (b *bodies) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body := &counted{resp.Body, b}
	b.mu.Lock()
	b.open[body] = r.Method + " " + r.URL.String() + ": " + resp.Status
	b.mu.Unlock()
	resp.Body = body
	return resp, nil
}

// CloseIdleConnections is what http.Client calls of its transport.
func (b *bodies) CloseIdleConnections() {
	if t, ok := b.RoundTripper.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// transportOf is the transport that newClient has put a counter around.
func transportOf(c *Client) *http.Transport {
	return c.http.Transport.(*bodies).RoundTripper.(*http.Transport)
}

type counted struct {
	io.ReadCloser
	of *bodies
}

func (c *counted) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.ReadCloser.Close()
}

// wantFilesClosed fails the test if the process has something open at or below a folder.
func wantFilesClosed(t *testing.T, folder string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil { // no Linux
		return
	}
	for _, fd := range fds {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err == nil && (path == folder || strings.HasPrefix(path, folder+"/")) {
			t.Errorf("%s was not closed", path)
		}
	}
}
