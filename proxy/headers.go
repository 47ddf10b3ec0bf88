package proxy

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"
)

// Names of the reply's headers as they go out.
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
	valueBytes      = []byte("bytes")
	valueEncoding   = []byte("Accept-Encoding")
	valueExposed    = []byte("Accept-Ranges, Api-Version, Content-Length, Content-MD5, Content-Range, Date, ETag, Retry-After, X-Cache, X-Request-Id, X-Response-Time, X-Server-Name")
	valueGzip       = []byte("gzip")
	valueVersion    = []byte("Accept-Version")

	valueEncodingVersion = []byte("Accept-Encoding, Accept-Version")

	headIfModified   = []byte("If-Modified-Since")
	headIfUnmodified = []byte("If-Unmodified-Since")
	headIfRange      = []byte("If-Range")
	headRange        = []byte("Range")
)

// set sets a header of the reply; key is written as it stands.
func (req *request) set(key []byte, value string) {
	req.ctx.Response.Header.SetCanonical(key, []byte(value))
}

// setKey is set for a value that is bytes already.
func (req *request) setKey(key, value []byte) {
	req.ctx.Response.Header.SetCanonical(key, value)
}

// header is a copy of a request header's value; "" when it is absent.
func (req *request) header(key string) string {
	return string(req.ctx.Request.Header.Peek(key))
}

// requestID is the client's x-request-id or request-id if it is sane: 1 to 128
// printable ASCII characters without spaces. Else it is a fresh UUID.
func requestID(h *fasthttp.RequestHeader) string {
	for _, key := range [...]string{"X-Request-Id", "Request-Id"} {
		id := h.Peek(key)
		if 0 < len(id) && len(id) <= 128 && !bytes.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return string(id)
		}
	}
	return uuid.NewString()
}

// validators are what conditional requests are compared with.
type validators struct {
	etag     string    // strong, unquoted; "" = not known, matches "*" only
	modified time.Time // zero = not known; date conditions are ignored then
}

// precondition evaluates the conditional headers of a GET or HEAD in the order
// of RFC 9110 13.2.2: 0 to go on, else 304 or 412.
func precondition(h *fasthttp.RequestHeader, v validators) int {
	if tags := tagList(h, "If-Match"); tags != "" {
		if !matchTags(tags, v.etag) {
			return fasthttp.StatusPreconditionFailed
		}
	} else if since, ok := httpDate(h.PeekBytes(headIfUnmodified)); ok && !v.modified.IsZero() {
		if v.modified.Truncate(time.Second).After(since) {
			return fasthttp.StatusPreconditionFailed
		}
	}
	if tags := tagList(h, "If-None-Match"); tags != "" {
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

// tagList is all of a header that may come in several lines.
func tagList(h *fasthttp.RequestHeader, key string) string {
	lines := h.PeekAll(key)
	if len(lines) == 1 {
		return string(lines[0])
	}
	return string(bytes.Join(lines, []byte(",")))
}

// hasDateCondition tells that precondition will need validators.modified.
func hasDateCondition(h *fasthttp.RequestHeader) bool {
	return len(h.PeekBytes(headIfModified)) > 0 || len(h.PeekBytes(headIfUnmodified)) > 0
}

// httpDate reads a date of any of the three forms of RFC 9110.
func httpDate(b []byte) (time.Time, bool) {
	if len(b) == 0 {
		return time.Time{}, false
	}
	t, err := http.ParseTime(string(b))
	return t, err == nil
}

// matchTags tells whether a list of entity tags has etag, or is "*". Tags may be quoted,
// W/-prefixed or bare (spec 2.6: servers and clients of this protocol write them all three ways).
func matchTags(list, etag string) bool {
	for {
		list = strings.TrimLeft(list, " \t,")
		if list == "" {
			return false
		}
		var tag string
		weak := strings.TrimPrefix(list, "W/")
		if quoted, ok := strings.CutPrefix(weak, `"`); ok {
			tag, list, _ = strings.Cut(quoted, `"`)
		} else {
			tag, list, _ = strings.Cut(weak, ",")
			tag = strings.TrimRight(tag, " \t")
			if tag == "*" {
				return true
			}
		}
		if tag == etag && etag != "" {
			return true
		}
	}
}

// condition answers 304 or sets 412 when the request's conditions say so; done
// tells that there is nothing left to send.
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

// setETag sends a strong validator, quoted; "" sends none.
func (req *request) setETag(etag string) {
	if etag != "" {
		b := make([]byte, 0, len(etag)+2)
		b = append(b, '"')
		b = append(b, etag...)
		req.setKey(hdrETag, append(b, '"'))
	}
}

// setLastModified sends t; the zero time sends nothing.
func (req *request) setLastModified(t time.Time) {
	if !t.IsZero() {
		req.setKey(hdrLastModified, fasthttp.AppendHTTPDate(nil, t))
	}
}

// document sends a document made for this request, or 304 or 412 by the request's conditions.
func (s *Server) document(req *request, body []byte) error {
	etag := tagOf(body)
	if done, err := req.condition(validators{etag: etag}); done {
		return err
	}
	s.json(req, body, etag)
	return nil
}

// json sends body, which must not change any more, with its validator.
func (s *Server) json(req *request, body []byte, etag string) {
	req.setKey(hdrContentType, typeJSON)
	req.setETag(etag)
	req.ctx.Response.SetBodyRaw(body)
	s.allowTime(req, len(body))
}

// slowest is the rate, in bytes a second, below which a client counts as stalled in the middle of a
// big list. (Files have a deadline that moves with them; here one for the whole reply has to do.)
const slowest = 16 << 10

// allowTime gives the reply time by its size, where it is more than a small one.
func (s *Server) allowTime(req *request, size int) {
	if size > slowest {
		extra := time.Duration(size/slowest) * time.Second
		_ = req.ctx.SetWriteDeadline(time.Now().Add(s.opts.ClientStall + extra)) // fails only on a connection that is gone
	}
}

// acceptsGzip reads an Accept-Encoding header.
func acceptsGzip(header string) bool {
	for coding := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(weight), " ", ""), "q=")
		return !found || strings.Trim(q, "0.") != ""
	}
	return false
}
