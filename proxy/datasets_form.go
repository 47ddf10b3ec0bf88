package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"sync"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// datasetsCache keeps whole lists in their v1 form, one for each channel that
// clients name. Clients choose the base of the URLs in it by their Host header: that
// is put in while a list is sent, so that no base costs room or a list of its own.
type datasetsCache struct {
	mu     sync.Mutex
	images []manifest.Manifest             // what forms are made of
	forms  map[string]func() *datasetsForm // by channel, "" for none; each builds its form at the first call
}

// datasetsForm is a list without the base of its URLs: a zero byte, which is in no
// JSON, stands in its place. It is immutable.
type datasetsForm struct {
	text  []byte
	tag   string
	bases int // zero bytes
}

// maxForms bounds the channels of which lists are kept.
const maxForms = 16

// get gives the form of a view of list for a channel. The first who wants it builds
// it, others wait for that.
func (c *datasetsCache) get(list *catalog.List, view *catalog.View, channel string) *datasetsForm {
	c.mu.Lock()
	if !sameImages(c.images, list.Images()) {
		c.images, c.forms = list.Images(), nil
	}
	form, ok := c.forms[channel]
	if !ok {
		if c.forms == nil || len(c.forms) >= maxForms {
			c.forms = make(map[string]func() *datasetsForm)
		}
		form = sync.OnceValue(func() *datasetsForm { return newForm(visibleDatasets(view), channel) })
		c.forms[channel] = form
	}
	c.mu.Unlock()
	return form()
}

// newForm builds a form with a base that no manifest can have in it.
func newForm(images []manifest.Manifest, channel string) *datasetsForm {
	base := []byte("http://" + rand.Text())
	text := bytes.ReplaceAll(buildDatasets(images, string(base), channel), base, []byte{0})
	return &datasetsForm{text: text, tag: tagOf(text), bases: bytes.Count(text, []byte{0})}
}

// size is the length of the list with that base.
func (f *datasetsForm) size(base string) int { return len(f.text) + f.bases*(len(base)-1) }

// etag is the validator of the list with that base.
func (f *datasetsForm) etag(base string) string { return tagOf([]byte(f.tag + " " + base)) }

// sendForm sends a list with its base.
func (s *Server) sendForm(req *request, form *datasetsForm, base, etag string) {
	req.setKey(hdrContentType, typeJSON)
	req.setETag(etag)
	size := form.size(base)
	if req.ctx.IsHead() {
		req.ctx.Response.Header.SetContentLength(size)
		return
	}
	req.ctx.Response.SetBodyStream(&formBody{server: s, rest: form.text, base: base, left: size, record: req.record}, size)
	s.allowTime(req, size)
}

// formBody is the body of a reply with a list. Its end is the end of the request.
type formBody struct {
	server *Server
	rest   []byte // of the form
	base   string
	due    string // of a base that is being given out
	sent   int64
	left   int
	err    error
	record *record
}

// Read implements io.Reader.
func (b *formBody) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && b.left > 0 {
		if b.due != "" {
			c := copy(p[n:], b.due)
			b.due = b.due[c:]
			n, b.left = n+c, b.left-c
			continue
		}
		window := b.rest[:min(len(b.rest), len(p)-n)]
		zero := bytes.IndexByte(window, 0)
		if zero >= 0 {
			window = window[:zero]
		}
		c := copy(p[n:], window)
		b.rest = b.rest[c:]
		n, b.left = n+c, b.left-c
		if zero >= 0 {
			b.rest, b.due = b.rest[1:], b.base
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// formBuffers are what lists are put together in.
var formBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// WriteTo implements io.WriterTo.
func (b *formBody) WriteTo(w io.Writer) (int64, error) {
	buf, ok := formBuffers.Get().(*[64 << 10]byte)
	if !ok {
		return 0, errors.New("proxy: a pool with something else in it")
	}
	defer formBuffers.Put(buf)
	for {
		n, err := b.Read(buf[:])
		if errors.Is(err, io.EOF) {
			return b.sent, nil
		}
		n, err = w.Write(buf[:n])
		b.sent += int64(n)
		if err != nil {
			b.err = err
			return b.sent, err
		}
	}
}

// Close ends the request: the access log gets its line.
func (b *formBody) Close() error {
	if b.left > 0 && b.err == nil {
		b.err = errNotSent
	}
	b.server.finish(b.record, b.sent, b.err)
	return nil
}
