package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

func TestNewRefusesBadOptions(t *testing.T) {
	good := newFixture(t).options
	f := func(change func(*Options)) {
		t.Helper()
		o := good
		o.Registerer = nil
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	f(func(o *Options) { o.Catalog = nil })
	f(func(o *Options) { o.Files = nil })
	f(func(o *Options) { o.OnUnreachable = "panic" })
	f(func(o *Options) { o.PublicURL = "mirror" })
	f(func(o *Options) { o.PublicURL = "ftp://mirror" })
	f(func(o *Options) { o.PublicURL = "http://mirror?x=y" })
}

func TestListen(t *testing.T) {
	s, err := New(newFixture(t).options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run without Listen")
	}
	if s.Addr() != nil {
		t.Error("an address before Listen")
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err == nil {
		t.Error("listened twice")
	}
	addr := s.Addr().String()
	other, err := New(newFixture(t).options)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Listen(addr); err == nil {
		t.Error("a port was opened twice")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Listen(addr); err != nil {
		t.Errorf("the port was not freed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := other.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := other.Run(ctx); err == nil {
		t.Error("served twice")
	}
}

func TestServeTellsWhatBrokeTheListener(t *testing.T) {
	f := newFixture(t)
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := s.Serve(t.Context(), brokenListener{broken}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type brokenListener struct{ err error }

func (l brokenListener) Accept() (net.Conn, error) { return nil, l.err }
func (l brokenListener) Close() error              { return nil }
func (l brokenListener) Addr() net.Addr            { return &net.TCPAddr{} }

func TestReadyz(t *testing.T) {
	f := newFixture(t)
	ready := make(chan struct{})
	f.options.Ready = func() bool {
		select {
		case <-ready:
			return true
		default:
			return false
		}
	}
	f.start()
	if r := f.get("/readyz"); r.status != 503 || r.body != "not ready\n" {
		t.Errorf("%d %q", r.status, r.body)
	}
	close(ready)
	if r := f.get("/readyz"); r.status != 200 || r.body != "ready\n" || r.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%d %q", r.status, r.body)
	}
	if !f.server.Ready() {
		t.Error("Ready() says no")
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if f.server.Ready() {
		t.Error("ready after the end")
	}
}

// A stop closes the port and idle connections at once.
func TestStopWithIdleConnections(t *testing.T) {
	f := newFixture(t)
	f.options.DrainTimeout = time.Hour
	f.start()
	used, br := f.dial(), (*bufio.Reader)(nil)
	br = bufio.NewReader(used)
	if r := f.exchange(used, br, "GET", "/ping"); r.status != 200 {
		t.Fatal(r.status)
	}
	fresh := f.dial() // has not said anything
	f.get("/ping")    // fresh has been accepted before this
	half := f.dial()
	if _, err := io.WriteString(half, "GET /ping HTTP/1.1\r\nHo"); err != nil {
		t.Fatal(err)
	}
	f.get("/ping")

	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{used, fresh} {
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read %d bytes, %v, want EOF", n, err)
		}
	}
	if r := f.read(bufio.NewReader(half), "GET"); r.status != 400 {
		t.Errorf("half a request: %d", r.status)
	}
	if _, err := net.Dial("tcp", f.addr); err == nil {
		t.Error("the port is open")
	}
}

// Replies under way at a stop are finished, and are their connection's last.
func TestStopFinishesReplies(t *testing.T) {
	f := newFixture(t)
	f.options.DrainTimeout = time.Hour
	asked, release := make(chan struct{}), make(chan struct{})
	f.options.Catalog = slowCatalog{f.options.Catalog, asked, release}
	f.start()

	c := f.dial()
	if _, err := io.WriteString(c, "GET /images/"+id(1)+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	waitFor(t, "the port to be closed", func() bool {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if f.server.Ready() {
		t.Error("ready while it drains")
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a reply under way: %v", err)
	default:
	}
	close(release)
	r := f.read(bufio.NewReader(c), "GET")
	if r.status != 404 || !r.last {
		t.Errorf("%d %v", r.status, r.header)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// What is not finished at the drain deadline is cut.
func TestStopCutsAtTheDeadline(t *testing.T) {
	f := newFixture(t)
	f.options.DrainTimeout = time.Millisecond
	asked := make(chan struct{})
	f.options.Catalog = slowCatalog{f.options.Catalog, asked, nil}
	f.start()
	c := f.dial()
	if _, err := io.WriteString(c, "GET /images/"+id(1)+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
}

// Nothing holds up a stop beyond the drain deadline: no client that takes nothing of its file, or goes on asking, and no
// file that does not come, before its first byte or in its middle.
func TestStopEnds(t *testing.T) {
	content := noise(16 << 20)
	file := "GET " + filePath + " HTTP/1.1\r\nHost: m\r\n\r\n"
	for _, test := range []struct {
		name string
		pass int // bytes of the file that come
		do   func(f *fixture, c net.Conn)
	}{
		{"takes nothing", len(content), func(f *fixture, c net.Conn) {
			_, _ = io.WriteString(c, file)
			_, _ = io.ReadFull(c, make([]byte, 1))
		}},
		{"several take nothing", len(content), func(f *fixture, c net.Conn) { // the sender's loops have some
			for _, c := range []net.Conn{c, f.dial(), f.dial()} {
				_, _ = io.WriteString(c, file)
				_, _ = io.ReadFull(c, make([]byte, 1))
			}
		}},
		{"goes on asking", 0, func(f *fixture, c net.Conn) {
			go func() {
				for {
					if _, err := io.WriteString(c, strings.Repeat("GET /ping HTTP/1.1\r\nHost: m\r\n\r\n", 100)); err != nil {
						return
					}
				}
			}()
			go io.Copy(io.Discard, c) //nolint:errcheck // until it is closed
		}},
		{"asks and takes nothing", 0, func(f *fixture, c net.Conn) {
			go io.WriteString(c, strings.Repeat("GET /images HTTP/1.1\r\nHost: m\r\n\r\n", 100_000)) //nolint:errcheck // until it is closed
			_, _ = io.ReadFull(c, make([]byte, 1))
		}},
		{"waits for the first byte", 0, func(f *fixture, c net.Conn) {
			_, _ = io.WriteString(c, file)
			_, _ = io.ReadFull(c, make([]byte, 1)) // the header is there at once
		}},
		{"waits in the middle", 1 << 20, func(f *fixture, c net.Conn) {
			_, _ = io.WriteString(c, file)
			_, _ = io.ReadFull(c, make([]byte, 100_000))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, g := withStore(t, content, "")
			if test.pass > 0 {
				g.pass(test.pass)
			}
			f.options.DrainTimeout = 500 * time.Millisecond // sockets are full by then
			f.start()
			test.do(f, f.dial())
			stopped := make(chan error, 1)
			go func() { stopped <- f.stop() }()
			select {
			case err := <-stopped:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(15 * time.Second):
				t.Error("the stop does not end")
			}
		})
	}
}

// slowCatalog says when Get is called and waits for release, or for ctx.
type slowCatalog struct {
	Catalog
	asked, release chan struct{}
}

func (c slowCatalog) Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
	close(c.asked)
	select {
	case <-c.release:
	case <-ctx.Done():
	}
	return c.Catalog.Get(ctx, id)
}

// waitFor polls what has no event to wait for.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Pipelined requests are answered in their order, whatever they are.
func TestPipelining(t *testing.T) {
	f := three(t).start()
	c := f.dial()
	var b strings.Builder
	targets := []string{"/ping", "/images", "/nothing", "/images/" + id(1), "/datasets", "/images?limit=x"}
	for i := range 30 {
		fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: m\r\nX-Request-Id: r%d\r\n\r\n", targets[i%len(targets)], i)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	wants := []int{200, 200, 404, 200, 200, 422}
	for i := range 30 {
		r := f.common(f.read(br, "GET"))
		if r.status != wants[i%len(wants)] || r.header.Get("X-Request-Id") != fmt.Sprintf("r%d", i) {
			t.Fatalf("%d: %d %v", i, r.status, r.header)
		}
	}
}

// What is no HTTP gets a 400 with a JSON body, and the connection is closed.
func TestMalformed(t *testing.T) {
	f := three(t).start()
	for _, text := range []string{
		"nonsense\r\n\r\n",
		"GET\r\n\r\n",
		"GET /ping\r\n\r\n",
		"GET /ping HTTP/1.1\r\nHost m\r\n\r\n",
		"GET /ping HTTP/1.1\r\n: m\r\n\r\n",
		"GET /pi ng HTTP/1.1\r\nHost: m\r\n\r\n",
		"GET ping HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n",
		"GET http://[::1/ping HTTP/1.1\r\nHost: m\r\n\r\n",
		"GET /images/%zz HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n",
		"GET /" + strings.Repeat("a", 10000) + " HTTP/1.1\r\nHost: m\r\n\r\n",
		"GET /ping HTTP/1.1\r\nHost: m\r\nX: " + strings.Repeat("a", 10000) + "\r\n\r\n",
		"GET /ping HTTP/1.1\r\nHost: m\r\nX: a\x00b\r\n\r\n",
		"POST /ping HTTP/1.1\r\nHost: m\r\nContent-Length: x\r\n\r\n",
		"POST /ping HTTP/1.1\r\nHost: m\r\nContent-Length: -1\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", // TLS to a plain port
	} {
		name := text[:min(len(text), 60)]
		c := f.dial()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		r := f.common(f.read(br, "GET"))
		if code, _, _ := r.errorBody(t); r.status != 400 || code != "BadRequestError" || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %s", name, r.status, r.body)
		}
		if rest, _ := io.ReadAll(br); len(rest) > 0 {
			t.Errorf("%q: then came %q", name, rest)
		}
		c.Close()
	}
	if r := f.get("/ping"); r.status != 200 {
		t.Error("the server is hurt")
	}
}

// A body that nobody asked for is not taken for the next request.
func TestRequestsWithBodies(t *testing.T) {
	f := three(t).start()
	const next = "GET /ping HTTP/1.1\r\nHost: m\r\n\r\n"
	smuggled := "DELETE /images HTTP/1.1\r\nHost: m\r\n\r\n"
	for _, text := range []string{
		fmt.Sprintf("GET /images HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s", len(smuggled), smuggled),
		fmt.Sprintf("GET /images HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled),
		fmt.Sprintf("PUT /images/%s/file HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s", id(1), len(smuggled), smuggled),
	} {
		c := f.dial()
		if _, err := io.WriteString(c, text+next); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		r := f.read(br, "GET")
		if r.status != 200 && r.status != 405 && r.status != 400 {
			t.Errorf("%q: %d", text[:20], r.status)
		}
		// Either the connection ends here or what comes next is the ping.
		resp, err := http.ReadResponse(br, &http.Request{Method: "GET"})
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(body), "pong") {
			t.Errorf("%q: the body was taken for a request: %d %s", text[:20], resp.StatusCode, body)
		}
	}
}

// A big upload is refused by its header, not after it has been taken in.
func TestUploadIsRefusedEarly(t *testing.T) {
	f := three(t).start()
	c := f.dial()
	if _, err := io.WriteString(c, "PUT /images/"+id(1)+"/file HTTP/1.1\r\nHost: m\r\nContent-Length: 10000000000\r\n\r\nbegin"); err != nil {
		t.Fatal(err)
	}
	r := f.read(bufio.NewReader(c), "PUT")
	if code, _, _ := r.errorBody(t); r.status != 405 || code != "MethodNotAllowedError" || !r.last {
		t.Errorf("%d %s %v", r.status, r.body, r.header)
	}
}

func TestHTTP10(t *testing.T) {
	f := three(t).start()
	c := f.dial()
	if _, err := io.WriteString(c, "GET /datasets/"+id(1)+" HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); !strings.Contains(s, " 200 ") || !strings.Contains(s, "http://"+f.addr+"/datasets/") {
		t.Errorf("%s", s)
	}
}

func TestRequestIDIsGivenBack(t *testing.T) {
	f := three(t).start()
	for _, path := range []string{"/ping", "/nothing", "/images/" + id(1)} {
		if r := f.get(path, "x-request-id: 0a1b2c"); r.header.Get("X-Request-Id") != "0a1b2c" {
			t.Errorf("%s: %q", path, r.header.Get("X-Request-Id"))
		}
		if r := f.get(path, "x-request-id: two words"); r.header.Get("X-Request-Id") == "two words" {
			t.Errorf("%s: an insane id came back", path)
		}
	}
}

// A handler that panics costs its request, not the process.
func TestPanic(t *testing.T) {
	f := three(t)
	f.options.Catalog = panickingCatalog{f.options.Catalog}
	f.start()
	c := f.dial()
	br := bufio.NewReader(c)
	r := f.common(f.exchange(c, br, "GET", "/images/"+id(1)+"?account="))
	if code, message, _ := r.errorBody(t); r.status != 500 || code != "InternalError" || message != "internal error" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := f.exchange(c, br, "GET", "/ping"); r.status != 200 {
		t.Errorf("the next request: %d", r.status)
	}
	if lines := f.log.lines(t, "panic"); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["stack"]), "panickingCatalog") {
		t.Errorf("log: %v", lines)
	}
}

type panickingCatalog struct{ Catalog }

func (panickingCatalog) Get(context.Context, uuid.UUID) (catalog.Entry, error) { panic("ouch") }

// A client that does not take even a small reply is cut.
func TestStalledClientOfASmallReply(t *testing.T) {
	f := newFixture(t)
	f.options.ClientStall = 20 * time.Millisecond
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe() // has no buffer: nothing is taken until it is read
	f.serve(s, &oneListener{conn: server, closed: make(chan struct{})})
	if _, err := io.WriteString(client, "GET /ping HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection to be closed", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
}

// oneListener gives one connection.
type oneListener struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}
func (l *oneListener) Close() error   { close(l.closed); return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// A connection that says nothing gets no reply either.
func TestSilentConnection(t *testing.T) {
	f := newFixture(t).start()
	c := f.dial()
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
}

func TestAccessLogAndMetrics(t *testing.T) {
	f := three(t).start()
	f.get("/images/"+id(1)+"?x=1", "User-Agent: imgadm/3.9.5", "x-request-id: abc")
	f.get("/nothing")
	f.get("/images?limit=x")
	lines := f.log.requests(t, 3)
	if len(lines) != 3 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	got := lines[0]
	for _, key := range []string{"time", "duration", "remote", "bytes"} {
		if got[key] == nil {
			t.Errorf("no %s", key)
		}
		delete(got, key)
	}
	want := map[string]any{
		"level": "INFO", "msg": "request", "component": "proxy", "method": "GET", "path": "/images/" + id(1),
		"status": 200.0, "request_id": "abc", "user_agent": "imgadm/3.9.5",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	counted := func(route *route, code int, want float64) {
		t.Helper()
		if got := testutil.ToFloat64(f.server.metrics.routes[route].codes[code]); got != want {
			t.Errorf("%s %d: %v, want %v", route.name, code, got, want)
		}
	}
	counted(routeImage, 200, 1)
	counted(routeNone, 404, 1)
	counted(routeImages, 422, 1)
	counted(routeImages, 200, 0)
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		name := family.GetName()
		if !strings.HasPrefix(name, "imgmirror_http_") {
			t.Errorf("%s", name)
		}
		if name == "imgmirror_http_requests_total" && len(family.Metric) != len(allRoutes)*(len(statuses)+1) {
			t.Errorf("%d series of %s: not all of them are there from the start", len(family.Metric), name)
		}
		for _, m := range family.Metric {
			for _, label := range m.Label {
				if _, ok := manifest.ParseUUID(label.GetValue()); ok {
					t.Errorf("%s has a uuid for a label", name)
				}
			}
		}
	}
}

func TestTLS(t *testing.T) {
	f := three(t)
	cert := selfSigned(t)
	f.options.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	f.options.DrainTimeout = time.Hour
	f.start()
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	c, err := tls.Dial("tcp", f.addr, &tls.Config{RootCAs: roots, ServerName: "mirror"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := f.common(f.exchange(c, bufio.NewReader(c), "GET", "/datasets/"+id(1)))
	if r.status != 200 || !strings.Contains(r.body, "https://mirror:8080/datasets/") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if err := f.stop(); err != nil { // with an idle connection
		t.Error(err)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"mirror"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
