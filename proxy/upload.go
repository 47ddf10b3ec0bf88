package proxy

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

const (
	// maxManifest is the largest manifest that a client may bring.
	maxManifest = 128 << 10
	// maxUpload is the largest file that a client may bring (spec 0).
	maxUpload = 20 << 30
	// maxUploads bounds the files that come at the same time, maxUploadsOf those of one address.
	maxUploads   = 4
	maxUploadsOf = 2
	// uploadMemory is what one upload takes of Options.Memory: what is read at a time.
	uploadMemory = 640 << 10
	// manifestMemory is what a manifest takes of Options.Memory, per byte of its text.
	manifestMemory = 4
	// writeTimeout bounds a write without a file: the origin may be looked up, the list is saved.
	writeTimeout = time.Minute
)

// errSlowBody is matched when a body comes slower than a step in Options.ClientStall.
var errSlowBody = errors.New("the body does not arrive in time")

// uploads counts the files that are coming.
type uploads struct {
	gauge prometheus.Gauge

	mu  sync.Mutex
	all int
	of  map[netip.Addr]int
}

// begin counts one more upload of that address, until done; false: there are too many.
func (u *uploads) begin(addr netip.Addr) (done func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all >= maxUploads || u.of[addr] >= maxUploadsOf {
		return nil, false
	}
	if u.of == nil {
		u.of = make(map[netip.Addr]int)
	}
	u.count(addr, 1)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.count(addr, -1)
	}, true
}

func (u *uploads) count(addr netip.Addr, n int) {
	u.all += n
	if u.of[addr] += n; u.of[addr] == 0 {
		delete(u.of, addr)
	}
	u.gauge.Set(float64(u.all))
}

// importImage answers POST /images/UUID?action=import.
func (s *Server) importImage(req *request, by mirror.Writer) error {
	id, err := idOf(req)
	if err != nil {
		return err
	}
	if _, named := param(parseParams(req.query), "source"); named {
		return notImplemented("images are not copied from another server by request: name the server in sources")
	}
	return s.beginImage(req, by, id, func(text []byte) ([]byte, error) { return text, nil })
}

// createImage answers POST /images: an import of an image that gets its uuid here.
func (s *Server) createImage(req *request, by mirror.Writer) error {
	id := uuid.New()
	return s.beginImage(req, by, id, func(text []byte) ([]byte, error) { return manifest.WithUUID(text, id) })
}

// beginImage imports the image of which the request's body is the manifest, as complete makes it.
func (s *Server) beginImage(req *request, by mirror.Writer, id uuid.UUID, complete func([]byte) ([]byte, error)) error {
	length := req.ctx.Request.Header.ContentLength()
	if length > maxManifest {
		return manifestTooLarge()
	}
	if err := plainBody(req); err != nil || req.headOnly {
		return err
	}
	booked := int64(length)
	if length < 0 {
		booked = maxManifest
	}
	if err := s.reserve(req, manifestMemory*booked); err != nil {
		return err
	}
	defer s.memory.give(manifestMemory * booked)
	w := s.wait(s.forClient(req), req, writeTimeout)
	defer req.endWait(w)
	text, err := io.ReadAll(io.LimitReader(s.bodyOf(w, req, w), maxManifest+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", mirror.ErrBroke, err)
	case len(text) > maxManifest:
		return manifestTooLarge()
	}
	if sum := md5.Sum(text); req.header("Content-MD5") != "" && req.header("Content-MD5") != base64.StdEncoding.EncodeToString(sum[:]) {
		return &apiError{status: 400, code: "BadDigestError", message: "the manifest is not what its Content-MD5 says"}
	}
	if text, err = complete(text); err == nil {
		err = s.inChannel(req, text)
	}
	if err != nil {
		return err
	}
	image, err := s.opts.Writes.Import(w, by, id, text)
	if err != nil {
		return err
	}
	s.json(req, image.JSON())
	return nil
}

func manifestTooLarge() error {
	return &apiError{status: 413, code: codeTooLarge, message: fmt.Sprintf("the manifest has more than %d bytes", maxManifest)}
}

// inChannel refuses a channel of the query that the image will not be in: the manifest alone says in
// which channels the image is.
func (s *Server) inChannel(req *request, text []byte) error {
	list := s.catalog.Current()
	asked := namedChannel(list, parseParams(req.query))
	if asked == "" || asked == "*" {
		return nil
	}
	if _, _, err := channelOf(list, parseParams(req.query)); err != nil {
		return err
	}
	image, err := manifest.ParseUnactivated(text)
	if err != nil {
		return err
	}
	channels := image.Manifest().Channels
	if len(channels) == 0 && asked == list.DefaultChannel() {
		return nil
	}
	for _, c := range channels {
		if c == asked {
			return nil
		}
	}
	return &apiError{status: 422, code: codeValidationFailed, message: "the manifest does not name channel " + asked,
		fields: []fieldError{{Field: "channel", Code: "Invalid"}}}
}

// addFile answers PUT /images/UUID/file.
func (s *Server) addFile(req *request, by mirror.Writer) error {
	id, err := idOf(req)
	if err != nil {
		return err
	}
	u, err := uploadOf(req)
	if err == nil {
		err = plainBody(req)
	}
	if err != nil {
		return err
	}
	if req.headOnly {
		return s.opts.Writes.AwaitsFile(by, id, u)
	}
	done, ok := s.uploads.begin(by.Address)
	if !ok {
		s.metrics.uploadsRefused.Inc()
		return &apiError{status: 429, code: meaning.TooMany, message: "too many files are being uploaded", retry: draftsRetry}
	}
	defer done()
	if err := s.reserve(req, uploadMemory); err != nil {
		return err
	}
	defer s.memory.give(uploadMemory)
	cl := req.client
	cl.sending.Store(true)
	defer cl.sending.Store(false)
	w := s.wait(s.forClient(req), req, 0)
	defer req.endWait(w)
	u.Body = func(ctx context.Context) io.Reader { return s.bodyOf(ctx, req, w) }
	image, err := s.opts.Writes.AddFile(w, by, id, u)
	if err != nil {
		return err
	}
	s.json(req, image.JSON())
	return nil
}

// uploadOf reads what the head of a request tells of its file.
func uploadOf(req *request) (u mirror.Upload, err error) {
	params := parseParams(req.query)
	if req.segs[2] != "file" {
		return u, notImplemented("images that are published here have one file")
	}
	if _, named := param(params, "source"); named {
		return u, notImplemented("files are not copied from another server by request")
	}
	var named bool
	if u.Compression, named = param(params, "compression"); !named {
		return u, invalidParameter("compression", "compression is missing: gzip, bzip2, xz or none")
	}
	if text, _ := param(params, "sha1"); text != "" {
		if u.SHA1, err = verify.ParseSum(text); err != nil {
			return u, invalidParameter("sha1", "sha1 is not the 40 hexadecimal digits of a sha1")
		}
	}
	u.GUID, _ = param(params, "dataset_guid")
	if len(u.GUID) > maxGUID {
		return u, invalidParameter("dataset_guid", "dataset_guid is too long")
	}
	switch length := req.ctx.Request.Header.ContentLength(); {
	case length > maxUpload:
		return u, &apiError{status: 400, code: codeTooBig, message: fmt.Sprintf("the file has %d bytes, at most %d are taken", length, int64(maxUpload))}
	case length == 0, length == noLength:
		return u, &apiError{status: 411, code: "LengthRequiredError", message: "the request has no file: send Content-Length, or chunks"}
	case length > 0:
		u.Size = int64(length)
	}
	return u, nil
}

// maxGUID is the most digits that the GUID of a dataset may have.
const maxGUID = 40

// plainBody refuses a body in a content coding: sums and sizes are those of the bytes that are sent.
func plainBody(req *request) error {
	if coding := req.header("Content-Encoding"); coding != "" && coding != "identity" {
		return &apiError{status: 415, code: "UnsupportedMediaTypeError", message: "a body with Content-Encoding is not taken"}
	}
	return nil
}

// arriving is the body of a request on its way in. A step of the body must arrive within
// Options.ClientStall; the time in which nobody reads does not count.
type arriving struct {
	ctx  context.Context
	req  *request
	wait *wait
	from io.Reader

	mu      sync.Mutex // guards the read's deadline
	reading bool

	length int64         // -1: in chunks
	got    int64         // bytes
	step   int64         // bytes that the present step lacks
	time   time.Duration // that the present step has left
	whole  time.Duration // time of a step
}

// bodyOf reads the request's body until ctx ends; w is the wait of the request. Only the goroutine of the request may read.
func (s *Server) bodyOf(ctx context.Context, req *request, w *wait) io.Reader {
	from := req.ctx.RequestBodyStream()
	if from == nil {
		from = bytes.NewReader(nil)
	}
	b := &arriving{
		ctx: ctx, req: req, wait: w, from: from,
		length: int64(req.ctx.Request.Header.ContentLength()),
		step:   step, time: s.opts.ClientStall, whole: s.opts.ClientStall,
	}
	context.AfterFunc(ctx, b.interrupt)
	return b
}

// interrupt ends a read that waits.
func (b *arriving) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reading {
		_ = b.req.ctx.SetReadDeadline(time.Unix(1, 0))
	}
}

// begin sets the deadline of a read, which interrupt may change until end.
func (b *arriving) begin(deadline time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	b.reading = true
	return b.req.ctx.SetReadDeadline(deadline)
}

func (b *arriving) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
}

// Read gives io.EOF at the end of the body only.
func (b *arriving) Read(p []byte) (int, error) {
	began := time.Now()
	if err := b.begin(began.Add(b.time)); err != nil {
		return 0, err
	}
	n, err := b.from.Read(p)
	b.end()
	b.req.record.received += int64(n)
	b.got += int64(n)
	b.step -= int64(n)
	if b.time -= time.Since(began); b.step <= 0 {
		b.step, b.time = step, b.whole
	}
	b.time = max(b.time, time.Millisecond) // bytes that have arrived are read
	switch {
	case err == nil:
		return n, nil
	case b.ctx.Err() != nil:
		err = context.Cause(b.ctx)
	case errors.Is(err, io.EOF) && b.got < b.length: // fasthttp tells no difference
		err = io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		b.wait.whole.Store(true)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errSlowBody
	}
	return n, err
}
