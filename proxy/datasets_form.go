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

// datasetsCache keeps whole lists in their v1 form, one for each channel that clients name. Clients
// choose the base of a list's URLs by their Host header. sendForm puts the base in while it sends,
// so that all bases share one list.
type datasetsCache struct {
	mu     sync.Mutex
	images []manifest.Manifest             // the images in forms
	forms  map[string]func() *datasetsForm // by channel, "" for none; the first call builds a form
}

// datasetsForm is an immutable list without the base of its URLs. A zero byte, which no JSON
// contains, stands for the base.
type datasetsForm struct {
	text  []byte
	tag   string
	bases int // zero bytes
}

// maxForms bounds the channels whose lists are kept.
const maxForms = 16

// get gives the form of a view of list for a channel. The first caller builds the form, others wait
// for the first.
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

// newForm builds a form by way of a random base, which no manifest can contain.
func newForm(images []manifest.Manifest, channel string) *datasetsForm {
	base := []byte("http://" + rand.Text())
	text := bytes.ReplaceAll(buildDatasets(images, string(base), channel), base, []byte{0})
	return &datasetsForm{text: text, tag: tagOf(text), bases: bytes.Count(text, []byte{0})}
}

// size is the length of the list with base.
func (f *datasetsForm) size(base string) int { return len(f.text) + f.bases*(len(base)-1) }

// etag is the validator of the list with base.
func (f *datasetsForm) etag(base string) string { return tagOf([]byte(f.tag + " " + base)) }

// sendForm sends form with base and its validator.
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

// formBody is the body of a reply with a list. Close of the body ends the request.
type formBody struct {
	server *Server
	rest   []byte // of the form
	base   string
	due    string // the rest of a base that Read has begun
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

// formBuffers are the buffers in which WriteTo puts lists together.
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

// Close ends the request and writes its line in the access log.
func (b *formBody) Close() error {
	if b.left > 0 && b.err == nil {
		b.err = errNotSent
	}
	b.server.finish(b.record, b.sent, b.err)
	return nil
}
