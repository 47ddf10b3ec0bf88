package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
)

// dialLoopback is the dialer of all tests: it refuses anything that is not this
// machine, so that no test can talk to the world by mistake.
func dialLoopback(ctx context.Context, network, address string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().IsLoopback() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("a test may not connect to %s", address)}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// newClient makes a Client for tests: loopback only, and quick to retry.
func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Name == "" {
		o.Name = "test"
	}
	if o.dial == nil {
		o.dial = dialLoopback
	}
	if o.retryInterval == 0 {
		o.retryInterval = time.Millisecond
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	wantClosed(t, c)
	return c
}

// newServer starts an image server for the test.
func newServer(t *testing.T, o upstreamtest.Options) *upstreamtest.Server {
	t.Helper()
	s, err := upstreamtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// serve starts a plain server for the test.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func add(t *testing.T, s *upstreamtest.Server, doc []byte, files ...[]byte) {
	t.Helper()
	if err := s.Add(doc, files...); err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, doc []byte) manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse(doc, manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ids are the uuids of images, in their order.
func ids(images []manifest.Manifest) []uuid.UUID {
	all := []uuid.UUID{}
	for _, m := range images {
		all = append(all, m.UUID)
	}
	return all
}

func TestDialLoopbackRefusesTheWorld(t *testing.T) {
	for _, address := range []string{"192.0.2.1:80", "images.example:80", "[2001:db8::1]:443"} {
		if conn, err := dialLoopback(t.Context(), "tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s was dialled", address)
		}
	}
}
