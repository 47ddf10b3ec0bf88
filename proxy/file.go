package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// getFile answers GET /images/:uuid/file[?index=N] and /images/:uuid/fileN.
func (s *Server) getFile(req *request) error {
	e, err := s.visibleImage(req)
	if err != nil {
		return err
	}
	index, _ := fileIndex(req.segs[2])
	if req.segs[2] == "file" && req.query != "" {
		text, _ := param(parseParams(req.query), "index")
		index = leadingInt(text)
	}
	return s.sendFile(req, e, index)
}

// leadingInt reads the digits at the start of s; no digits give 0. A number out of range gives the
// greatest int32, beyond the files of any image.
func leadingInt(s string) int {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	n, _ := strconv.ParseUint(digits, 10, 31) // out of range: the greatest
	return int(n)
}

// getNamedFile answers GET /datasets/:uuid/:path and GET /:uuid/:path with the file that has the
// path in the image's DSAPI manifest, else with the file that the path is an alias of.
func (s *Server) getNamedFile(req *request) error {
	image, path := req.segs[len(req.segs)-2], req.segs[len(req.segs)-1]
	id, ok := manifest.ParseUUID(image)
	if !ok {
		return notFound("%s does not exist", req.target)
	}
	e, err := s.datasetEntry(req, id, parseParams(req.query))
	if err != nil {
		return err
	}
	index, ok := namedFile(e.Manifest, path)
	if !ok {
		return notFound("%s does not exist", req.target)
	}
	return s.sendFile(req, e, index)
}

// namedFile finds the file of m with path, one of m.FilePaths and never a path of the disk. The
// aliases of fileIndex (file, file0, fileN) come after the paths.
func namedFile(m manifest.Manifest, path string) (index int, ok bool) {
	if i := slices.Index(m.FilePaths(), path); i >= 0 {
		return i, true
	}
	index, ok = fileIndex(path)
	return index, ok && index < len(m.Files)
}

// sendFile sends file index of an image, or the part of the file that the request wants.
func (s *Server) sendFile(req *request, e catalog.Entry, index int) error {
	m := e.Manifest
	if index >= len(m.Files) {
		return notFound("image %s has no file %d", m.UUID, index)
	}
	var v validators
	if sum := m.Files[index].SHA1; !sum.IsZero() {
		v.etag = sum.String()
	}
	head := &req.ctx.Request.Header
	if v.etag == "" || hasDateCondition(head) {
		info, stored := s.files.Stored(e, index)
		v.modified = modified(info, m)
		if stored {
			v.etag = info.Digests.SHA1.String()
		}
	}
	if done, err := req.condition(v); done {
		return err
	}
	if req.ctx.IsHead() {
		return s.headFile(req, e, index, v)
	}

	ctx, done := s.unlessCircular(req, e, index)
	defer done()
	absent := fmt.Sprintf("image %s has no file %d at its source", m.UUID, index)
	r, err := s.open(ctx, req, !s.opts.StreamOnMiss, absent, func(ctx context.Context) (*cache.Reader, error) {
		return s.files.Open(ctx, e, index, cache.Client, req.reader())
	})
	if err != nil {
		return err
	}
	info, size := r.Info(), r.Size()
	if v.etag == "" && !info.Digests.SHA1.IsZero() {
		v.etag = info.Digests.SHA1.String()
	}
	v.modified = modified(info, m)
	part, whole, satisfiable := wantedSpan(head, size, v)
	if !satisfiable {
		r.Close()
		req.set(hdrContentRange, "bytes */"+strconv.FormatInt(size, 10))
		return &apiError{status: 416, code: "RequestedRangeNotSatisfiableError", message: "the file has only " + strconv.FormatInt(size, 10) + " bytes"}
	}
	if whole {
		if err := s.announceMD5(req, r); err != nil {
			return s.explain(err, absent)
		}
	}
	req.fileHeaders(v, r.Result())
	req.setKey(hdrAcceptRanges, valueBytes)
	if !whole {
		req.ctx.SetStatusCode(fasthttp.StatusPartialContent)
		req.set(hdrContentRange, part.contentRange(size))
	}
	r.SeekTo(part.start)
	req.record.first, req.record.size = part.start, size
	if index == 0 {
		req.record.image = m.UUID
	}
	body := &fileBody{
		server: s,
		conn:   req.ctx.Conn(),
		reader: r,
		left:   part.length,
		record: req.record,
	}
	req.ctx.Response.SetBodyStream(body, int(part.length))
	// The headers go out at once: the first bytes of a fill may take long.
	req.ctx.Response.ImmediateHeaderFlush = r.Result() != cache.Hit
	return nil
}

// headFile answers HEAD from the manifest and the file on disk, and starts no fill.
func (s *Server) headFile(req *request, e catalog.Entry, index int, v validators) error {
	info, stored := s.files.Stored(e, index)
	if !stored {
		if err := s.obtain(req, e); err != nil {
			return err
		}
	}
	result, size := cache.Miss, e.Manifest.Files[index].Size
	if stored {
		result, size = cache.Hit, info.Digests.Size
		v.etag = info.Digests.SHA1.String()
		req.setMD5(info.Digests.MD5[:])
	}
	v.modified = modified(info, e.Manifest)
	req.fileHeaders(v, result)
	req.setKey(hdrAcceptRanges, valueBytes)
	if size > 0 {
		req.ctx.Response.Header.SetContentLength(int(size))
	}
	return nil
}

// modified is the date of a file: the source's date, else the image's (spec 2.6).
func modified(info cache.Info, m manifest.Manifest) time.Time {
	if !info.ModTime.IsZero() {
		return info.ModTime
	}
	return m.Published
}

// fileHeaders sets the headers of every reply with a file or an icon.
func (req *request) fileHeaders(v validators, result cache.Result) {
	req.record.cache = string(result)
	req.set(hdrCache, string(result))
	req.setKey(hdrContentType, typeOctetStream)
	req.setETag(v.etag)
	req.setLastModified(v.modified)
}

// announceMD5 sends the md5 of the whole of r, and closes r if that fails. A file that has just been found
// right, and has no claim of an md5, is as good as one on disk, of which the node's tools demand
// the header: the reply waits for the digest.
func (s *Server) announceMD5(req *request, r *cache.Reader) error {
	w := s.wait(s.base, req, 0)
	defer req.endWait(w)
	sum, err := r.MD5(w)
	if err != nil {
		r.Close()
		if errors.Is(err, s.base.Err()) {
			err = errCut
		}
		return fmt.Errorf("wait for the md5: %w", err)
	}
	req.setMD5(sum)
	return nil
}

// setMD5 sends the md5 of a whole body; nil sends nothing.
func (req *request) setMD5(sum []byte) {
	if len(sum) > 0 {
		req.set(hdrContentMD5, base64.StdEncoding.EncodeToString(sum))
	}
}

// open gives the Reader that from opens. The error is ready for the client; absent is the message
// when no source has the bytes. With whole, open returns after the fill, when the digests of all
// bytes have been found right. Both waits end early when the client hangs up, and at the drain
// deadline.
func (s *Server) open(ctx context.Context, req *request, whole bool, absent string, from func(context.Context) (*cache.Reader, error)) (*cache.Reader, error) {
	r, err := s.awaitFirst(ctx, req, from)
	if err == nil && whole && r.Result() != cache.Hit {
		err = s.awaitWhole(req, r)
	}
	if err != nil {
		return nil, s.explain(err, absent)
	}
	return r, nil
}

// awaitFirst gives the Reader that from opens, as soon as bytes are known to come.
func (s *Server) awaitFirst(ctx context.Context, req *request, from func(context.Context) (*cache.Reader, error)) (*cache.Reader, error) {
	w := s.wait(ctx, req, openTimeout)
	defer req.endWait(w)
	r, err := from(w)
	if err != nil && errors.Is(context.Cause(w), errCircle) {
		err = errCircle
	}
	return r, err
}

// awaitWhole waits until all bytes of r have been found right, and closes r if the wait fails.
func (s *Server) awaitWhole(req *request, r *cache.Reader) error {
	w := s.wait(s.base, req, 0)
	defer req.endWait(w)
	r.SeekTo(r.Size() - 1)
	if _, err := r.WaitContext(w); err != nil {
		r.Close()
		if errors.Is(err, s.base.Err()) {
			err = errCut
		}
		return fmt.Errorf("wait for the whole file: %w", err)
	}
	r.SeekTo(0)
	return nil
}
