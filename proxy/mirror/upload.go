package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

// checkHead is Manifest.CheckHead, but for compressed files whose first bytes cannot be
// decompressed: these bytes tell nothing, and pass. The verb, which has the whole file at hand,
// refuses such a file.
func checkHead(image manifest.Manifest, h verify.Head) error {
	if h.Broken != nil {
		h.Broken, h.Inside = nil, ""
	}
	if err := image.CheckHead(h); err != nil {
		return fmt.Errorf("%w: %w", verify.ErrMismatch, err)
	}
	return nil
}

// receive brings the file of an image to disk and notes the image as its owner. The file is hashed
// here in addition, so that a wrong file is refused whatever the store makes of it: the bytes of
// the manifest may have been on disk before.
func (m *Mirror) receive(ctx context.Context, image manifest.Manifest, file io.Reader) error {
	in := bufio.NewReaderSize(file, verify.HeadSize)
	head, err := verify.ReadHead(in)
	if err != nil {
		return fmt.Errorf("reading the file: %w", err)
	}
	if err := checkHead(image, head); err != nil {
		return err
	}
	want := verify.Want{SHA1: image.Files[0].SHA1, Size: image.Files[0].Size}
	up := newUpload(want.Size)
	type stored struct {
		*cache.Reader
		err error
	}
	done := make(chan stored, 1)
	go func() {
		r, err := m.storeUpload(ctx, image, up)
		up.over(err)
		done <- stored{r, err}
	}()
	hash := verify.NewWriter()
	defer hash.Close()
	_, readErr := io.Copy(io.MultiWriter(hash, up), in)
	up.w.CloseWithError(readErr) //nolint:errcheck // always nil
	there := <-done
	if there.err == nil {
		defer there.Close() //nolint:errcheck // nothing was read
	}
	switch {
	case errors.Is(readErr, errNotStored):
		return there.err
	case readErr != nil:
		return fmt.Errorf("reading the file: %w", readErr)
	}
	if err := want.Check(hash.Digests()); err != nil {
		return fmt.Errorf("the file is not the manifest's: %w", err)
	}
	if there.err != nil {
		return there.err
	}
	return m.own(image)
}

// storeUpload brings an upload through the cache's door: the file stays until the Reader is closed.
// The blob's manifest tells the origin, which must stay meanwhile, and no more: own notes the image
// once the bytes are known to be right.
func (m *Mirror) storeUpload(ctx context.Context, image manifest.Manifest, up *upload) (*cache.Reader, error) {
	blob := ownBlob(image)
	blob.Manifest = manifest.Manifest{Origin: image.Origin}
	r, err := m.store.File(ctx, blob, []cache.Source{{Name: own.Published, Open: up.open, FromStart: true, Once: true}})
	if err != nil {
		return nil, err
	}
	if err := r.Stored(ctx); err != nil {
		r.Close() //nolint:errcheck // nothing was read
		return nil, err
	}
	return r, nil
}

// errNotStored ends the writing of an upload that the store will not have.
var errNotStored = errors.New("the file is not stored")

// upload is the bytes of a file on their way from a request, which writes them once, to the store,
// which opens them once. What the store does not read is thrown away: the store may have the bytes
// from elsewhere.
type upload struct {
	size   int64
	r      *io.PipeReader
	w      *io.PipeWriter
	broke  atomic.Pointer[error] // not nil: the upload was opened, and this is why there are no more bytes
	failed atomic.Bool           // the store has ended without the file
}

var errTooShort = errors.New("the upload ended too early")

func newUpload(size int64) *upload {
	u := &upload{size: size}
	u.r, u.w = io.Pipe()
	return u
}

// Write waits until the store has read p or needs no more. It fails with errNotStored once the
// store has given up.
func (u *upload) Write(p []byte) (int, error) {
	n, err := u.w.Write(p)
	switch {
	case err == nil:
		return n, nil
	case u.failed.Load():
		return n, errNotStored
	}
	return len(p), nil
}

// over says that the store has ended, and how.
func (u *upload) over(err error) {
	u.failed.Store(err != nil)
	u.r.Close() //nolint:errcheck // always nil
}

// open is an Open of cache.Source. A second call fails for good, and in such a way that nothing is
// kept for later: the sender sends a file once, and another upload begins from the start.
func (u *upload) open(ctx context.Context, offset int64) (*verify.Stream, error) {
	if !u.broke.CompareAndSwap(nil, &errTooShort) {
		return nil, fmt.Errorf("%w: %w: %w", verify.ErrMismatch, *u.broke.Load(), fs.ErrPermission)
	}
	body := &uploadBody{u: u, ctx: ctx, stop: context.AfterFunc(ctx, func() { u.r.Close() })} //nolint:errcheck // always nil
	if _, err := io.CopyN(io.Discard, body, offset); err != nil {
		body.Close() //nolint:errcheck // always nil
		return nil, fmt.Errorf("upload: skip to %d: %w", offset, err)
	}
	return &verify.Stream{ReadCloser: body, Size: u.size}, nil
}

// uploadBody is what the store reads. Its reads end when the store's context does.
type uploadBody struct {
	u    *upload
	ctx  context.Context
	stop func() bool
}

func (b *uploadBody) Read(p []byte) (int, error) {
	n, err := b.u.r.Read(p)
	if errors.Is(err, io.ErrClosedPipe) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		broke := fmt.Errorf("the upload broke off: %w", err)
		b.u.broke.Store(&broke)
	}
	return n, err
}

// Close lets the writer go on without a reader.
func (b *uploadBody) Close() error {
	b.stop()
	return b.u.r.Close()
}
