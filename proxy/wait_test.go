package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/mirror"
)

// stuckFiles is a queue of fills without an end.
type stuckFiles struct{ asked chan struct{} }

func (s stuckFiles) File(ctx context.Context, _ cache.Blob, _ []cache.Source) (*cache.Reader, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s stuckFiles) Peek(cache.Blob) (cache.Info, bool) { return cache.Info{}, false }

// stuckCatalog is a catalogue whose sources answer nothing.
type stuckCatalog struct {
	Catalog
	asked chan struct{}
}

func (s stuckCatalog) Known(ctx context.Context) (*catalog.List, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s stuckCatalog) Get(ctx context.Context, _ uuid.UUID) (catalog.Entry, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return catalog.Entry{}, ctx.Err()
}

// Clients that hang up while they wait are let go, whatever they wait for and however they leave.
func TestClientsThatHangUpAreLetGo(t *testing.T) {
	icon := image{uuid: id(1), content: noise(1000), extra: `,"icon":true`}.v2()
	for _, test := range []struct {
		name, target string
		set          func(f *fixture, asked chan struct{})
	}{
		{"for a place", filePath, func(f *fixture, asked chan struct{}) {
			f.options.Files = mirror.Files{Store: stuckFiles{asked}}
		}},
		{"for an icon", "/images/" + id(1) + "/icon", func(f *fixture, asked chan struct{}) {
			f.options.Files = mirror.Files{Store: stuckFiles{asked}}
		}},
		{"for a mirror", filePath, func(f *fixture, asked chan struct{}) {
			f.options.ID, f.options.Files = "me", mirror.Files{Store: stuckFiles{asked}}
		}},
		{"for a lookup", "/images/" + id(2), func(f *fixture, asked chan struct{}) {
			f.options.Catalog = stuckCatalog{f.options.Catalog, asked}
		}},
		{"for the first lists", "/images", func(f *fixture, asked chan struct{}) {
			f.options.Catalog = stuckCatalog{f.options.Catalog, asked}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, icon)
			asked := make(chan struct{})
			test.set(f, asked)
			f.start()
			request := "GET " + test.target + " HTTP/1.1\r\nHost: m\r\nVia: 1.1 other.imgmirror\r\n\r\n"
			leave := []func(c *net.TCPConn){
				func(c *net.TCPConn) { c.Close() },
				func(c *net.TCPConn) { c.SetLinger(0); c.Close() },                    // a reset
				func(c *net.TCPConn) { io.WriteString(c, request); c.Close() },        // a pipelined request is unread
				func(c *net.TCPConn) { io.WriteString(c, "GET /pi"); c.CloseWrite() }, // may still read
			}
			for _, leaves := range leave {
				c := f.dial().(*net.TCPConn)
				if _, err := io.WriteString(c, request); err != nil {
					t.Fatal(err)
				}
				<-asked
				leaves(c)
			}
			m := f.server.metrics
			waitFor(t, "all clients to be let go", func() bool { return testutil.ToFloat64(m.connections) == 0 })
			if left, waiting := testutil.ToFloat64(m.left), testutil.ToFloat64(m.waiting); left != float64(len(leave)) || waiting != 0 {
				t.Errorf("%v have left, %v wait", left, waiting)
			}
			for _, line := range f.log.requests(t, len(leave)) {
				if line["status"] != 499.0 {
					t.Errorf("log: %v", line)
				}
			}
			if lines := f.log.lines(t, "request failed"); len(lines) > 0 {
				t.Errorf("log: %v", lines)
			}
		})
	}
}

// The same for clients that wait for a whole file, and through TLS.
func TestClientsLeaveAWholeFile(t *testing.T) {
	f, g := withStore(t, noise(300_000), "")
	cert := selfSigned(t)
	f.options.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	f.options.StreamOnMiss = false
	f.start()
	g.pass(100_000)
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	m := f.server.metrics
	for range 2 {
		c, err := tls.Dial("tcp", f.addr, &tls.Config{RootCAs: roots, ServerName: "mirror"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the client to wait", func() bool { return testutil.ToFloat64(m.waiting) == 1 })
		c.Close()
		waitFor(t, "the client to be let go", func() bool { return testutil.ToFloat64(m.connections) == 0 })
	}
	if left := testutil.ToFloat64(m.left); left != 2 {
		t.Errorf("%v have left", left)
	}
}

// A client that ends its sending side after the request gets a reply that can be given at once, and
// is taken for a client that has hung up if the reply does not come soon.
func TestClientsThatSendNoMore(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	f.start()
	ask := func(target string) (*http.Response, error) {
		t.Helper()
		c := f.dial().(*net.TCPConn)
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", target); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return http.ReadResponse(bufio.NewReader(c), nil)
	}
	body := func(target string) int {
		t.Helper()
		resp, err := ask(target)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v", target, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return len(b)
	}
	if n := body("/ping"); n == 0 {
		t.Error("no pong")
	}
	g.pass(100_000)
	began := time.Now()
	resp, err := ask(filePath)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n == 300_000 {
		t.Errorf("%d bytes of a fill that stands, %v", n, err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("cut after %s", took)
	}
	g.pass(len(content))
	waitFor(t, "the file to be published", func() bool { return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT" })
	if n := body(filePath); n != len(content) {
		t.Errorf("a hit: %d bytes", n)
	}
}

// A client that stays is served, however long its wait and although it has sent the next request.
func TestClientsThatStayAreServed(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	f.options.StreamOnMiss = false
	f.start()
	c := f.dial()
	for range 2 {
		if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	m := f.server.metrics
	waitFor(t, "the client to wait", func() bool { return testutil.ToFloat64(m.waiting) == 1 })
	for range 10 { // more than one look at the client
		f.server.watch.look()
	}
	g.pass(len(content))
	br := bufio.NewReader(c)
	for range 2 {
		if r := f.read(br, "GET"); r.status != 200 || r.body != string(content) {
			t.Errorf("%d, %d bytes, %v", r.status, len(r.body), r.err)
		}
	}
	if left, waiting := testutil.ToFloat64(m.left), testutil.ToFloat64(m.waiting); left != 0 || waiting != 0 {
		t.Errorf("%v have left, %v wait", left, waiting)
	}
}

// A reply that waits for its source goes on when the mirror has shut the reading side of the connection: at a
// stop, and when the client was told to leave while its request came. A client that hangs up is let go.
func TestWaitsOfShutConnections(t *testing.T) {
	content := noise(300_000)
	for name, shut := range map[string]func(f *fixture){
		"stop": func(f *fixture) {
			go f.stop() //nolint:errcheck // the test's end tells
			waitFor(t, "the stop", f.server.conns.draining.Load)
		},
		"told to leave": func(f *fixture) {
			for _, cl := range f.server.conns.open.Range {
				cl.(*client).shutReading()
			}
		},
	} {
		for _, leaves := range []bool{false, true} {
			if leaves && runtime.GOOS != "linux" { // no other kernel tells
				continue
			}
			t.Run(fmt.Sprintf("%s, client leaves %t", name, leaves), func(t *testing.T) {
				f, g := withStore(t, content, "")
				f.start()
				g.pass(100_000)
				c := f.dial()
				if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				m := f.server.metrics
				waitFor(t, "the client to wait", func() bool { return testutil.ToFloat64(m.waiting) == 1 })
				shut(f)
				if leaves {
					if err := c.(*net.TCPConn).CloseWrite(); err != nil {
						t.Fatal(err)
					}
					waitFor(t, "the client to be let go", func() bool { return testutil.ToFloat64(m.connections) == 0 })
					return
				}
				time.AfterFunc(silentGrace+3*watchEvery, func() { g.pass(len(content)) }) // what the watch must not do takes so long
				br := bufio.NewReader(c)
				if r := f.read(br, "GET"); r.status != 200 || r.body != string(content) {
					t.Errorf("%d, %d bytes, %v", r.status, len(r.body), r.err)
				}
				if _, err := br.ReadByte(); err != io.EOF {
					t.Errorf("after the reply: %v, want the end of the connection", err)
				}
			})
		}
	}
}

// A stop waits for no body that nothing reads.
func TestStopDoesNotWaitForBodies(t *testing.T) {
	for _, request := range []string{"GET /ping", "POST /images?action=import"} {
		f := newFixture(t)
		f.options.DrainTimeout = time.Hour
		f.start()
		c := f.dial()
		if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: m\r\nContent-Length: 1000\r\n\r\n.", request); err != nil {
			t.Fatal(err)
		}
		if r := f.read(bufio.NewReader(c), "GET"); r.err != nil {
			t.Fatal(r.err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- f.stop() }()
		select {
		case err := <-stopped:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(readTimeout / 2):
			t.Errorf("%s: the stop waits", request)
		}
	}
}

// A wait is a context like those of package context, and nothing watches it before Done.
func TestWaitIsAContext(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var ws watch
		ws.init(nil, newMetrics(nil))
		parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "v"))
		fresh := func(limit time.Duration) *wait {
			return &wait{Context: parent, watch: &ws, deadline: time.Now().Add(limit)}
		}
		w := fresh(time.Minute)
		if at, ok := w.Deadline(); w.Err() != nil || w.Value(key{}) != "v" || !ok || at != time.Now().Add(time.Minute) || w.begun.Load() != nil {
			t.Error("a wait before Done")
		}
		if w.end() {
			t.Error("a client that was not watched has left")
		}
		<-w.Done() // after the end
		if w.Err() == nil {
			t.Error("ended without an error")
		}

		w = fresh(time.Minute)
		child, stop := context.WithCancel(w)
		defer stop()
		began := time.Now()
		<-child.Done()
		if took := time.Since(began); took != time.Minute || !errors.Is(w.Err(), context.DeadlineExceeded) {
			t.Errorf("after %s: %v", took, w.Err())
		}
		w.end()

		w = fresh(time.Hour)
		child, stop = context.WithTimeout(w, time.Hour)
		defer stop()
		w.begin().cancel(errGone)
		<-child.Done()
		if !errors.Is(context.Cause(child), errGone) || !w.end() {
			t.Error("the child of a wait knows no cause")
		}

		w = fresh(time.Hour)
		cancel(errCircle)
		if !errors.Is(context.Cause(w), errCircle) || w.Err() == nil {
			t.Error("the parent's end before Done")
		}
		<-w.Done()
		if !errors.Is(context.Cause(w), errCircle) || w.end() {
			t.Error("the parent's end")
		}
	})
}
