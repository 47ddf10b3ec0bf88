package proxy

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// tokenByte has the bytes of a header's name.
var tokenByte = func() (is [256]bool) {
	for c := range is {
		is[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
			c < 0x80 && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return is
}()

var (
	nameLength   = []byte("Content-Length")
	nameEncoding = []byte("Transfer-Encoding")

	nameVia        = []byte("Via")
	nameConnection = []byte("Connection")
	nameIfMatch    = []byte("If-Match")
	nameNoneMatch  = []byte("If-None-Match")
)

// head is what one look at the lines of a request's header finds: the headers by which most clients get
// their reply.
type head struct {
	encoding []byte // Accept-Encoding, nil = absent
	version  []byte // Accept-Version, nil = absent
	match    []byte // If-None-Match, nil = absent
	named    bool   // the client may have named the request: x-request-id or request-id
	odd      bool   // another header may change the reply, or one of the above is there twice
	// connection: there is a Connection or an Expect header.
	connection bool
}

// note takes in one line of the header. The value has no space around it.
func (h *head) note(name, value []byte) {
	var is *[]byte
	switch len(name) {
	case len("Via"):
		h.odd = h.odd || bytes.EqualFold(name, nameVia)
	case len("If-Match"):
		h.odd = h.odd || bytes.EqualFold(name, nameIfMatch)
	case len("Expect"):
		h.connection = h.connection || bytes.EqualFold(name, hdrExpect)
	case len("Request-Id"): // and of Connection
		h.named = h.named || bytes.EqualFold(name, hdrRequestID[len("X-"):])
		h.connection = h.connection || bytes.EqualFold(name, nameConnection)
	case len("X-Request-Id"):
		h.named = h.named || bytes.EqualFold(name, hdrRequestID)
	case len("If-None-Match"):
		if bytes.EqualFold(name, nameNoneMatch) {
			is = &h.match
		}
	case len("Accept-Version"):
		if bytes.EqualFold(name, valueVersion) {
			is = &h.version
		}
	case len("Accept-Encoding"):
		if bytes.EqualFold(name, valueEncoding) {
			is = &h.encoding
		}
	}
	if is != nil {
		h.odd = h.odd || *is != nil
		if *is = value; value == nil {
			*is = []byte{} // empty, not absent
		}
	}
}

// wellFormed refuses requests that a server in front of this one may read in another way than
// fasthttp, which takes more than RFC 9112 allows. Both servers must agree where one request ends
// and the next begins. fasthttp itself refuses space before a colon, a second Host or
// Content-Length, and Transfer-Encoding in HTTP/1.0. wellFormed cannot see a request line that ends
// in a bare LF. found is of a request that is not refused.
func wellFormed(ctx *fasthttp.RequestCtx) (found head, refused *apiError) {
	h := &ctx.Request.Header
	switch version := string(h.Protocol()); version {
	case "HTTP/1.1":
		if len(h.Host()) == 0 {
			return found, badRequest("the request has no Host header")
		}
	case "HTTP/1.0":
	default:
		return found, &apiError{status: fasthttp.StatusHTTPVersionNotSupported, code: "HttpVersionNotSupportedError",
			message: "this server speaks HTTP/1.1 and HTTP/1.0"}
	}
	var sized, framed bool // by Content-Length, by Transfer-Encoding
	for rest := h.RawHeaders(); len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 1 || rest[end-1] != '\r' {
			return found, badRequest("a line of the request's header does not end in CR LF")
		}
		line := rest[:end-1]
		rest = rest[end+1:]
		if len(line) == 0 {
			break
		}
		name := 0
		for name < len(line) && tokenByte[line[name]] {
			name++
		}
		if name == 0 || name == len(line) || line[name] != ':' {
			return found, badRequest("a line of the request's header has no proper name")
		}
		for _, c := range line[name+1:] {
			if c < ' ' && c != '\t' || c == 0x7f {
				return found, badRequest("a line of the request's header has a control character")
			}
		}
		found.note(line[:name], bytes.Trim(line[name+1:], " \t"))
		switch name {
		case len(nameLength):
			sized = sized || bytes.EqualFold(line[:name], nameLength)
		case len(nameEncoding):
			framed = framed || bytes.EqualFold(line[:name], nameEncoding)
		}
	}
	if framed && (sized || ctx.IsGet() || ctx.IsHead()) {
		return found, badRequest("the request's length is not clear")
	}
	return found, nil
}
