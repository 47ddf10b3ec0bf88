package proxy

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/eventloop"
)

// listReply is a reply with a prepared text, or with some of the text's elements.
type listReply struct {
	kind   textKind
	whole  []byte              // the prepared text
	shared *sharedText         // the account of whole
	text   *catalog.Text       // whole with the places of its elements; needed with picked and base
	picked *manifest.Selection // nil: all
	base   string              // of the URLs in a DSAPI form; else ""
	etag   string
}

// listOf is the whole of a prepared text.
func listOf(kind textKind, text *catalog.Text) listReply {
	return listReply{kind: kind, whole: text.JSON, shared: sharedOf(text.Account, text.Size()), text: text, etag: text.ETag}
}

// withBase is l with base in its URLs.
func (l listReply) withBase(base string) listReply {
	l.base, l.etag = base, tagOf([]byte(l.etag+" "+base))
	return l
}

// only is l with the picked elements. The elements give the validator: the filters of a query read
// fields outside of the text, such as billing tags.
func (l listReply) only(picked manifest.Selection) listReply {
	h := sha1.New()
	for i := range picked.All {
		h.Write(l.text.Sum(i))
	}
	h.Write([]byte(l.base))
	l.picked, l.etag = &picked, hex.EncodeToString(h.Sum(nil))
	return l
}

// length is the length of the body.
func (l listReply) length() int {
	perBase := len(l.base) - 1 // the text has one byte for each base
	if l.picked == nil {
		n := len(l.whole)
		if l.base != "" {
			n += l.text.AllBases() * perBase
		}
		return n
	}
	n, runs := len("[]"), 0
	for start, end := l.picked.Next(-1, -1); start < end; start, end = l.picked.Next(start, end) {
		n += len(l.text.Run(start, end)) + l.text.Bases(start, end)*perBase
		runs++
	}
	return n + max(runs-1, 0)*len(",\n")
}

// sendList sends l, or 304 or 412 by the request's conditions.
func (s *Server) sendList(req *request, l listReply) error {
	if done, err := req.condition(validators{etag: l.etag}); done {
		return err
	}
	return s.transmit(req, l)
}

// transmit sends l, whatever the request's conditions are.
func (s *Server) transmit(req *request, l listReply) error {
	size := l.length()
	if l.picked == nil && l.base == "" && size > smallBody && !req.ctx.IsHead() {
		s.sendWhole(req, l)
		return nil
	}
	body := &listBody{server: s, base: []byte(l.base), rest: l.whole, left: size}
	if l.picked != nil {
		body.text, body.picked, body.rest, body.stage = l.text, l.picked, nil, stageBegin
		body.own = int64(l.picked.Size())
	}
	if body.own > 0 && size > smallBody && !req.ctx.IsHead() {
		if err := s.reserve(req, body.own); err != nil {
			return err
		}
	}
	if s.send(req, body, l.etag) {
		body.shared = l.shared
		s.memory.hold(req.client, l.kind, l.shared)
	}
	return nil
}

// oneCall is how long a whole text may be to go out with its header by one writev(2): a system call for the header
// alone is dear for lists of usual size. The line of a longer text tells how many bytes went out before a client left.
const oneCall = 4 << 20

// sendWhole sends a whole text as it is; the reply is not HEAD's. Of a text that goes out with its header by one call
// the client's connection tells the end.
func (s *Server) sendWhole(req *request, l listReply) {
	req.setKey(hdrContentType, typeJSON)
	req.setETag(l.etag)
	c := req.client
	c.whole = wholeBody{server: s, client: c, text: l.whole}
	if len(l.whole) <= oneCall {
		c.whole.apart = true
		req.ctx.Response.SetBodyRaw(l.whole)
		_ = req.ctx.SetWriteDeadline(c.whole.deadline()) // fails if closed
	} else {
		req.ctx.Response.ImmediateHeaderFlush = true // the body goes past fasthttp's buffer
		req.ctx.Response.SetBodyStream(&c.whole, len(l.whole))
	}
	s.memory.hold(c, l.kind, l.shared)
}

// wholeBody is the body of a reply with a whole text. Close of the body ends the request. The body is the
// connection's own, until the connection's next whole text.
type wholeBody struct {
	server *Server
	client *client
	text   []byte
	apart  bool // fasthttp sends text by itself, or an event loop does; ended calls Close
	byLoop bool // an event loop sends text
	sent   int64
	err    error
}

// time is how long all of the body may take: a client below 16 KiB a second counts as stalled.
func (b *wholeBody) time() time.Duration {
	return b.server.opts.ClientStall + time.Duration(len(b.text)/(16<<10))*time.Second
}

// deadline is when all of the body has to be sent.
func (b *wholeBody) deadline() time.Time { return time.Now().Add(b.time()) }

// ended ends the request of a body that is sent apart, if one is under way: err is that of the connection. What
// the client has got of a reply with an error is not known, and counts as nothing.
func (b *wholeBody) ended(err error) {
	if !b.apart {
		return
	}
	b.apart = false
	if err == nil {
		b.sent = int64(len(b.text))
	} else {
		b.err = fmt.Errorf("%w (of a reply of %d bytes)", listError(b.client.reading.Load(), err), len(b.text))
	}
	_ = b.Close() // has no errors
}

// Read makes the body an io.Reader, as fasthttp demands; fasthttp itself uses WriteTo.
func (b *wholeBody) Read([]byte) (int, error) {
	return 0, errors.New("proxy: the body of a list is read by WriteTo")
}

// WriteTo sends the body by one write, under one deadline. The buffer of w is empty, and too small for a text.
func (b *wholeBody) WriteTo(w io.Writer) (int64, error) {
	err := b.client.nc.SetWriteDeadline(b.deadline())
	if err == nil {
		var n int
		n, err = w.Write(b.text)
		b.sent = int64(n)
	}
	if err != nil {
		b.err = listError(b.client.reading.Load(), err)
	}
	return b.sent, b.err
}

// Close ends the request: Close ends the hold on the text and writes the line of the access log.
func (b *wholeBody) Close() error {
	if b.sent < int64(len(b.text)) && b.err == nil {
		b.err = errNotSent
	}
	b.server.memory.release(b.client)
	b.server.finish(&b.client.record, b.sent, b.err)
	b.text = nil
	if !b.byLoop {
		runtime.Gosched() // see handle
	}
	return nil
}

// listError is the error of a client that reads text, or a body of its own.
func listError(text *sharedText, err error) error {
	if text != nil && text.state.Load() == textCut {
		err = errOldList
	}
	return fmt.Errorf("client: %w", err)
}

// send sends body with its validator. The result tells whether the body has an end of its own, after
// the handler: a small body is copied, and HEAD has none.
func (s *Server) send(req *request, body *listBody, etag string) (streamed bool) {
	size := body.left
	req.setKey(hdrContentType, typeJSON)
	req.setETag(etag)
	switch {
	case req.ctx.IsHead():
		req.ctx.Response.Header.SetContentLength(size)
	case size <= smallBody:
		for p := body.piece(size); p != nil; p = body.piece(size) {
			req.ctx.Response.AppendBody(p)
		}
	default:
		body.conn, body.client, body.record = req.ctx.Conn(), req.client, req.record
		if resumed, ok := body.conn.(*eventloop.Resumed); ok {
			body.conn = resumed.TCPConn // for writev(2)
		}
		_, body.direct = body.conn.(*net.TCPConn)
		req.ctx.Response.ImmediateHeaderFlush = body.direct // the body goes past fasthttp's buffer
		req.ctx.Response.SetBodyStream(body, size)
		return true
	}
	return false
}

// The stages of a listBody: what comes after rest. A body without picked elements is at its end.
const (
	stageEnd = iota
	stageBegin
	stageRun
	stageSeparator
)

// pieces is how many pieces of a body go out by one writev(2).
const pieces = 64

// listBody is the body of a reply with a list. Its bytes stay where they are, in the prepared text,
// and go out piece by piece. Close of the body ends the request.
type listBody struct {
	server *Server
	conn   net.Conn
	client *client
	shared *sharedText // that client reads; nil = the body has memory of its own
	direct bool        // conn takes several pieces by one system call
	record *record

	text       *catalog.Text
	picked     *manifest.Selection
	start, end int // the run of elements that comes next
	base       []byte
	rest       []byte // of the present part of the text
	stage      int

	own int64 // bytes of Options.Memory

	left   int
	sent   int64
	err    error
	vector [pieces][]byte
	out    net.Buffers // a part of vector
}

// piece gives the next bytes of the body, at most limit or a base; nil at the end.
func (b *listBody) piece(limit int) []byte {
	for len(b.rest) == 0 {
		if !b.advance() {
			return nil
		}
	}
	n := min(len(b.rest), limit)
	if len(b.base) > 0 {
		switch gap := bytes.IndexByte(b.rest[:n], 0); {
		case gap == 0:
			b.rest = b.rest[1:]
			return b.base
		case gap > 0:
			n = gap
		}
	}
	p := b.rest[:n]
	b.rest = b.rest[n:]
	return p
}

// advance makes rest the next part of the text; false at the end.
func (b *listBody) advance() bool {
	switch {
	case b.stage == stageBegin:
		b.rest, b.stage = []byte("["), stageRun
		b.start, b.end = b.picked.Next(-1, -1)
	case b.stage == stageSeparator:
		b.rest, b.stage = []byte(",\n"), stageRun
	case b.stage == stageRun && b.start < b.end:
		b.rest = b.text.Run(b.start, b.end)
		if b.start, b.end = b.picked.Next(b.start, b.end); b.start < b.end {
			b.stage = stageSeparator
		}
	case b.stage == stageRun:
		b.rest, b.stage = []byte("]"), stageEnd
	default:
		return false
	}
	return true
}

// Read makes the body an io.Reader, as fasthttp demands; fasthttp itself uses WriteTo.
func (b *listBody) Read(p []byte) (int, error) {
	return 0, errors.New("proxy: the body of a list is read by WriteTo")
}

// WriteTo sends the body. WriteTo fails when the client stalls, or when newer lists need the memory:
// fasthttp then closes the connection, and the client sees a body that is too short.
func (b *listBody) WriteTo(w io.Writer) (int64, error) {
	due := 0 // bytes until the next deadline
	for b.left > 0 {
		count, size := 0, 0
		for count < pieces && size < step {
			p := b.piece(step - size)
			if p == nil {
				break
			}
			b.vector[count] = p
			count++
			size += len(p)
		}
		if count == 0 {
			return b.sent, b.fail(io.ErrUnexpectedEOF)
		}
		if due <= 0 {
			due = step
			if err := b.conn.SetWriteDeadline(time.Now().Add(b.server.opts.ClientStall)); err != nil {
				return b.sent, b.fail(err)
			}
		}
		err := b.write(w, b.vector[:count])
		due -= size
		if err != nil {
			return b.sent, b.fail(err)
		}
		if b.shared != nil {
			b.shared.progress.Store(time.Now().UnixNano())
		}
	}
	return b.sent, nil
}

// write sends some pieces.
func (b *listBody) write(w io.Writer, some [][]byte) error {
	if b.direct {
		b.out = some
		n, err := b.out.WriteTo(b.conn)
		b.sent, b.left = b.sent+n, b.left-int(n)
		return err
	}
	for _, p := range some {
		n, err := w.Write(p)
		b.sent, b.left = b.sent+int64(n), b.left-n
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *listBody) fail(err error) error {
	b.err = listError(b.shared, err)
	return b.err
}

// Close ends the request: Close gives the body's memory back and writes the line of the access log.
func (b *listBody) Close() error {
	if b.left > 0 && b.err == nil {
		b.err = errNotSent
	}
	if b.shared != nil {
		b.server.memory.release(b.client)
	}
	if b.own > 0 {
		b.server.memory.give(b.own)
	}
	b.server.finish(b.record, b.sent, b.err)
	return nil
}
