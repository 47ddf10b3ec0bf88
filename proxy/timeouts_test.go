package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener of connections in memory, for a test's own time.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error { return nil }

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Connections that nothing comes from end: imgadm's kept one after three minutes of rest, no sooner than two, and a
// request that does not arrive after half a minute.
func TestTimeouts(t *testing.T) {
	first := three(t).start()
	first.get("/ping") // fasthttp starts what lives as long as the process
	for _, test := range []struct {
		name, sent     string
		answers        int // before the rest
		soonest, after time.Duration
	}{
		{"at rest", "GET /ping HTTP/1.1\r\nHost: mirror\r\n\r\n", 1, 120 * time.Second, 200 * time.Second},
		{"half a request", "GET /ping HTTP/1.1\r\nHost: mir", 0, 10 * time.Second, 60 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := first.options
			o.Registerer = prometheus.NewRegistry()
			s, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			ln := make(pipes)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Serve(ctx, ln) }()
			here, there := net.Pipe()
			ln <- there
			if _, err := io.WriteString(here, test.sent); err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(here)
			for range test.answers {
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
			}
			began := time.Now()
			if err := here.SetReadDeadline(began.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, br) // a 408, perhaps
			if took := time.Since(began); took < test.soonest || took > test.after {
				t.Errorf("%s: closed after %s, want %s to %s", test.name, took, test.soonest, test.after)
			}
			here.Close()
			stop()
			close(ln)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
