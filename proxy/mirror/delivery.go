package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"imgmirror/cache"
	"imgmirror/verify"
)

const (
	// joinTries is how often a download is begun anew that was joined and has failed.
	joinTries = 5
	// deliveryBuffer is how much of a file is taken from its sender at a time.
	deliveryBuffer = 512 << 10
)

// ErrBroke is matched when the sender of a file gave fewer bytes than announced.
var ErrBroke = errors.New("the file broke off")

// delivery is bytes of a file on their way from a request to the store. The request has the bytes
// once. The store opens and reads a pipe; the goroutine of the request writes to the pipe.
type delivery struct {
	name    string // of the bytes, in errors
	at, end int64  // of the bytes in the file
	size    int64  // of the file
	whole   bool   // bytes that came before a break are of no use
	// check judges the bytes once the store lacks only the last ones; an error keeps these from the
	// store. nil: the store judges.
	check func() error

	r      *io.PipeReader
	w      *io.PipeWriter
	wanted chan struct{} // closed by the first open
	opened atomic.Bool   // the store has got a stream; set under mu

	mu    sync.Mutex // guards what follows
	next  int64      // offset of the byte that the store takes next
	broke error      // why there are no more bytes, or why they are of no use
}

func newDelivery(name string, at, end, size int64) *delivery {
	d := &delivery{name: name, at: at, end: end, size: size, wanted: make(chan struct{})}
	d.r, d.w = io.Pipe()
	return d
}

// deliver has the store take a blob from d, whose bytes body gives, or find the blob elsewhere. The
// file stays until the Reader is closed. body is read only when the store wants the bytes, and as
// far as the store wants them.
func (m *Mirror) deliver(ctx context.Context, blob cache.Blob, source string, d *delivery, body io.Reader) (r *cache.Reader, err error) {
	from := []cache.Source{{Name: source, Open: d.open, FromStart: d.whole, Once: true}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err = m.fileStored(ctx, blob, from)
		// Another request, whose download was joined, may have broken off.
		for n := 1; n < joinTries && errors.Is(err, verify.ErrUnavailable) && !d.opened.Load() && ctx.Err() == nil; n++ {
			r, err = m.fileStored(ctx, blob, from)
		}
		d.r.Close() //nolint:errcheck // always nil
	}()
	select {
	case <-d.wanted:
		d.send(body)
	case <-done:
	}
	<-done
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil && d.broke != nil {
		err = d.broke
	}
	return r, err
}

// fileStored gives a file once the file is verified.
func (m *Mirror) fileStored(ctx context.Context, blob cache.Blob, from []cache.Source) (*cache.Reader, error) {
	r, err := m.store.File(ctx, blob, from)
	if err != nil {
		return nil, err
	}
	if err := r.Stored(ctx); err != nil {
		r.Close() //nolint:errcheck // nothing was read
		return nil, err
	}
	return r, nil
}

// send writes body to the pipe as long as the store reads.
func (d *delivery) send(body io.Reader) {
	buf := make([]byte, min(deliveryBuffer, d.end-d.at))
	for rest := d.end - d.at; rest > 0; {
		n, err := body.Read(buf[:min(rest, int64(len(buf)))])
		rest -= int64(n)
		if rest == 0 && d.check != nil {
			if wrong := d.check(); wrong != nil {
				d.fail(wrong)
				return
			}
		}
		if _, gone := d.w.Write(buf[:n]); gone != nil {
			return // the store wants no more
		}
		if err != nil && rest > 0 {
			d.fail(fmt.Errorf("%w: at byte %d of %d: %w", ErrBroke, d.end-rest, d.end, err))
			return
		}
	}
	d.w.Close() //nolint:errcheck // always nil
}

// fail ends the bytes.
func (d *delivery) fail(err error) {
	d.mu.Lock()
	d.broke = cmp.Or(d.broke, fmt.Errorf("%s: %w", d.name, err))
	d.mu.Unlock()
	d.w.CloseWithError(err) //nolint:errcheck // always nil
}

// open is the Open of a cache.Source: it gives the bytes from offset on. A refusal is final, as the
// bytes come only once. The store drops what came before if the refusal matches verify.ErrMismatch.
func (d *delivery) open(ctx context.Context, offset int64) (*verify.Stream, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case errors.Is(d.broke, verify.ErrMismatch):
		return nil, fmt.Errorf("%w: %w", d.broke, fs.ErrPermission)
	case d.opened.Load() && d.whole:
		return nil, fmt.Errorf("%w: %s has no more bytes: %w", verify.ErrMismatch, d.name, fs.ErrPermission)
	case d.opened.Load() && offset < d.next:
		return nil, fmt.Errorf("what was here of %s before was wrong, and its bytes come only once: send it again: %w", d.name, fs.ErrPermission)
	case d.opened.Load():
		return nil, fmt.Errorf("%s has no more bytes: %w", d.name, fs.ErrPermission)
	case offset < d.at || offset >= d.end:
		d.broke = fmt.Errorf("%w: bytes %d to %d of %s came, byte %d is wanted", ErrOffset, d.at, d.end, d.name, offset)
		return nil, fmt.Errorf("%w: %w", d.broke, fs.ErrPermission)
	}
	d.opened.Store(true)
	d.next = offset
	close(d.wanted)
	end := func() { d.r.CloseWithError(context.Cause(ctx)) } //nolint:errcheck // always nil
	body := &deliveryBody{d: d, ctx: ctx, stop: context.AfterFunc(ctx, end), skip: offset - d.at}
	return &verify.Stream{ReadCloser: body, Size: d.size}, nil
}

// deliveryBody is what the store reads. Its reads end when the store's context does.
type deliveryBody struct {
	d    *delivery
	ctx  context.Context
	stop func() bool
	skip int64 // bytes that the store has, and that the sender sends
}

func (b *deliveryBody) Read(buf []byte) (int, error) {
	n, err := b.d.r.Read(buf)
	if errors.Is(err, io.ErrClosedPipe) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	if errors.Is(err, verify.ErrStalled) {
		b.d.fail(fmt.Errorf("%w: %w", ErrBroke, err))
	}
	over := int(min(b.skip, int64(n)))
	b.skip -= int64(over)
	n = copy(buf, buf[over:n])
	b.d.mu.Lock()
	b.d.next += int64(n)
	b.d.mu.Unlock()
	return n, err
}

// Close lets the sender go on without a reader.
func (b *deliveryBody) Close() error {
	b.stop()
	return b.d.r.Close()
}
