package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"imgmirror/proxy/accesslog"
	"imgmirror/proxy/meaning"
)

// request is one request on its way to its reply. A request lives as long as its handler; the
// record holds the facts that the end of the reply's body needs later.
type request struct {
	ctx    *fasthttp.RequestCtx
	client *client
	target string // path and query, unchanged
	path   string
	query  string
	segs   []string // of path, decoded
	via    []string // the mirrors behind the request; the last one sent the request
	named  bool     // manifests tell the image's channels (spec 2.2)
	last   bool     // the reply ends the connection
	left   bool     // the client has hung up during a wait
	unread bool     // the body was refused, and may still come
	// headOnly: the body is asked for only after the head has been looked at, and nothing else happens.
	headOnly bool
	// atOnce: only a reply that an event loop can send is of use.
	atOnce bool
	record *record
	buf    []byte // for a header's value, see set
}

// record holds a request's facts for access log and metrics. A record may outlive the handler.
type record struct {
	start  time.Time
	route  *route
	method string
	path   string
	status int
	cache  string // X-Cache; "" without the header
	remote net.Addr
	id     string // x-request-id
	agent  string

	received int64 // bytes of the request's body that were taken in

	// Of the reply with a file:
	image uuid.UUID // zero for another file than the first
	first int64     // byte of the file that is sent
	size  int64     // of the whole file; 0 = no file is sent
}

// newRequest is noted, with the first headers of the reply.
func (s *Server) newRequest(ctx *fasthttp.RequestCtx, id string) *request {
	req := s.noted(ctx, id)
	s.firstHeaders(req)
	return req
}

// noted copies the record's facts out of fasthttp's buffers. id is the client's name of the request, "" for a fresh one.
// The request and its record are the connection's own, until the connection's next request.
func (s *Server) noted(ctx *fasthttp.RequestCtx, id string) *request {
	c := s.conns.client(ctx.Conn())
	if id == "" {
		id = c.ids.next()
	}
	c.record = record{
		start:  time.Now(),
		route:  routeNone,
		method: methodOf(ctx.Method()),
		remote: c.nc.RemoteAddr(), // a connection that is reset may not tell any more
		id:     id,
		agent:  c.agentOf(ctx.UserAgent()),
	}
	c.request = request{ctx: ctx, client: c, record: &c.record, buf: c.request.buf}
	return &c.request
}

// firstHeaders sets the headers that every reply has (spec 2.6), but for finishHeader's.
func (s *Server) firstHeaders(req *request) {
	req.set(hdrRequestID, req.record.id)
	req.setKey(hdrServerName, s.hostname)
}

// methodOf is a method as a string.
func methodOf(b []byte) string {
	switch string(b) { // the usual ones need no memory
	case fasthttp.MethodGet:
		return fasthttp.MethodGet
	case fasthttp.MethodHead:
		return fasthttp.MethodHead
	}
	return string(b)
}

// handle answers one request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	found, refused := wellFormed(ctx)
	id := ""
	if found.named || refused != nil {
		id = requestID(&ctx.Request.Header)
	}
	req := s.newRequest(ctx, id)
	req.last = s.conns.begin(req.client)
	if refused != nil {
		req.last = true // the next bytes may be no request
		s.sendError(req, refused)
	} else if err := s.dispatch(req, &found); err != nil {
		if req.left {
			req.last = true
			err = errLeft
		}
		s.sendError(req, err)
	}
	s.finishHeader(req)
	if ctx.Response.IsBodyStream() {
		return // the end of the body ends the request
	}
	if req.client.whole.apart {
		return // the connection tells the end
	}
	s.finish(req.record, req.bodySize(), nil)
	if req.unread {
		s.linger(req)
	}
	// Small replies take turns. Without Gosched a busy connection keeps its processor, and the
	// slowest of many clients waits several times as long.
	runtime.Gosched()
}

// expect answers a request with "Expect: 100-continue", and gives the status: 100 asks the client for
// the body. Where there are no writes, every body is asked for, and handle answers the request.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	if s.writers.Load() == nil || ctx.IsGet() || ctx.IsHead() {
		return fasthttp.StatusContinue
	}
	found, refused := wellFormed(ctx)
	if refused != nil {
		return fasthttp.StatusContinue
	}
	req := s.newRequest(ctx, requestID(&ctx.Request.Header))
	req.headOnly = true
	err := s.dispatch(req, &found)
	if err == nil {
		return fasthttp.StatusContinue
	}
	req.last, req.unread = true, true
	s.conns.begin(req.client)
	s.sendError(req, err)
	s.finishHeader(req)
	s.finish(req.record, req.bodySize(), nil)
	s.linger(req)
	return req.record.status
}

// dispatch finds the route and runs its serve, after the checks of spec 2.5 in their order. A
// panic becomes the error, with the headers of newRequest set anew.
func (s *Server) dispatch(req *request, found *head) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "panic", p, "path", req.path, "request_id", req.record.id, "stack", string(debug.Stack()))
			req.ctx.Response.Reset()
			s.firstHeaders(req)
			err = fmt.Errorf("panic: %v", p)
		}
	}()

	if s.quick(req, found) {
		return nil
	}
	method := req.record.method
	target := string(req.ctx.Request.Header.RequestURI())
	if target == "*" && method == fasthttp.MethodOptions {
		return req.options("GET, HEAD, OPTIONS")
	}
	var ok bool
	if req.target, req.path, req.query, ok = parseTarget(target); !ok {
		return badRequest("the request target is neither a path nor a URL")
	}
	req.record.path = req.path
	if req.segs, ok = splitPath(req.path); !ok {
		return badRequest("the path is not well encoded")
	}
	rt := match(req.segs)
	if rt == routeChannels && !s.hasChannels() || rt == routeUI && !s.hasPage() || rt == routeDist && s.opts.DistDir == "" {
		rt = nil
	}
	if rt == nil {
		return notFound("%s does not exist", req.path)
	}
	req.record.route = rt
	if rt.open {
		req.setKey(hdrAllowOrigin, valueAny)
		req.setKey(hdrExpose, valueExposed)
	}
	if rt == routeUI {
		req.setKey(hdrPolicy, valuePolicy)
		req.setKey(hdrTypeOptions, valueNosniff)
		req.setKey(hdrCacheControl, valueNoStore)
	}
	change := s.writeOf(rt, req)
	switch {
	case method == fasthttp.MethodOptions && rt.writeOnly:
		return req.options("")
	case method == fasthttp.MethodOptions:
		return req.options("GET, HEAD, OPTIONS")
	case rt.writeOnly:
		return notAllowed(method, "")
	case method != fasthttp.MethodGet && method != fasthttp.MethodHead && change == nil:
		return notAllowed(method, "GET, HEAD")
	}
	if rt.versioned {
		req.setKey(hdrAPIVersion, valueAPIVersion)
		version := req.header("Accept-Version")
		major := satisfiedBy(version)
		if req.named = major >= 2 && s.hasChannels(); major == 0 {
			return &apiError{status: 400, code: "InvalidVersion",
				message: fmt.Sprintf("%s is not supported by %s %s", version, method, req.path)}
		}
	}
	if change != nil {
		return s.change(req, change)
	}
	if err := s.meet(req); err != nil {
		return err
	}
	return rt.serve(s, req)
}

// malformed answers bytes that cannot be read as a request. fasthttp closes the connection then.
func (s *Server) malformed(ctx *fasthttp.RequestCtx, err error) {
	var silent fasthttp.ErrNothingRead
	if errors.As(err, &silent) || s.conns.client(ctx.Conn()).state.Load() == leaving {
		// A connection without a request, from a port check or a client's pool, gets no answer,
		// nor does a slow header that makes room for a newcomer.
		_ = ctx.Conn().Close()
		return
	}
	ctx.Response.Reset()
	req := s.newRequest(ctx, requestID(&ctx.Request.Header))
	reply := badRequest("the request cannot be understood")
	var timeout net.Error
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		reply = &apiError{status: 408, code: "RequestTimeoutError", message: "the request did not arrive in time"}
	case errors.As(err, &small):
		reply = badRequest("the request's header is too big")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		reply = badRequest("the request's body is too big")
	}
	reply.cause = err
	s.sendError(req, reply)
	s.finishHeader(req)
	// The deadline of the connection's earlier reply may be over.
	_ = ctx.SetWriteDeadline(time.Now().Add(s.opts.ClientStall))
	s.finish(req.record, req.bodySize(), nil)
}

// finishHeader completes a reply's header once its status is known.
func (s *Server) finishHeader(req *request) {
	req.buf = fasthttp.AppendUint(req.buf[:0], int(time.Since(req.record.start).Milliseconds()))
	req.setKey(hdrResponseTime, req.buf)
	if req.last || s.conns.draining.Load() {
		req.ctx.SetConnectionClose()
	}
	req.record.status = req.ctx.Response.StatusCode()
}

// bodySize is the length of the reply's body on the wire.
func (req *request) bodySize() int64 {
	if req.ctx.IsHead() || req.record.status == fasthttp.StatusNotModified {
		return 0
	}
	return int64(len(req.ctx.Response.Body()))
}

// sendError makes err the reply. A fault of the server or of the sources has a line in the log; a
// sample of an error (see ping) has none.
func (s *Server) sendError(req *request, err error) {
	e := s.explain(err, "not found")
	if e.status >= 500 && e.cause != nil {
		level := slog.LevelWarn
		if e.status == 500 {
			level = slog.LevelError
		}
		s.log.Log(s.base, level, "request failed", "method", req.record.method, "path", req.path,
			"status", e.status, "code", e.code, "request_id", req.record.id, "error", e)
	}
	req.ctx.SetStatusCode(e.status)
	req.setKey(hdrContentType, typeJSON)
	if e.allow != nil {
		req.set(hdrAllow, *e.allow)
	}
	switch {
	case e.retry > 0:
		req.set(hdrRetryAfter, strconv.Itoa(int(e.retry/time.Second)))
	case e.status == 503:
		req.set(hdrRetryAfter, strconv.Itoa(int(retryAfter/time.Second)))
	}
	req.ctx.Response.SetBodyRaw(e.body())
}

// finish counts the request and gives it a line in the access log. The caller calls finish once, after
// the last byte of the body; err is the cause of a body's early end.
func (s *Server) finish(r *record, sent int64, err error) { s.finishAt(time.Now(), r, sent, err) }

// finishAt is finish at the time end.
func (s *Server) finishAt(end time.Time, r *record, sent int64, err error) {
	took := end.Sub(r.start)
	s.metrics.observe(r.route, r.status, took)
	s.note(r, sent, took, err)
	if s.opts.AccessLog == nil {
		return
	}
	s.opts.AccessLog.Add(&accesslog.Entry{
		End:       end,
		Method:    r.method,
		Path:      r.path,
		Status:    r.status,
		Bytes:     sent,
		Duration:  took,
		Received:  r.received,
		Cache:     r.cache,
		Remote:    r.remote,
		RequestID: r.id,
		UserAgent: r.agent,
		Err:       err,
	})
}

// badRequest is a 400 for a malformed request.
func badRequest(message string) *apiError {
	return &apiError{status: 400, code: meaning.BadRequest, message: message}
}

// notAllowed is the 405 of a known path; allow lists the path's methods.
func notAllowed(method, allow string) *apiError {
	return &apiError{status: 405, code: "MethodNotAllowedError", message: method + " is not allowed", allow: &allow}
}

// allowedHeaders are the headers that a web page may send: the headers that this server reads, and
// the headers that the older image servers (restify's, dsapid) allow to their web interfaces.
const allowedHeaders = "Accept, Accept-Language, Accept-Version, Api-Version, Authorization, Cache-Control, Content-Language, " +
	"Content-Length, Content-MD5, Content-Type, Date, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, " +
	"Origin, Pragma, Range, Request-Id, Response-Time, X-Api-Version, X-CSRF-Token, X-PINGOTHER, X-Request-Id, X-Requested-With"

// options answers OPTIONS, a web page's preflight included.
func (req *request) options(allow string) error {
	req.ctx.SetStatusCode(fasthttp.StatusNoContent)
	req.set(hdrAllow, allow)
	if req.record.route.open {
		req.set(hdrAllowMethods, allow)
		req.set(hdrAllowHeaders, allowedHeaders)
		req.set(hdrMaxAge, "86400")
	}
	return nil
}
