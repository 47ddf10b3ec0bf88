package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// fakePage is a page with fixed replies.
type fakePage struct {
	closed  atomic.Bool
	size    int
	release chan struct{} // holds up replies, unless nil
	begun   chan struct{} // told of each reply that has begun
	events  chan [][]byte // one for each stream
	ended   chan struct{} // told of each stream that has ended, unless nil

	mu      sync.Mutex
	streams int
	most    int
	asked   []string
}

func (p *fakePage) Open() bool { return !p.closed.Load() }

func (p *fakePage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host+" "+r.URL.String())
	p.mu.Unlock()
	if p.begun != nil {
		p.begun <- struct{}{}
	}
	if p.release != nil {
		select {
		case <-p.release:
		case <-r.Context().Done():
			return
		}
	}
	body := strings.Repeat("x", p.size)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "the page's")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.URL.Path == "/ui/none" {
		w.WriteHeader(http.StatusNotFound)
	}
	if r.Method != http.MethodHead {
		io.WriteString(w, body) //nolint:errcheck // in memory
	}
}

func (p *fakePage) Follow(want string, _ netip.Addr) (func(context.Context) ([][]byte, error), func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams >= p.most {
		return nil, nil, errors.New("too many event streams are open")
	}
	p.streams++
	events := p.events
	next := func(ctx context.Context) ([][]byte, error) {
		select {
		case e, ok := <-events:
			events = nil // the next one is for another stream
			if !ok {
				return nil, io.EOF
			}
			return e, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return next, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.streams--
		if p.ended != nil {
			p.ended <- struct{}{}
		}
	}, nil
}

// open is the number of open streams.
func (p *fakePage) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.streams
}

// startWith starts the fixture's server with a page.
func (f *fixture) startWith(p Page) *fixture {
	f.Helper()
	s, err := New(f.options)
	if err != nil {
		f.Fatal(err)
	}
	s.Mount(p)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		f.Fatal(err)
	}
	f.serve(s, *s.listener.Load())
	return f
}

const browserAccept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// A browser at / is led to the page; all other clients get the static list, byte for byte as without a page.
func TestRootByAccept(t *testing.T) {
	manifests := []string{image{uuid: id(1), content: []byte("a")}.v2(), image{uuid: id(2), content: []byte("b")}.v2()}
	plain := newFixture(t, manifests...).start()
	want := plain.get("/")
	p := &fakePage{}
	f := newFixture(t, manifests...).startWith(p)
	for _, accept := range []string{"", "Accept: */*", "Accept: application/json", "Accept: text/html;q=0", "Accept: text/*", "Accept: application/xhtml+xml"} {
		var headers []string
		if accept != "" {
			headers = append(headers, accept)
		}
		got := f.get("/", headers...)
		if got.status != 200 || got.body != want.body || got.header.Get("Etag") != want.header.Get("Etag") || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %v %q", accept, got.status, got.header, got.body)
		}
		if got.header.Get("Vary") != "Accept" {
			t.Errorf("%q: Vary %q", accept, got.header.Get("Vary"))
		}
	}
	for _, accept := range []string{browserAccept, "Accept: TEXT/HTML", "accept: application/json;q=0.1, text/html ; q=0.5"} {
		r := f.send("GET", "/", accept)
		if r.status != 302 || r.header.Get("Location") != "/ui/" || r.header.Get("Vary") != "Accept" {
			t.Errorf("%q: %d %v", accept, r.status, r.header)
		}
	}
	for _, path := range []string{"/images", "/datasets", "/ping"} {
		if r, want := f.get(path, browserAccept), plain.get(path, browserAccept); r.status != want.status || r.body != want.body || r.header.Get("Vary") != want.header.Get("Vary") {
			t.Errorf("%s: %d %v", path, r.status, r.header)
		}
	}
	p.closed.Store(true)
	if r := f.get("/", browserAccept); r.status != 200 || r.body != want.body || r.header.Get("Vary") != "" {
		t.Errorf("without the page: %d %v", r.status, r.header)
	}
	f.wantError("GET", "/ui/", 404, "ResourceNotFound", "/ui/ does not exist")
	plain.wantError("POST", "/ui/jobs", 404, "ResourceNotFound", "")
}

func TestPageReplies(t *testing.T) {
	for _, size := range []int{10, smallBody, smallBody + 1, 3 * step} {
		p := &fakePage{size: size}
		f := newFixture(t).startWith(p)
		for _, path := range []string{"/ui/", "/ui/images?q=a%20b", "/ui/jobs/x"} {
			r := f.get(path)
			if r.status != 200 || len(r.body) != size || r.header.Get("Content-Type") != "text/html; charset=utf-8" || r.header.Get("Content-Security-Policy") != "the page's" {
				t.Errorf("%s of %d: %d %v, %d bytes", path, size, r.status, r.header, len(r.body))
			}
			r = f.send("HEAD", path)
			if r.status != 200 || r.header.Get("Content-Length") != fmt.Sprint(size) || r.body != "" {
				t.Errorf("HEAD %s of %d: %d %v", path, size, r.status, r.header)
			}
		}
		if r := f.get("/ui/none"); r.status != 404 || len(r.body) != size {
			t.Errorf("none: %d", r.status)
		}
		if r := f.send("GET", "/ui"); r.status != 302 || r.header.Get("Location") != "/ui/" {
			t.Errorf("/ui: %d %v", r.status, r.header)
		}
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			r := f.wantError(method, "/ui/sources", 405, "MethodNotAllowedError", "")
			if r.header.Get("Allow") != "GET, HEAD" || r.header.Get("Content-Security-Policy") == "" {
				t.Errorf("%s: %v", method, r.header)
			}
		}
		if got := p.asked[2]; got != "GET mirror:8080 /ui/images?q=a%20b" {
			t.Errorf("the page was asked %q", got)
		}
		waitFor(t, "the memory of replies to be given back", func() bool { // after the client has read all
			return testutil.ToFloat64(f.server.metrics.bodies) == 0
		})
		if got := testutil.ToFloat64(f.server.metrics.routes[routeUI].codes[405]); got != 3 {
			t.Errorf("route ui: %v", got)
		}
	}
}

// Few replies are made at the same time, and half of the processors are left for other clients; the others
// wait.
func TestPageRendersAreBounded(t *testing.T) {
	processors := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(processors)
	p := &fakePage{size: 10, release: make(chan struct{}), begun: make(chan struct{}, 100)}
	f := newFixture(t).startWith(p)
	var asking sync.WaitGroup
	for range 3 * maxRenders {
		asking.Go(func() {
			if r := f.get("/ui/"); r.status != 200 {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	for range 2 {
		<-p.begun
	}
	if r := f.get("/ping"); r.status != 200 {
		t.Error("the page holds up other clients")
	}
	select {
	case <-p.begun:
		t.Error("too many replies are made at the same time")
	default:
	}
	close(p.release)
	asking.Wait()

	f = newFixture(t)
	f.options.Memory = pageMemory - 1
	f.startWith(&fakePage{size: 10})
	if r := f.wantError("GET", "/ui/", 503, "ServiceUnavailableError", ""); r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// stream opens an event stream and reads its begin.
func (f *fixture) stream() (*bufio.Reader, net.Conn) {
	f.Helper()
	c := f.dial()
	if _, err := io.WriteString(c, "GET /ui/live?want=fills HTTP/1.1\r\nHost: mirror\r\n\r\n"); err != nil {
		f.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		f.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		f.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	br := bufio.NewReader(resp.Body)
	if line, err := br.ReadString('\n'); line != ": begin\n" {
		f.Fatalf("%q, %v", line, err)
	}
	br.ReadString('\n') //nolint:errcheck // the empty line
	return br, c
}

func TestPageStream(t *testing.T) {
	p := &fakePage{most: 2, events: make(chan [][]byte), ended: make(chan struct{}, 2)}
	f := newFixture(t).startWith(p)
	if r := f.send("HEAD", "/ui/live"); r.status != 200 || r.header.Get("Content-Type") != "text/event-stream" || p.open() != 0 {
		t.Errorf("HEAD: %d %v", r.status, r.header)
	}
	first, c := f.stream()
	second, other := f.stream()
	f.wantError("GET", "/ui/live?want=fills", 503, "ServiceUnavailableError", "too many event streams are open")
	shared := [][]byte{[]byte("data: " + strings.Repeat("y", 100_000) + "\n\n"), []byte("data: z\n\n")}
	p.events <- shared
	p.events <- shared
	for _, r := range []*bufio.Reader{first, second} {
		n := 0
		for line := ""; line != "data: z\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			n += len(line)
		}
		if n < 100_000 {
			t.Errorf("%d bytes", n)
		}
	}
	if len(shared[0]) < 100_000 {
		t.Error("shared bytes were changed")
	}
	// A client that hangs up frees its place, also while there is nothing to send.
	c.Close()
	other.Close()
	for range 2 {
		<-p.ended
	}
	f.server.memory.mu.Lock()
	defer f.server.memory.mu.Unlock()
	if f.server.memory.bodies != 0 {
		t.Errorf("%d bytes are held", f.server.memory.bodies)
	}
}

// A stop ends event streams at once, whatever the drain deadline.
func TestPageStreamEndsWithDrain(t *testing.T) {
	p := &fakePage{most: 5, events: make(chan [][]byte)}
	f := newFixture(t)
	f.options.DrainTimeout = time.Hour
	f.startWith(p)
	br, _ := f.stream()
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(br)
		ended <- err
	}()
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if p.open() != 0 {
		t.Error("the stream is open")
	}
}
