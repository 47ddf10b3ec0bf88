package proxy

import (
	"bytes"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"
)

// Names of the reply's headers as they are sent.
var (
	hdrAcceptRanges = []byte("Accept-Ranges")
	hdrAllow        = []byte("Allow")
	hdrAllowHeaders = []byte("Access-Control-Allow-Headers")
	hdrAllowMethods = []byte("Access-Control-Allow-Methods")
	hdrAllowOrigin  = []byte("Access-Control-Allow-Origin")
	hdrAPIVersion   = []byte("Api-Version")
	hdrCache        = []byte("X-Cache")
	hdrContentMD5   = []byte("Content-MD5")
	hdrContentRange = []byte("Content-Range")
	hdrContentType  = []byte("Content-Type")
	hdrETag         = []byte("ETag")
	hdrExpect       = []byte("Expect")
	hdrExpose       = []byte("Access-Control-Expose-Headers")
	hdrEncoding     = []byte("Content-Encoding")
	hdrLastModified = []byte("Last-Modified")
	hdrMaxAge       = []byte("Access-Control-Max-Age")
	hdrRequestID    = []byte("X-Request-Id")
	hdrRetryAfter   = []byte("Retry-After")
	hdrResponseTime = []byte("X-Response-Time")
	hdrServerName   = []byte("X-Server-Name")
	hdrVary         = []byte("Vary")
	hdrVia          = []byte("Via")
	typeJSON        = []byte("application/json") // without a charset: imgadm compares the whole value
	typeOctetStream = []byte("application/octet-stream")
	typeText        = []byte("text/plain")
	valueAny        = []byte("*")
	valueAPIVersion = []byte(apiVersion)
	valueBytes      = []byte("bytes")
	valueEncoding   = []byte("Accept-Encoding")
	valueExposed    = []byte("Accept-Ranges, Api-Version, Content-Length, Content-MD5, Content-Range, Date, ETag, Retry-After, X-Cache, X-Request-Id, X-Response-Time, X-Server-Name")
	valueVersion    = []byte("Accept-Version")

	valueEncodingVersion = []byte("Accept-Encoding, Accept-Version")

	headIfModified   = []byte("If-Modified-Since")
	headIfUnmodified = []byte("If-Unmodified-Since")
	headIfRange      = []byte("If-Range")
	headRange        = []byte("Range")
)

// set sets a header of the reply and writes key unchanged.
func (req *request) set(key []byte, value string) {
	req.buf = append(req.buf[:0], value...)
	req.setKey(key, req.buf)
}

// setKey is set for a value in bytes.
func (req *request) setKey(key, value []byte) {
	req.ctx.Response.Header.SetCanonical(key, value)
}

// header is a copy of a request header's value; an absent header gives "".
func (req *request) header(key string) string {
	return string(req.ctx.Request.Header.Peek(key))
}

// requestID is the client's x-request-id or request-id, the first of the two with 1 to 128
// printable ASCII characters and no spaces; "" without such a header.
func requestID(h *fasthttp.RequestHeader) string {
	for _, key := range [...]string{"X-Request-Id", "Request-Id"} {
		id := h.Peek(key)
		if 0 < len(id) && len(id) <= 128 && !bytes.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return string(id)
		}
	}
	return ""
}

// validators are the values that conditional requests are compared with.
type validators struct {
	etag     string    // strong, unquoted; "" = unknown, matches "*" only
	modified time.Time // zero = unknown, date conditions are ignored
}

// precondition evaluates the conditional headers of a GET or HEAD in the order of RFC 9110 13.2.2.
// The result is 0 to go on, else 304 or 412.
func precondition(h *fasthttp.RequestHeader, v validators) int {
	if tags := tagList(h, "If-Match"); len(tags) > 0 {
		if !matchTags(tags, v.etag) {
			return fasthttp.StatusPreconditionFailed
		}
	} else if since, ok := httpDate(h.PeekBytes(headIfUnmodified)); ok && !v.modified.IsZero() {
		if v.modified.Truncate(time.Second).After(since) {
			return fasthttp.StatusPreconditionFailed
		}
	}
	if tags := tagList(h, "If-None-Match"); len(tags) > 0 {
		if matchTags(tags, v.etag) {
			return fasthttp.StatusNotModified
		}
	} else if since, ok := httpDate(h.PeekBytes(headIfModified)); ok && !v.modified.IsZero() {
		if !v.modified.Truncate(time.Second).After(since) {
			return fasthttp.StatusNotModified
		}
	}
	return 0
}

// tagList is the value of a header that may have several lines, joined by commas.
func tagList(h *fasthttp.RequestHeader, key string) []byte {
	lines := h.PeekAll(key)
	if len(lines) == 1 {
		return lines[0]
	}
	return bytes.Join(lines, []byte(","))
}

// hasDateCondition tells whether precondition may need validators.modified.
func hasDateCondition(h *fasthttp.RequestHeader) bool {
	return len(h.PeekBytes(headIfModified)) > 0 || len(h.PeekBytes(headIfUnmodified)) > 0
}

// httpDate reads a date in any of the three forms of RFC 9110; false for other text.
func httpDate(b []byte) (time.Time, bool) {
	if len(b) == 0 {
		return time.Time{}, false
	}
	t, err := http.ParseTime(string(b))
	return t, err == nil
}

// matchTags tells whether a list of entity tags has etag, or is "*". Tags may be quoted,
// W/-prefixed or bare (spec 2.6: servers and clients of this protocol write all three forms).
func matchTags(list []byte, etag string) bool {
	for {
		list = bytes.TrimLeft(list, " \t,")
		if len(list) == 0 {
			return false
		}
		list = bytes.TrimPrefix(list, weakTag)
		tag := list
		if len(list) > 0 && list[0] == '"' {
			tag, list = cutByte(list[1:], '"')
		} else {
			tag, list = cutByte(list, ',')
			tag = bytes.TrimRight(tag, " \t")
			if string(tag) == "*" {
				return true
			}
		}
		if string(tag) == etag && etag != "" {
			return true
		}
	}
}

// weakTag begins a weak entity tag.
var weakTag = []byte("W/")

// cutByte gives what is before and after the first sep; without sep, all and nothing.
func cutByte(b []byte, sep byte) (before, after []byte) {
	if i := bytes.IndexByte(b, sep); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// condition evaluates the request's conditions. A 304 is set in the reply, a 412 is the error; both
// come with done, which tells that the reply has no body of its own.
func (req *request) condition(v validators) (done bool, err error) {
	switch precondition(&req.ctx.Request.Header, v) {
	case fasthttp.StatusNotModified:
		req.ctx.SetStatusCode(fasthttp.StatusNotModified)
		req.setETag(v.etag)
		return true, nil
	case fasthttp.StatusPreconditionFailed:
		return true, &apiError{status: 412, code: "PreconditionFailedError", message: "the image is not in the state that was asked for"}
	}
	return false, nil
}

// setETag sends a strong validator in quotes; "" sends no header.
func (req *request) setETag(etag string) {
	if etag != "" {
		req.buf = append(req.buf[:0], '"')
		req.buf = append(req.buf, etag...)
		req.buf = append(req.buf, '"')
		req.setKey(hdrETag, req.buf)
	}
}

// setLastModified sends t; the zero time sends no header.
func (req *request) setLastModified(t time.Time) {
	if !t.IsZero() {
		req.setKey(hdrLastModified, fasthttp.AppendHTTPDate(nil, t))
	}
}

// document sends what form makes for this request, or 304 or 412 by the request's conditions. text
// is the length of the stored text behind the body, by which the memory for a big body is booked
// before form runs.
func (s *Server) document(req *request, text int, form func() []byte) error {
	body := &listBody{server: s}
	defer func() {
		if body.record == nil && body.own > 0 { // the body has no later end
			s.memory.give(body.own)
		}
	}()
	book := func(size int) error {
		more := int64(size) - body.own
		if size <= smallBody || more <= 0 {
			return nil
		}
		err := s.reserve(req, more)
		if err == nil {
			body.own += more
		}
		return err
	}
	if err := book(2 * text); err != nil { // a form may be larger than its text
		return err
	}
	made := form()
	if err := book(len(made)); err != nil {
		return err
	}
	etag := tagOf(made)
	if done, err := req.condition(validators{etag: etag}); done {
		return err
	}
	body.rest, body.left = made, len(made)
	if len(made) > smallBody {
		body.rest = bytes.Clone(made) // else a slow client keeps the whole list that made is a part of
	}
	s.send(req, body, etag)
	return nil
}

// json sends a body of the server's own, which never changes.
func (s *Server) json(req *request, body []byte) {
	req.setKey(hdrContentType, typeJSON)
	req.ctx.Response.SetBodyRaw(body)
}
