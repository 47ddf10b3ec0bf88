package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/proxy/meaning"
)

// Page is the web page for clients; *page.Clients is one. The methods may be called concurrently.
type Page interface {
	// Open tells whether clients may see the page at the moment.
	Open() bool
	// ServeHTTP answers GET and HEAD below /ui/, but for /ui/live. The request has a path, a query, a
	// host, the client's address and the conditions; its reply is made whole.
	http.Handler
	// Follow begins an event stream, the query's want being the parts of a page. next waits for the next
	// bytes, which are shared; its error ends the stream. The server calls end. An error tells that the
	// client has too many streams.
	Follow(want string, client netip.Addr) (next func(context.Context) ([][]byte, error), end func(), err error)
}

// Bounds of the page.
const (
	// maxRenders is how many replies of the page are made at the same time, at most; others wait.
	maxRenders = 4
	// renderTimeout bounds the wait of one reply.
	renderTimeout = 10 * time.Second
	// streamMemory is what one event stream counts in Options.Memory.
	streamMemory = 32 << 10
	// pageMemory is what a reply counts in Options.Memory before its size is known.
	pageMemory = 256 << 10
)

// pagePath is where the page is.
const pagePath = "/ui/"

var (
	hdrLocation     = []byte("Location")
	hdrPolicy       = []byte("Content-Security-Policy")
	hdrTypeOptions  = []byte("X-Content-Type-Options")
	hdrCacheControl = []byte("Cache-Control")
	typeEvents      = []byte("text/event-stream")
	valueAccept     = []byte("Accept")
	valueNosniff    = []byte("nosniff")
	valueNoStore    = []byte("no-store")
	valuePolicy     = []byte("default-src 'none'; frame-ancestors 'none'") // of errors; the page has its own
)

// rendersAtOnce is maxRenders, or as many as leave half of the processors free: a search through a large
// catalogue takes a processor for tens of milliseconds, and while all processors are taken files wait.
func rendersAtOnce() int { return max(1, min(maxRenders, runtime.GOMAXPROCS(0)/2)) }

// Mount puts page below /ui/. Call Mount before Serve.
func (s *Server) Mount(page Page) { s.page = page }

// hasPage tells whether the page is there for clients at the moment.
func (s *Server) hasPage() bool { return s.page != nil && s.page.Open() }

// root answers GET /: a browser is led to the page, all other clients get the array of a static image
// server.
func (s *Server) root(req *request) error {
	if !s.hasPage() {
		return s.listStatic(req)
	}
	req.setKey(hdrVary, valueAccept)
	if !wantsHTML(req.header("Accept")) {
		return s.listStatic(req)
	}
	req.ctx.SetStatusCode(fasthttp.StatusFound)
	req.set(hdrLocation, pagePath)
	return nil
}

// wantsHTML tells whether an Accept header names text/html, as browsers do. */* names nothing.
func wantsHTML(accept string) bool {
	for kind := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(kind, ";")
		if strings.EqualFold(strings.TrimSpace(name), "text/html") {
			q, found := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(weight), " ", ""), "q=")
			return !found || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

// showPage answers below /ui/.
func (s *Server) showPage(req *request) error {
	if req.path == "/ui" {
		req.ctx.SetStatusCode(fasthttp.StatusFound)
		req.set(hdrLocation, pagePath)
		return nil
	}
	if req.path == pagePath+"live" {
		return s.followPage(req)
	}
	w := s.wait(s.base, req, renderTimeout)
	defer req.endWait(w)
	select {
	case s.renders <- struct{}{}:
	default:
		select {
		case s.renders <- struct{}{}:
		case <-w.Done():
			return &apiError{status: 503, code: meaning.Unavailable, message: "many pages are being made: ask again later", cause: w.Err()}
		}
	}
	defer func() { <-s.renders }()
	return s.renderPage(w, req)
}

// renderPage makes one reply of the page.
func (s *Server) renderPage(ctx context.Context, req *request) error {
	u, err := url.ParseRequestURI(req.target)
	if err != nil {
		return badRequest("the path is not well encoded")
	}
	if err := s.reserve(req, pageMemory); err != nil {
		return err
	}
	held := int64(pageMemory)
	defer func() { s.memory.give(held) }()
	r := (&http.Request{
		Method: req.record.method, URL: u, RequestURI: req.target, Host: string(req.ctx.Host()),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
		RemoteAddr: req.record.remote.String(),
	}).WithContext(ctx)
	if tags := req.header("If-None-Match"); tags != "" {
		r.Header.Set("If-None-Match", tags)
	}
	out := &pageWriter{header: http.Header{}}
	s.page.ServeHTTP(out, r)
	if err := ctx.Err(); err != nil {
		return err
	}
	for key, values := range out.header {
		for _, value := range values {
			if key == "Content-Length" && !req.ctx.IsHead() {
				continue
			}
			req.ctx.Response.Header.Set(key, value)
		}
	}
	if out.status != 0 {
		req.ctx.SetStatusCode(out.status)
	}
	data := out.body.Bytes()
	switch {
	case req.ctx.IsHead():
		if n, err := strconv.Atoi(out.header.Get("Content-Length")); err == nil {
			req.ctx.Response.Header.SetContentLength(n)
		}
	case len(data) <= smallBody:
		req.ctx.Response.SetBody(data)
	default:
		size := int64(cap(data))
		if size > held {
			if err := s.reserve(req, size-held); err != nil {
				return err
			}
		} else {
			s.memory.give(held - size)
		}
		held = 0
		body := &listBody{server: s, rest: data, left: len(data), own: size}
		body.conn, body.record = req.ctx.Conn(), req.record
		req.ctx.Response.SetBodyStream(body, len(data))
	}
	return nil
}

// pageWriter keeps a whole reply.
type pageWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *pageWriter) Header() http.Header { return w.header }

func (w *pageWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *pageWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// followPage answers GET /ui/live with a stream of events, which ends with the client, with the page,
// or at the beginning of the drain.
func (s *Server) followPage(req *request) error {
	req.setKey(hdrContentType, typeEvents)
	req.ctx.Response.Header.Set("X-Accel-Buffering", "no") // nginx would keep events back
	if req.ctx.IsHead() {
		return nil
	}
	if err := s.reserve(req, streamMemory); err != nil {
		return err
	}
	want, _ := param(parseParams(req.query), "want")
	next, end, err := s.page.Follow(want, remoteIP(req.record.remote))
	if err != nil {
		s.memory.give(streamMemory)
		return &apiError{status: 503, code: meaning.Unavailable, message: err.Error(), cause: err}
	}
	req.ctx.SetConnectionClose()
	req.ctx.Response.SetBodyStream(&eventBody{
		server: s, conn: req.ctx.Conn(), next: next, end: end, record: req.record, events: [][]byte{[]byte(": begin\n\n")},
	}, -1)
	return nil
}

// eventBody is the body of an event stream. Close of the body ends the request.
type eventBody struct {
	server *Server
	conn   net.Conn
	next   func(context.Context) ([][]byte, error)
	end    func()
	record *record
	events [][]byte
	sent   int64
	err    error
}

// Read gives the next bytes of events; fasthttp sends them at once. The end of the stream is io.EOF.
func (b *eventBody) Read(p []byte) (int, error) {
	for len(b.events) == 0 {
		w := &wait{Context: b.server.unending, watch: &b.server.watch, conn: b.conn}
		events, err := b.next(w)
		if w.end() {
			b.err = fmt.Errorf("client: %w", errGone)
			return 0, b.err
		}
		if err != nil || !b.server.hasPage() {
			return 0, io.EOF
		}
		b.events = slices.Clone(events)
	}
	if err := b.conn.SetWriteDeadline(time.Now().Add(b.server.opts.ClientStall)); err != nil {
		b.err = fmt.Errorf("client: %w", err)
		return 0, b.err
	}
	n := copy(p, b.events[0])
	if b.events[0] = b.events[0][n:]; len(b.events[0]) == 0 {
		b.events = b.events[1:]
	}
	b.sent += int64(n)
	return n, nil
}

// Close ends the request.
func (b *eventBody) Close() error {
	b.server.memory.give(streamMemory)
	b.end()
	b.server.finish(b.record, b.sent, b.err)
	return nil
}
