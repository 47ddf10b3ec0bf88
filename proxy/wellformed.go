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
)

// wellFormed refuses requests that a server in front of this one may read in another way than
// fasthttp, which takes more than RFC 9112 allows. Both servers must agree where one request ends
// and the next begins. fasthttp itself refuses space before a colon, a second Host or
// Content-Length, and Transfer-Encoding in HTTP/1.0. wellFormed cannot see a request line that ends
// in a bare LF.
func wellFormed(ctx *fasthttp.RequestCtx) *apiError {
	h := &ctx.Request.Header
	switch version := string(h.Protocol()); version {
	case "HTTP/1.1":
		if len(h.Host()) == 0 {
			return badRequest("the request has no Host header")
		}
	case "HTTP/1.0":
	default:
		return &apiError{status: fasthttp.StatusHTTPVersionNotSupported, code: "HttpVersionNotSupportedError",
			message: "this server speaks HTTP/1.1 and HTTP/1.0"}
	}
	var sized, framed bool // by Content-Length, by Transfer-Encoding
	for rest := h.RawHeaders(); len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 1 || rest[end-1] != '\r' {
			return badRequest("a line of the request's header does not end in CR LF")
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
			return badRequest("a line of the request's header has no proper name")
		}
		for _, c := range line[name+1:] {
			if c < ' ' && c != '\t' || c == 0x7f {
				return badRequest("a line of the request's header has a control character")
			}
		}
		switch name {
		case len(nameLength):
			sized = sized || bytes.EqualFold(line[:name], nameLength)
		case len(nameEncoding):
			framed = framed || bytes.EqualFold(line[:name], nameEncoding)
		}
	}
	if framed && (sized || ctx.IsGet() || ctx.IsHead()) {
		return badRequest("the request's length is not clear")
	}
	return nil
}
