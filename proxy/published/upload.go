package published

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"imgmirror/verify"
)

// errNotStored ends the writing of an upload that the store will not have.
var errNotStored = errors.New("the file is not stored")

// upload is the bytes of a file on their way from one who writes them, once, to
// a store that opens them. What the store does not read is thrown away: it may
// have the bytes from elsewhere.
type upload struct {
	size int64
	r    *io.PipeReader
	w    *io.PipeWriter

	mu     sync.Mutex // guards what follows
	opened bool
	broke  error // why reading ended before the upload did
	failed bool  // the store has ended without the file
}

func newUpload(size int64) *upload {
	u := &upload{size: size}
	u.r, u.w = io.Pipe()
	return u
}

// Write waits until the store has read p or needs no more. It fails with
// errNotStored once the store has given up.
func (u *upload) Write(p []byte) (int, error) {
	n, err := u.w.Write(p)
	if err == nil {
		return n, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed {
		return n, errNotStored
	}
	return len(p), nil
}

// end says that nothing follows; err tells why, if it is not the file's end.
func (u *upload) end(err error) { u.w.CloseWithError(err) } //nolint:errcheck // always nil

// over says that the store has ended, and how.
func (u *upload) over(err error) {
	u.mu.Lock()
	u.failed = err != nil
	u.mu.Unlock()
	u.r.Close() //nolint:errcheck // always nil
}

// open is an Open. The second time it fails for good, and in such a way that
// nothing is kept for later: the sender has no other copy to send, and when he
// comes again he begins from the start.
func (u *upload) open(ctx context.Context, offset int64) (*verify.Stream, error) {
	u.mu.Lock()
	again, broke := u.opened, u.broke
	u.opened = true
	u.mu.Unlock()
	switch {
	case again && broke != nil:
		return nil, fmt.Errorf("%w: the upload broke off: %w: %w", verify.ErrMismatch, broke, fs.ErrPermission)
	case again:
		return nil, fmt.Errorf("%w: the upload ended too early: %w", verify.ErrMismatch, fs.ErrPermission)
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
		b.u.mu.Lock()
		b.u.broke = err
		b.u.mu.Unlock()
	}
	return n, err
}

// Close lets the writer go on without a reader.
func (b *uploadBody) Close() error {
	b.stop()
	return b.u.r.Close()
}
