package proxy

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/proxy/catalog"
)

// preparedHeaders are the headers of the replies with one prepared body, for GET.
type preparedHeaders struct {
	whole, unchanged atomic.Pointer[preparedHeader]
}

// preparedHeader is the header of a reply as fasthttp has written it, to be sent again with another date, id and time.
type preparedHeader struct {
	text           []byte
	date, id, took int // where the values begin
}

const dateLength = len("Mon, 02 Jan 2006 15:04:05 GMT")

// headersOf are the headers that a has.
func headersOf(a *catalog.Account) *preparedHeaders {
	for {
		if h, ok := a.Load().(*preparedHeaders); ok {
			return h
		}
		a.CompareAndSwap(nil, new(preparedHeaders))
	}
}

// of is the place of the header of q.
func (h *preparedHeaders) of(q *quickReply) *atomic.Pointer[preparedHeader] {
	if q.unchanged {
		return &h.unchanged
	}
	return &h.whole
}

// newPreparedHeader is the header that begins reply, the reply to a request with that id; nil for a header that
// cannot be sent again with other values.
func newPreparedHeader(reply []byte, id string) *preparedHeader {
	end := bytes.Index(reply, []byte("\r\n\r\n"))
	if end < 0 || len(id) != idLength {
		return nil
	}
	h := &preparedHeader{text: bytes.Clone(reply[:end+4])}
	ok := true
	place := func(name []byte, length int) (at int) {
		line := append(append([]byte("\r\n"), name...), ": "...)
		at = bytes.Index(h.text, line) + len(line)
		ok = ok && at >= len(line) && bytes.HasPrefix(h.text[min(at+length, len(h.text)):], []byte("\r\n"))
		return at
	}
	h.date, h.id, h.took = place([]byte(fasthttp.HeaderDate), dateLength), place(hdrRequestID, idLength), place(hdrResponseTime, 1)
	if !ok || string(h.text[h.id:h.id+idLength]) != id {
		return nil
	}
	return h
}

// append appends the header with these values. id has idLength, date is that of now, and took is below 10 ms.
func (h *preparedHeader) append(b []byte, date []byte, id string, took time.Duration) []byte {
	begin := len(b)
	b = append(b, h.text...)
	text := b[begin:]
	copy(text[h.date:], date)
	copy(text[h.id:], id)
	text[h.took] = '0' + byte(took.Milliseconds())
	return b
}

// httpClock is the text of the present second, for one goroutine.
type httpClock struct {
	second int64 // since 1970
	text   []byte
}

// at is the Date header at t.
func (c *httpClock) at(t time.Time) []byte {
	if second := t.Unix(); second != c.second || len(c.text) == 0 {
		c.second, c.text = second, fasthttp.AppendHTTPDate(c.text[:0], t)
	}
	return c.text
}
