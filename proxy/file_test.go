package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

// gate is the file of a fake source: it gives content up to where it has been
// opened, and counts who asks.
type gate struct {
	content []byte
	asked   atomic.Int32

	mu     sync.Mutex
	open   int // bytes that may pass
	opened chan struct{}
	md5    []byte // claimed
}

func newGate(content []byte) *gate {
	return &gate{content: content, opened: make(chan struct{})}
}

// pass lets bytes pass up to offset n.
func (g *gate) pass(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = n
	close(g.opened)
	g.opened = make(chan struct{})
}

// file is fakeSource.file.
func (g *gate) file(ctx context.Context, _ manifest.Manifest, _ int, offset int64) (*verify.Stream, error) {
	g.asked.Add(1)
	return &verify.Stream{
		ReadCloser: &gateReader{g: g, ctx: ctx, at: int(offset)},
		Size:       int64(len(g.content)),
		MD5:        g.md5,
		ModTime:    time.Date(2015, 1, 2, 3, 4, 5, 0, time.UTC),
	}, nil
}

type gateReader struct {
	g   *gate
	ctx context.Context
	at  int
}

func (r *gateReader) Read(p []byte) (int, error) {
	for {
		r.g.mu.Lock()
		open, opened := r.g.open, r.g.opened
		r.g.mu.Unlock()
		if r.at < open {
			n := copy(p, r.g.content[r.at:open])
			r.at += n
			return n, nil
		}
		if open >= len(r.g.content) {
			return 0, io.EOF
		}
		select {
		case <-opened:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *gateReader) Close() error { return nil }

// noise is content that does not repeat itself.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// withStore is a fixture with one image and a real store behind it. What the
// source sends, and how, is g's to say.
func withStore(t *testing.T, content []byte, extra string) (*fixture, *gate) {
	t.Helper()
	f := newFixture(t, image{uuid: id(1), content: content, extra: extra}.v2())
	g := newGate(content)
	f.source.file = g.file
	store, err := cache.Open(t.Context(), cache.Options{Dir: t.TempDir(), StallTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f.stop != nil {
			f.stop()
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	f.options.Files = mirror.Files{Store: store}
	return f, g
}

var filePath = "/images/" + id(1) + "/file"

func TestFileMissThenHit(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	f.start()
	for i, want := range []string{"MISS", "HIT", "HIT"} {
		r := f.get(filePath)
		if r.status != 200 || r.body != string(content) {
			t.Fatalf("%d: %d, %d bytes", i, r.status, len(r.body))
		}
		h := r.header
		if h.Get("X-Cache") != want || h.Get("Content-Type") != "application/octet-stream" || h.Get("Content-Length") != "300000" ||
			h.Get("Etag") != `"`+sha1Hex(content)+`"` || h.Get("Last-Modified") != "Fri, 02 Jan 2015 03:04:05 GMT" || h.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%d: %v", i, h)
		}
		// What md5 a file has is known once it has been here.
		if md5 := h.Get("Content-MD5"); md5 != md5Base64(content) && (i > 0 || md5 != "") {
			t.Errorf("%d: Content-MD5 %q", i, md5)
		}
		// That the body is out does not mean that the fill has put the file away.
		waitFor(t, "the file to be published", func() bool {
			return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT"
		})
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
	f.stop() //nolint:errcheck // all replies are in the log by then
	lines := f.log.lines(t, "request")
	// The lines of the HEAD requests may come before that of the GET whose body they follow.
	first := lines[slices.IndexFunc(lines, func(l map[string]any) bool { return l["method"] == "GET" })]
	if first["cache"] != "MISS" || first["bytes"] != 300000.0 || first["error"] != nil {
		t.Errorf("log: %v", first)
	}
}

// The md5 that the source claims is handed on with a file that is still coming.
func TestFileMissWithClaimedMD5(t *testing.T) {
	content := noise(100_000)
	f, g := withStore(t, content, "")
	g.md5 = md5Sum(content)
	g.pass(len(content))
	f.start()
	if r := f.get(filePath); r.header.Get("X-Cache") != "MISS" || r.header.Get("Content-MD5") != md5Base64(content) {
		t.Errorf("%v", r.header)
	}
}

// TestFileWithoutADigest: a file that nothing tells a digest of is refused before a byte of it is fetched, by the key
// that would let it in and not by its source, whatever on_unreachable says; with the key it is served.
func TestFileWithoutADigest(t *testing.T) {
	content := noise(100_000)
	for _, loose := range []bool{false, true} {
		f := newFixture(t, strings.Replace(image{uuid: id(1), content: content}.v2(), `"sha1"`, `"was"`, 1))
		g := newGate(content)
		f.source.file = g.file
		store, err := cache.Open(t.Context(), cache.Options{Dir: t.TempDir(), StallTimeout: time.Hour, AllowUnverified: loose})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			f.stop()
			store.Close() //nolint:errcheck // other tests look at that
		})
		f.options.Files, f.options.OnUnreachable = mirror.Files{Store: store}, UnreachableNotFound
		if loose {
			g.pass(len(content)) // else no byte can come
		}
		f.start()
		r := f.get(filePath)
		if loose {
			if r.status != 200 || r.body != string(content) {
				t.Errorf("with allow_unverified: %d, %d bytes", r.status, len(r.body))
			}
			continue
		}
		code, message, _ := r.errorBody(t)
		if r.status != 503 || code != "RemoteSourceError" || !strings.Contains(message, "verify.allow_unverified") {
			t.Errorf("%d %s: %s", r.status, code, message)
		}
	}
}

// A fill has one request at the source and any number of clients, who get what
// is there before the rest has come.
func TestFileWhileItIsFilled(t *testing.T) {
	content := noise(1 << 20)
	f, g := withStore(t, content, "")
	f.start()

	first, second, third := f.dial(), f.dial(), f.dial()
	ask := func(c net.Conn, length int64, more string) *http.Response {
		t.Helper()
		if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n"+more+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil) // headers come before any byte of the body
		if err != nil {
			t.Fatal(err)
		}
		if resp.ContentLength != length {
			t.Errorf("Content-Length %d", resp.ContentLength)
		}
		return resp
	}
	a := ask(first, 1<<20, "")
	b := ask(second, 1<<20, "")
	part := ask(third, 299_000, "Range: bytes=1000-299999\r\n")
	if x, y := a.Header.Get("X-Cache"), b.Header.Get("X-Cache"); x != "MISS" || y != "JOIN" {
		t.Errorf("X-Cache %s and %s", x, y)
	}
	g.pass(512 << 10)
	const early = 300 << 10
	for _, resp := range []*http.Response{a, b} {
		got := make([]byte, early)
		if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, content[:early]) {
			t.Fatalf("the first bytes: %v", err)
		}
	}
	// A part of what is there, while the rest is not; it is complete once the file is known to be right.
	if h := part.Header; part.StatusCode != 206 || h.Get("Content-Range") != "bytes 1000-299999/1048576" ||
		h.Get("Content-MD5") != "" || h.Get("X-Cache") != "JOIN" {
		t.Errorf("%d %v", part.StatusCode, h)
	}
	got := make([]byte, 200_000)
	if _, err := io.ReadFull(part.Body, got); err != nil || !bytes.Equal(got, content[1000:201_000]) {
		t.Fatalf("the first bytes of a part: %v", err)
	}
	third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := io.Copy(io.Discard, part.Body); err == nil || n >= 99_000 {
		t.Errorf("a part ended before the file was known to be right: %d bytes, %v", n, err)
	}
	// One who leaves harms nobody.
	second.Close()
	g.pass(len(content))
	rest, err := io.ReadAll(a.Body)
	if err != nil || !bytes.Equal(rest, content[early:]) {
		t.Errorf("the rest: %d bytes, %v", len(rest), err)
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
}

// Who hangs up while the source brings nothing is not waited for; who stays is.
func TestClientsLeaveAFillThatStands(t *testing.T) {
	content := noise(1 << 20)
	f, g := withStore(t, content, "")
	f.start()
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc/self/fd to count in")
		}
		return len(entries)
	}
	stays := f.dial()
	stays.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(stays, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	g.pass(512 << 10)
	if _, err := io.ReadFull(stays, make([]byte, 300<<10)); err != nil {
		t.Fatal(err)
	}
	f.server.bodies.begin.Do(f.server.bodies.start) // the loops' descriptors stay
	before := open()
	for i := range 20 {
		c, err := net.Dial("tcp", stays.RemoteAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\nRange: bytes=%d-\r\n\r\n", filePath, i*50_000)
		if i%2 == 0 {
			c.Read(make([]byte, 100)) // then it leaves unread bytes, and so a reset
		}
		c.Close()
	}
	waitFor(t, "the connections of those who left to be closed", func() bool { return open() <= before })
	g.pass(len(content))
	if rest, err := io.ReadAll(stays); err != nil || !bytes.HasSuffix(rest, content[900_000:]) {
		t.Errorf("who stayed got %d bytes more, %v", len(rest), err)
	}
}

// A fill goes on when its only client leaves.
func TestFillOutlivesItsClient(t *testing.T) {
	content := noise(200_000)
	f, g := withStore(t, content, "")
	f.start()
	c := f.dial()
	if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	g.pass(len(content))
	waitFor(t, "the file to be published", func() bool {
		return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT"
	})
	if r := f.get(filePath); r.body != string(content) || g.asked.Load() != 1 {
		t.Errorf("%d bytes, asked %d times", len(r.body), g.asked.Load())
	}
}

func TestFileRangesAndConditions(t *testing.T) {
	content := noise(100_000)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	f.start()
	f.get(filePath)
	waitFor(t, "the file to be published", func() bool {
		return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT"
	})
	tag := `"` + sha1Hex(content) + `"`

	part := func(from, to int, headers ...string) {
		t.Helper()
		r := f.get(filePath, headers...)
		if r.status != 206 || r.body != string(content[from:to]) || r.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/100000", from, to-1) ||
			r.header.Get("Content-MD5") != "" || r.header.Get("Etag") != tag {
			t.Errorf("%q: %d, %d bytes, %v", headers, r.status, len(r.body), r.header)
		}
	}
	part(0, 1, "Range: bytes=0-0")
	part(99_000, 100_000, "Range: bytes=99000-")
	part(99_000, 100_000, "Range: bytes=99000-999999")
	part(99_900, 100_000, "Range: bytes=-100")
	part(0, 100_000, "Range: bytes=0-")
	part(5, 7, "Range: bytes=5-6", "If-Range: "+tag)
	part(5, 7, "Range: bytes=5-6", "If-Range: Fri, 02 Jan 2015 03:04:05 GMT")

	whole := func(headers ...string) {
		t.Helper()
		r := f.get(filePath, headers...)
		if r.status != 200 || r.body != string(content) || r.header.Get("Content-MD5") != md5Base64(content) || r.header.Get("Content-Range") != "" {
			t.Errorf("%q: %d, %d bytes, %v", headers, r.status, len(r.body), r.header)
		}
	}
	whole("Range: bytes=0-1,5-6")
	whole("Range: lines=0-1")
	whole("Range: bytes=7-5")
	whole("Range: bytes=5-6", `If-Range: "other"`)
	whole("Range: bytes=5-6", "If-Range: W/"+tag)
	whole("If-None-Match: \"other\"")
	whole("If-Match: " + tag)
	whole("If-Modified-Since: Fri, 02 Jan 2015 03:04:04 GMT")
	whole("Accept: application/json")
	whole("Accept-Encoding: gzip")

	for _, h := range []string{"Range: bytes=100000-", "Range: bytes=-0"} {
		r := f.get(filePath, h)
		if code, _, _ := r.errorBody(t); r.status != 416 || r.header.Get("Content-Range") != "bytes */100000" || code == "" {
			t.Errorf("%s: %d %v", h, r.status, r.header)
		}
	}
	for _, h := range []string{"If-None-Match: " + tag, "If-None-Match: " + sha1Hex(content), "If-None-Match: *", "If-Modified-Since: Fri, 02 Jan 2015 03:04:05 GMT"} {
		if r := f.get(filePath, h); r.status != 304 || r.body != "" {
			t.Errorf("%s: %d", h, r.status)
		}
	}
	f.wantError("GET", filePath, 412, "PreconditionFailedError", "", `If-Match: "other"`)
	f.wantError("GET", filePath, 412, "PreconditionFailedError", "", "If-Unmodified-Since: Thu, 01 Jan 2015 00:00:00 GMT")

	// The other names of the same file.
	for _, target := range []string{filePath + "/", filePath + "0", filePath + "?index=0", filePath + "?index=0x", "/datasets/" + id(1) + "/file", "/" + id(1) + "/file", "http://any.host:81" + filePath} {
		if r := f.get(target); r.status != 200 || r.body != string(content) || r.header.Get("X-Cache") != "HIT" {
			t.Errorf("%s: %d, %d bytes", target, r.status, len(r.body))
		}
	}
	// One connection, file after file.
	c := f.dial()
	br := bufio.NewReader(c)
	for range 5 {
		if r := f.exchange(c, br, "GET", filePath); r.body != string(content) {
			t.Fatalf("%d %d bytes", r.status, len(r.body))
		}
		if r := f.exchange(c, br, "GET", "/ping"); r.status != 200 {
			t.Fatal(r.status)
		}
	}
}

// Wrong bytes are never a whole body, and nothing of them stays.
func TestWrongBytes(t *testing.T) {
	for _, size := range []int{100, 300_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			content := noise(size)
			f, g := withStore(t, content, "")
			g.content = bytes.Clone(content)
			g.content[size/2] ^= 1
			g.pass(size)
			f.start()
			r := f.send("GET", filePath)
			switch {
			case r.status == 200 && errors.Is(r.err, io.ErrUnexpectedEOF) && len(r.body) < size:
			case r.status == 503:
				if code, _, _ := r.errorBody(t); code != "RemoteSourceError" {
					t.Error(code)
				}
			default:
				t.Fatalf("%d, %d bytes, %v", r.status, len(r.body), r.err)
			}
			if r := f.send("HEAD", filePath); r.header.Get("X-Cache") != "MISS" {
				t.Error("wrong bytes were kept")
			}
			// Once the fill that failed is over, the next client is told at once, and costs no download.
			waitFor(t, "the refusal", func() bool { r = f.get(filePath); return r.status == 503 })
			if code, message, _ := r.errorBody(t); code != "RemoteSourceError" || !strings.HasPrefix(message, "wrong bytes from ") {
				t.Errorf("afterwards: %s, %s", code, message)
			}
		})
	}
}

// A body that cannot be finished ends its connection, and the log says why.
func TestShortBodyClosesTheConnection(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	g.content = bytes.Clone(content)
	g.content[0] ^= 1
	f.start()
	c := f.dial()
	// The second request must never be answered: its answer would be taken for
	// the rest of the body.
	req := "GET " + filePath + " HTTP/1.1\r\nHost: m\r\n\r\n"
	if _, err := io.WriteString(c, req+"GET /ping HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.pass(len(content))
	body, err := io.ReadAll(resp.Body)
	if err == nil || len(body) >= len(content) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if bytes.Contains(body, []byte("pong")) {
		t.Error("another reply in the body")
	}
	lines := f.log.requests(t, 1)
	if len(lines) != 1 || lines[0]["error"] == nil || lines[0]["status"] != 200.0 || lines[0]["bytes"] != float64(len(body)) {
		t.Errorf("log: %v, %d bytes came", lines, len(body))
	}
}

// With stream_on_miss off no header is sent before the file is right.
func TestWholeFileFirst(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	f.options.StreamOnMiss = false
	f.start()
	c := f.dial()
	if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\nRange: bytes=10-\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the source to be asked", func() bool { return g.asked.Load() > 0 })
	g.pass(len(content) - 1)
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 {
		t.Fatalf("a reply before the end of the file: %v", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	g.pass(len(content))
	if r := f.read(bufio.NewReader(c), "GET"); r.status != 206 || r.body != string(content[10:]) || r.header.Get("X-Cache") != "MISS" {
		t.Errorf("%d, %d bytes, %v", r.status, len(r.body), r.header)
	}
}

func TestWholeFileFirstHasItsMD5(t *testing.T) {
	content := noise(100_000)
	f, g := withStore(t, content, "")
	f.options.StreamOnMiss = false
	g.pass(len(content))
	f.start()
	if r := f.get(filePath); r.status != 200 || r.body != string(content) || r.header.Get("X-Cache") != "MISS" || r.header.Get("Content-MD5") != md5Base64(content) {
		t.Errorf("%d, %d bytes, %v", r.status, len(r.body), r.header)
	}
}

func TestWholeFileFirstWithWrongBytes(t *testing.T) {
	content := noise(100_000)
	f, g := withStore(t, content, "")
	f.options.StreamOnMiss = false
	g.content = bytes.Clone(content)
	g.content[0] ^= 1
	g.pass(len(content))
	f.start()
	f.wantError("GET", filePath, 503, "RemoteSourceError", "")
}

// A client that takes nothing is cut, wherever it stalls.
func TestStalledClientOfAFile(t *testing.T) {
	content := noise(16 << 20) // more than the sockets of both sides hold
	f, g := withStore(t, content, "")
	g.pass(len(content))
	f.options.ClientStall = 100 * time.Millisecond
	f.start()
	c := f.dial()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := f.log.requests(t, 1)
	waitFor(t, "the connection to be closed", func() bool { return testutil.ToFloat64(f.server.metrics.connections) == 0 })
	if len(lines) != 1 || lines[0]["error"] == nil || lines[0]["bytes"].(float64) >= float64(len(content)) {
		t.Errorf("log: %v", lines)
	}
}

// The deadline moves with the body: a step at a time.
func TestDeadlineMovesOn(t *testing.T) {
	content := noise(3*step + 10)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	counting := &deadlineListener{listenTCP(t), make(chan *deadlineConn, 1)}
	f.serve(s, counting)
	if r := f.get(filePath); r.body != string(content) {
		t.Fatalf("%d bytes", len(r.body))
	}
	// One for the header, one for each step.
	if n := (<-counting.conns).deadlines.Load(); n < 5 {
		t.Errorf("%d deadlines for %d bytes", n, len(content))
	}
}

// listenTCP is a free port on loopback.
func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

type deadlineListener struct {
	net.Listener
	conns chan *deadlineConn
}

func (l *deadlineListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d := &deadlineConn{TCPConn: c.(*net.TCPConn)}
	l.conns <- d
	return d, nil
}

type deadlineConn struct {
	*net.TCPConn
	deadlines atomic.Int32
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.deadlines.Add(1)
	return c.TCPConn.SetWriteDeadline(t)
}

// A body is an io.Reader too, with the same bytes.
func TestFileBodyAsAReader(t *testing.T) {
	content := noise(100_000)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	f.start()
	e, err := f.server.image(&request{ctx: &fasthttp.RequestCtx{}, record: &record{}}, uuid.MustParse(id(1)), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.server.files.Open(t.Context(), e, 0, cache.Client, cache.ByClient)
	if err != nil {
		t.Fatal(err)
	}
	r.SeekTo(10)
	body := &fileBody{server: f.server, reader: r, left: 50_000, record: &record{route: routeFile, remote: &net.TCPAddr{}}}
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, content[10:50_010]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

// A stop lets a file be finished...
func TestStopFinishesAFile(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	f.options.DrainTimeout = time.Hour
	f.start()
	c := f.dial()
	if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	waitFor(t, "the drain", func() bool { return !f.server.Ready() })
	g.pass(len(content))
	if body, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(body, content) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// ...but does not wait for a fill for ever.
func TestStopCutsAFileThatWaits(t *testing.T) {
	for name, stream := range map[string]bool{"streamed": true, "whole first": false} {
		t.Run(name, func(t *testing.T) {
			content := noise(300_000)
			f, g := withStore(t, content, "")
			f.options.DrainTimeout = time.Millisecond
			f.options.StreamOnMiss = stream
			f.start()
			c := f.dial()
			if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the source to be asked", func() bool { return g.asked.Load() > 0 })
			start := time.Now()
			if err := f.stop(); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("the stop took %v", took)
			}
			got, _ := io.ReadAll(c)
			if len(got) > 2000 {
				t.Errorf("%d bytes came", len(got))
			}
		})
	}
}

func TestFileOverTLS(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	cert := selfSigned(t)
	f.options.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	f.start()
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	for range 2 {
		c, err := tls.Dial("tcp", f.addr, &tls.Config{RootCAs: roots, ServerName: "mirror"})
		if err != nil {
			t.Fatal(err)
		}
		if r := f.common(f.exchange(c, bufio.NewReader(c), "GET", filePath)); r.body != string(content) {
			t.Errorf("%d, %d bytes", r.status, len(r.body))
		}
		c.Close()
	}
}

func TestIcon(t *testing.T) {
	picture := noise(5000)
	path := "/images/" + id(1) + "/icon"
	f, _ := withStore(t, []byte("x"), `,"icon":true`)
	var asked atomic.Int32
	f.source.icon = func(context.Context, manifest.Manifest) (*verify.Stream, error) {
		asked.Add(1)
		return &verify.Stream{
			ReadCloser: io.NopCloser(bytes.NewReader(picture)), Size: int64(len(picture)), MD5: md5Sum(picture),
			ModTime: time.Date(2015, 1, 2, 3, 4, 5, 0, time.UTC), ContentType: "image/png; charset=binary",
		}, nil
	}
	f.start()
	if r := f.common(f.send("HEAD", path)); r.status != 200 || asked.Load() != 0 {
		t.Errorf("HEAD asked the source: %d", r.status)
	}
	for i := range 3 {
		r := f.get(path)
		h := r.header
		if r.status != 200 || r.body != string(picture) || h.Get("Content-MD5") != md5Base64(picture) || h.Get("Etag") != `"`+sha1Hex(picture)+`"` ||
			h.Get("Content-Type") != "image/png" || h.Get("Last-Modified") != "Fri, 02 Jan 2015 03:04:05 GMT" {
			t.Errorf("%d: %d %v", i, r.status, h)
		}
		if h.Get("Accept-Ranges") != "" {
			t.Error("ranges are offered, which icons have not")
		}
		waitFor(t, "the icon to be kept", func() bool { return f.send("HEAD", path).header.Get("X-Cache") == "HIT" })
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	if r := f.common(f.send("HEAD", path)); r.header.Get("Content-Length") != "5000" || r.header.Get("Content-MD5") != md5Base64(picture) || r.body != "" {
		t.Errorf("%v", r.header)
	}
	if r := f.get(path, "If-None-Match: "+sha1Hex(picture)); r.status != 304 {
		t.Errorf("%d", r.status)
	}
	f.wantError("GET", path, 412, "PreconditionFailedError", "", `If-Match: "other"`)
}

func TestIconFaults(t *testing.T) {
	path := "/images/" + id(1) + "/icon"
	f, _ := withStore(t, []byte("x"), `,"icon":true`)
	f.start()
	f.wantError("GET", path, 404, "ResourceNotFound", "image "+id(1)+" has no icon") // although the manifest says so
	f.source.icon = func(context.Context, manifest.Manifest) (*verify.Stream, error) {
		return &verify.Stream{ReadCloser: io.NopCloser(bytes.NewReader([]byte("short"))), Size: 5, MD5: md5Sum([]byte("other"))}, nil
	}
	f.wantError("GET", path, 503, "RemoteSourceError", "")
}

func TestIconType(t *testing.T) {
	f := func(claimed, want string) {
		t.Helper()
		if got := string(iconType(claimed)); got != want {
			t.Errorf("%q: %q", claimed, got)
		}
	}
	f("image/png", "image/png")
	f("IMAGE/JPEG", "image/jpeg")
	f("image/gif; x=y", "image/gif")
	f("text/html", "application/octet-stream")
	f("image/svg+xml", "application/octet-stream")
	f("", "application/octet-stream")
}
