package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/proxy/eventloop"
)

const (
	// maxEventLoops bounds the event loops. Each loop keeps a thread of the operating system.
	maxEventLoops = 8
	// turn is how many requests of one connection are answered before other connections have their turn. Replies of more
	// than smallBody end the turn, too: a client that takes no reply holds these, and one more reply of the largest.
	turn = 16
)

// startLoops starts the event loops, which have the connections while all of their requests are quick: a loop for every
// second of Go's processors. The others are for all else, and for the clients on the same machine. nil = each connection
// has a goroutine, as always under TLS.
func (s *Server) startLoops(ln net.Listener) {
	if _, tcp := ln.(*net.TCPListener); !tcp || s.opts.TLSConfig != nil {
		return
	}
	processors := runtime.GOMAXPROCS(0)
	loops, err := eventloop.New(eventloop.Options{
		Loops:     min(max(1, processors/2), maxEventLoops),
		Yield:     processors == 1,
		NewAnswer: func() eventloop.Answer { return newAtOnce(s).answer },
		First:     readTimeout,
		Idle:      idleTimeout,
		Answered:  func(c *eventloop.Conn) { s.conns.changed(c, fasthttp.StateIdle) },
		Ended:     s.ended,
		Left:      s.resume,
	})
	if err != nil {
		if !errors.Is(err, eventloop.ErrUnsupported) {
			s.log.Warn("small answers are slower until a restart", "error", err)
		}
		return
	}
	s.loops = loops
}

// ended forgets a connection that ended in an event loop.
func (s *Server) ended(c *eventloop.Conn, err error) {
	if err != nil {
		s.log.Debug("connection ended", "remote", c.RemoteAddr(), "error", err)
	}
	s.conns.remove(c, err)
}

// resume serves a connection that has left the event loops, on the connection's own goroutine. With a client that was
// too slow for its replies, and then asks no more, the connection goes back to the loops.
func (s *Server) resume(c *eventloop.Conn, conn net.Conn, unsent []byte, last bool) {
	s.conns.moved(c, conn)
	if len(unsent) == 0 {
		s.serveConn(conn)
		return
	}
	err := conn.SetWriteDeadline(time.Now().Add(s.opts.ClientStall))
	if err == nil {
		_, err = conn.Write(unsent)
	}
	if err != nil || last {
		_ = conn.Close() // the kernel has all replies, or wants none
		s.conns.remove(conn, err)
		return
	}
	s.conns.changed(conn, fasthttp.StateIdle)
	if _, plain := conn.(*net.TCPConn); !plain {
		s.serveConn(conn)
		return
	}
	s.conns.moved(conn, c)
	if err := s.loops.Add(c); err != nil {
		_ = conn.Close() // between two requests a connection may end
		s.ended(c, err)
	}
}

// serveConn serves a connection to its end.
func (s *Server) serveConn(conn net.Conn) {
	// ServeConn closes conn. ServeConn's error is of the last request, which has its line in the access log, or of a
	// client that sent no request.
	err := s.http.ServeConn(conn)
	if err != nil {
		s.log.Debug("connection ended", "remote", conn.RemoteAddr(), "error", err)
	}
	s.conns.remove(conn, err)
}

// atOnce answers requests that are quick, with the bytes that fasthttp's own loop would send. All of the memory is the
// loop's, so that a connection between two requests needs next to none.
type atOnce struct {
	server *Server
	ctx    fasthttp.RequestCtx
	in     bytes.Reader
	br     *bufio.Reader
	out    bytes.Buffer
	bw     *bufio.Writer
	clock  httpClock
	file   eventloop.File // the body of the last reply
	begun  bool           // a request of this Answer has been answered
}

func newAtOnce(s *Server) *atOnce {
	a := &atOnce{server: s}
	a.br = bufio.NewReaderSize(&a.in, readBuffer)
	a.bw = bufio.NewWriterSize(&a.out, writeBuffer)
	return a
}

// answer is an eventloop.Answer.
func (a *atOnce) answer(c *eventloop.Conn, in []byte) eventloop.Replies {
	a.in.Reset(in)
	a.br.Reset(&a.in)
	a.out.Reset()
	a.begun = false
	read := 0
	replies := func(then eventloop.Then) eventloop.Replies {
		r := eventloop.Replies{Read: read, Bytes: a.out.Bytes(), File: a.file, Then: then}
		a.file = eventloop.File{} // which may be of a list that is replaced soon
		return r
	}
	for n := 0; n < turn && a.out.Len() <= smallBody; n++ {
		last, ok := a.one(c)
		if !ok {
			break
		}
		read = len(in) - a.unread()
		switch {
		case last:
			return replies(eventloop.Close)
		case read == len(in):
			return replies(eventloop.Wait)
		}
	}
	return replies(eventloop.Leave)
}

// unread is the number of bytes behind the requests that were read.
func (a *atOnce) unread() int { return a.in.Len() + a.br.Buffered() }

// one answers the next request. ok is false, and nothing is sent or noted, for a request that is not whole, and for one
// that is not quick.
func (a *atOnce) one(c *eventloop.Conn) (last, ok bool) {
	s, ctx := a.server, &a.ctx
	ctx.Init2(c, s.http.Logger, false)
	defer func() {
		ctx.Request.Reset()
		ctx.Response.Reset()
	}()
	header := &ctx.Request.Header
	if header.Read(a.br) != nil {
		return false, false
	}
	found, refused := wellFormed(ctx)
	if refused != nil || !plainRequest(header, &found) {
		return false, false
	}
	id := ""
	if found.named {
		id = requestID(header)
	}
	req := s.noted(ctx, id)
	req.atOnce = true
	q, ok := s.quickly(req, &found)
	if !ok || q.file != nil && a.unread() > 0 {
		return false, false
	}
	if !a.begun { // the client becomes idle after the last of the replies
		a.begun, req.last = true, s.conns.begin(req.client)
	}
	if a.again(req, &q) {
		return false, true
	}
	ctx.Response.Header.SetNoDefaultContentType(true)
	ctx.Response.Header.SetServer(s.http.Name)
	s.firstHeaders(req)
	s.fill(req, &q)
	s.finishHeader(req)
	if q.file != nil {
		a.beginFile(req, &q)
	} else {
		s.finish(req.record, req.bodySize(), nil)
	}
	begin := a.out.Len()
	a.bw.Reset(&a.out)
	ctx.Response.SkipBody = ctx.IsHead() || q.file != nil
	_ = ctx.Response.Write(a.bw) // to memory
	_ = a.bw.Flush()
	if last = ctx.Response.ConnectionClose(); !last && ctx.IsGet() && q.headers != nil {
		if h := newPreparedHeader(a.out.Bytes()[begin:], req.record.id); h != nil {
			headersOf(q.headers).of(&q).Store(h)
		}
	}
	return last, true
}

// again answers with the header of an earlier reply. false: nothing has happened. There is no such header, or the
// request needs another one.
func (a *atOnce) again(req *request, q *quickReply) bool {
	s, r := a.server, req.record
	if q.headers == nil || req.last || s.conns.draining.Load() || !req.ctx.IsGet() || len(r.id) != idLength {
		return false
	}
	h := headersOf(q.headers).of(q).Load()
	if h == nil {
		return false
	}
	now := time.Now()
	took := now.Sub(r.start)
	if took >= 10*time.Millisecond {
		return false
	}
	r.route, r.path, r.status = q.route, q.path, fasthttp.StatusOK
	body := q.body
	if q.unchanged {
		r.status, body = fasthttp.StatusNotModified, nil
	}
	a.out.Write(h.append(a.out.AvailableBuffer(), a.clock.at(now), r.id, took))
	if q.file != nil {
		a.beginFile(req, q)
		return true
	}
	s.finishAt(now, r, int64(len(body)), nil)
	a.out.Write(body)
	return true
}

// beginFile has the loop send the body of q from a file. The connection tells the end of the reply.
func (a *atOnce) beginFile(req *request, q *quickReply) {
	c := req.client
	c.whole = wholeBody{server: a.server, client: c, text: q.body, apart: true, byLoop: true}
	a.server.memory.hold(c, req.imagesKind(q.channel, q.encoding), sharedOf(q.reply.Account, len(q.body)))
	a.file = eventloop.File{File: q.file, Size: int64(len(q.body)), Time: c.whole.time()}
}

// plainRequest tells whether a request says nothing of its connection, has no body, and names a plain host. Whatever is
// refused for its host, fasthttp refuses.
func plainRequest(h *fasthttp.RequestHeader, found *head) bool {
	length := h.ContentLength()
	return h.IsHTTP11() && (length == 0 || length == noLength) && plainHost(h.Host()) &&
		(!found.connection || !h.ConnectionClose() && !h.ConnectionUpgrade() && len(h.PeekBytes(hdrExpect)) == 0)
}

// plainHost tells whether a Host header is a name or an IPv4 address, with a port or without.
func plainHost(host []byte) bool {
	name, port, _ := bytes.Cut(host, []byte(":"))
	for _, c := range name {
		if !plainHostByte[c] {
			return false
		}
	}
	for _, c := range port {
		if c < '0' || '9' < c {
			return false
		}
	}
	return len(name) > 0
}

var plainHostByte = func() (is [256]bool) {
	for c := range is {
		is[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '.' || c == '-' || c == '_'
	}
	return is
}()

// quickly is quickReply, and false after a panic: a loop must go on, and dispatch answers the request. Nothing else
// that a loop does asks the catalogue.
func (s *Server) quickly(req *request, found *head) (q quickReply, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "panic", p, "request_id", req.record.id, "stack", string(debug.Stack()))
			ok = false
		}
	}()
	return s.quickReply(req, found)
}
