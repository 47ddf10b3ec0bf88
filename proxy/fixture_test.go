package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/accesslog"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

// fixture is a server on loopback with a catalogue of given manifests. What is
// not set to something else works.
type fixture struct {
	testing.TB
	options  Options
	source   *fakeSource
	registry *prometheus.Registry
	log      *logBuffer

	server *Server
	addr   string
	stop   func() error // ends the server and gives what Run returned
}

// newFixture prepares a server; start starts it.
func newFixture(t testing.TB, manifests ...string) *fixture {
	t.Helper()
	return newFixtureWith(t, catalog.Options{}, manifests...)
}

// newFixtureWith is newFixture with a catalogue of these options, the source
// and the index apart.
func newFixtureWith(t testing.TB, o catalog.Options, manifests ...string) *fixture {
	t.Helper()
	f := &fixture{
		TB:       t,
		source:   &fakeSource{name: "one"},
		registry: prometheus.NewRegistry(),
		log:      &logBuffer{},
	}
	index := fakeIndex{manifest.Listing{Source: "one", Kind: "imgapi", Fetched: time.Unix(1e9, 0)}}
	for _, text := range manifests {
		m, err := manifest.Parse([]byte(text), manifest.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		index[0].Images = append(index[0].Images, m)
	}
	o.Sources, o.Index = []catalog.SourceOptions{{Source: f.source}}, index
	cat, err := catalog.New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.options = Options{
		Catalog:      cat,
		Files:        mirror.Files{Store: fakeFiles{}},
		Version:      "1.2.3",
		StreamOnMiss: true,
		Logger:       slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		AccessLog:    accessLog(t, f.log),
		Registerer:   f.registry,
	}
	return f
}

// start starts the server; it ends with the test.
func (f *fixture) start() *fixture {
	f.Helper()
	s, err := New(f.options)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		f.Fatal(err)
	}
	f.serve(s, *s.listener.Load())
	return f
}

// serve runs s on ln.
func (f *fixture) serve(s *Server, ln net.Listener) {
	f.server, f.addr = s, ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	logging, stopLog := context.WithCancel(context.Background())
	logged := make(chan error, 1)
	go func() { logged <- s.opts.AccessLog.Run(logging) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		stopLog()
		return errors.Join(err, <-logged)
	})
	f.Cleanup(func() {
		if err := f.stop(); err != nil {
			f.Errorf("Serve: %v", err)
		}
	})
}

// reply is a whole reply.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
	last   bool  // "Connection: close"
}

// errorBody reads the reply as an error of spec 2.8.
func (r reply) errorBody(t testing.TB) (code, message string, fields []fieldError) {
	t.Helper()
	var v struct {
		Code    string
		Message string
		Errors  []fieldError
	}
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("status %d, body %q: %v", r.status, r.body, err)
	}
	return v.Code, v.Message, v.Errors
}

// dial opens a raw connection.
func (f *fixture) dial() net.Conn {
	f.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		f.Fatal(err)
	}
	return c
}

// send sends one request on a connection of its own; headers are whole lines.
func (f *fixture) send(method, target string, headers ...string) reply {
	f.Helper()
	c := f.dial()
	defer c.Close()
	return f.exchange(c, bufio.NewReader(c), method, target, headers...)
}

// exchange sends one request on a connection that may be kept.
func (f *fixture) exchange(c net.Conn, br *bufio.Reader, method, target string, headers ...string) reply {
	f.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, target)
	if !strings.Contains(strings.ToLower(strings.Join(headers, "\n")), "host:") {
		b.WriteString("Host: mirror:8080\r\n")
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		f.Fatal(err)
	}
	return f.read(br, method)
}

// read reads one reply; one that is not there ends the test.
func (f *fixture) read(br *bufio.Reader, method string) reply {
	f.Helper()
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		f.Fatalf("%s: read the reply: %v", method, err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	return reply{resp.StatusCode, resp.Header, string(body), err, resp.Close}
}

// get is send with what must be there in every reply checked.
func (f *fixture) get(target string, headers ...string) reply {
	f.Helper()
	return f.common(f.send("GET", target, headers...))
}

// common checks what spec 2.6 asks of all replies.
func (f *fixture) common(r reply) reply {
	f.Helper()
	for _, name := range []string{"Date", "X-Request-Id", "X-Response-Time", "X-Server-Name"} {
		if r.header.Get(name) == "" {
			f.Errorf("status %d: no %s", r.status, name)
		}
	}
	if got := r.header.Get("Server"); got != "imgmirror/1.2.3" {
		f.Errorf("status %d: Server %q", r.status, got)
	}
	if te := r.header.Get("Transfer-Encoding"); te != "" {
		f.Errorf("status %d: Transfer-Encoding %q", r.status, te)
	}
	if r.err != nil {
		f.Errorf("status %d: body: %v", r.status, r.err)
	}
	if r.status >= 300 && r.status < 400 && r.status != 304 {
		f.Errorf("status %d: clients take a redirect for an empty success", r.status)
	}
	if r.header.Get("Content-Type") == "application/json" && r.header.Get("Content-MD5") != "" {
		f.Error("JSON with a Content-MD5")
	}
	return r
}

// wantError asks for target and compares status, code and message.
func (f *fixture) wantError(method, target string, status int, code, message string, headers ...string) reply {
	f.Helper()
	r := f.common(f.send(method, target, headers...))
	if r.status != status || r.header.Get("Content-Type") != "application/json" {
		f.Errorf("%s %s: %d %s, want %d", method, target, r.status, r.header.Get("Content-Type"), status)
		return r
	}
	if method == "HEAD" {
		return r
	}
	gotCode, gotMessage, _ := r.errorBody(f.TB)
	if gotCode != code || message != "" && gotMessage != message {
		f.Errorf("%s %s: %s %q, want %s %q", method, target, gotCode, gotMessage, code, message)
	}
	return r
}

// fakeIndex is saved lists and nothing else.
type fakeIndex []manifest.Listing

func (x fakeIndex) Listings() ([]manifest.Listing, error)           { return x, nil }
func (x fakeIndex) SaveListing(manifest.Listing) error              { return nil }
func (x fakeIndex) SaveUnlisted(string, manifest.Manifest) error    { return nil }
func (x fakeIndex) SaveFacts(manifest.FileID, manifest.Facts) error { return nil }
func (x fakeIndex) Facts() (map[manifest.FileID]manifest.Facts, error) {
	return nil, nil
}

// fakeSource is an image server; what is nil is not there.
type fakeSource struct {
	name string
	list func(prev manifest.Listing) manifest.Listing // nil: what it was
	get  func(context.Context, uuid.UUID) (manifest.Manifest, error)
	file func(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error)
	icon func(context.Context, manifest.Manifest) (*verify.Stream, error)
}

func (s *fakeSource) Name() string { return s.name }

func (s *fakeSource) List(_ context.Context, prev manifest.Listing) (manifest.Listing, error) {
	if s.list != nil {
		return s.list(prev), nil
	}
	return prev, nil
}

func (s *fakeSource) Get(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	if s.get == nil {
		return manifest.Manifest{}, fs.ErrNotExist
	}
	return s.get(ctx, id)
}

func (s *fakeSource) File(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	if s.file == nil {
		return nil, fs.ErrNotExist
	}
	return s.file(ctx, m, index, offset)
}

func (s *fakeSource) Part(ctx context.Context, m manifest.Manifest, index int, offset, _ int64) (*verify.Stream, error) {
	return s.File(ctx, m, index, offset)
}

func (s *fakeSource) Head(context.Context, manifest.Manifest, int) ([]byte, int64, error) {
	return nil, 0, fs.ErrNotExist
}

func (s *fakeSource) Icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error) {
	if s.icon == nil {
		return nil, fs.ErrNotExist
	}
	return s.icon(ctx, m)
}

// fakeFiles are files that fail, or are only known of.
type fakeFiles struct {
	err  error
	info *cache.Info
}

func (f fakeFiles) File(context.Context, cache.Blob, []cache.Source) (*cache.Reader, error) {
	if f.err != nil {
		return nil, f.err
	}
	return nil, fs.ErrNotExist
}

func (f fakeFiles) Peek(cache.Blob) (cache.Info, bool) {
	if f.info == nil {
		return cache.Info{}, false
	}
	return *f.info, true
}

// logBuffer keeps log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// accessLog is an access log; serve runs it.
func accessLog(t testing.TB, w io.Writer) *accesslog.Log {
	t.Helper()
	l, err := accesslog.New(accesslog.Options{Writer: w, Format: accesslog.JSON, Common: `{"level":"INFO","msg":"request","component":"proxy"}`})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// requests are the lines of the access log, n or more.
func (l *logBuffer) requests(t testing.TB, n int) (lines []map[string]any) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d lines in the access log", n), func() bool {
		lines = l.lines(t, "request")
		return len(lines) >= n
	})
	return lines
}

// lines are the log lines with that message.
func (l *logBuffer) lines(t testing.TB, msg string) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for line := range strings.Lines(l.buf.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if v["msg"] == msg {
			out = append(out, v)
		}
	}
	return out
}

// image describes an image for a manifest: what is empty gets a value.
type image struct {
	uuid, name, version, published, extra string
	content                               []byte // of its file; nil for none
}

// v2 is the image's manifest.
func (i image) v2() string {
	if i.name == "" {
		i.name = "base"
	}
	if i.version == "" {
		i.version = "1.0.0"
	}
	if i.published == "" {
		i.published = "2014-05-06T07:08:09Z"
	}
	files := ""
	if i.content != nil {
		files = fmt.Sprintf(`,"files":[{"sha1":"%s","size":%d,"compression":"gzip"}]`, sha1Hex(i.content), len(i.content))
	}
	state := `,"state":"active","disabled":false`
	if strings.Contains(i.extra, `"state"`) {
		state = ""
	}
	public := `,"public":true`
	if strings.Contains(i.extra, `"public"`) {
		public = ""
	}
	return fmt.Sprintf(`{"v":2,"uuid":"%s","owner":"930896af-bf8c-48d4-885c-6573a94b1853","name":"%s","version":"%s","published_at":"%s","type":"zone-dataset","os":"smartos"%s%s%s%s}`,
		i.uuid, i.name, i.version, i.published, state, public, files, i.extra)
}

// id makes a uuid that ends in n.
func id(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func sha1Hex(b []byte) string {
	sum := sha1.Sum(b)
	return hex.EncodeToString(sum[:])
}

func md5Sum(b []byte) []byte {
	sum := md5.Sum(b)
	return sum[:]
}

func md5Base64(b []byte) string { return base64.StdEncoding.EncodeToString(md5Sum(b)) }

// names are the "name" fields of a JSON array.
func names(t testing.TB, body string) string {
	t.Helper()
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	var out []string
	for _, v := range list {
		out = append(out, v.Name)
	}
	return strings.Join(out, " ")
}
