package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"
	"time"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

const (
	// joinTries is how often a download is begun anew that was joined and has failed.
	joinTries = 5
	// takeBuffer is how much of a file is taken from its sender at a time.
	takeBuffer = 512 << 10
)

var (
	// ErrOffset is matched when bytes are sent that the mirror cannot go on with.
	ErrOffset = errors.New("the file is not wanted from there")
	// ErrBroke is matched when the sender of a file gave fewer bytes than announced.
	ErrBroke = errors.New("the file broke off")
)

// Take brings n bytes of a file to disk, from offset on, and tells how many bytes of the file are
// here then. The last bytes of a file complete its images. Bytes that came before a break are kept.
// An error that matches neither fs.ErrNotExist, ErrOffset, ErrBroke nor cache.ErrClosed refuses an
// image; other images of the bundle may still come. The caller ends the reads of body when ctx
// ends.
func (in *Import) Take(ctx context.Context, sum verify.Sum, offset, n int64, body io.Reader) (have int64, err error) {
	i, f, err := in.begin(sum)
	if err != nil {
		return 0, err
	}
	defer in.rest()
	file := in.index.Images[i].Files[f]
	if offset < 0 || n < 0 || n > file.Size || offset > file.Size-n {
		return 0, fmt.Errorf("%w: %d bytes from %d on, and %s has %d", ErrOffset, n, offset, file.Path, file.Size)
	}
	if n > 0 && !in.m.HasFile(file.Want()) {
		p := newPassing(file, offset, n)
		err = p.pass(ctx, body, func(open openFunc) error { return in.m.takeFile(ctx, in.images[i], f, file.Want(), open) })
	}
	have = in.have(in.index.Images[i])[f]
	switch {
	case err == nil, errors.Is(err, cache.ErrClosed), errors.Is(err, ErrOffset):
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case have >= offset+n: // the rest comes later
		err = nil
	case errors.Is(err, ErrBroke):
	default:
		if errors.Is(err, verify.ErrMismatch) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		err = fmt.Errorf("%s: %w", file.Path, err)
		in.mu.Lock()
		in.rows[i].State, in.rows[i].Err = ImageRefused, err
		in.mu.Unlock()
	}
	return have, errors.Join(err, in.took(ctx, sum, err != nil))
}

// place is a file of an image, by numbers in the index.
type place struct{ image, file int }

// begin finds the image that a file comes for: the first image without the file that is not
// refused. begin counts a request; rest ends the request.
func (in *Import) begin(sum verify.Sum) (image, file int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return 0, 0, noImport(in.id)
	}
	err = fmt.Errorf("no image of bundle %s has a file %s: %w", in.index.ID, sum, fs.ErrNotExist)
	var to *place
	for _, p := range in.places[sum] {
		row := in.rows[p.image]
		if row.State == ImageRefused {
			err = row.Err
			continue
		}
		if to = &p; row.Have[p.file] < in.index.Images[p.image].Files[p.file].Size {
			break
		}
	}
	if to == nil {
		return 0, 0, err
	}
	in.taking.Add(1)
	in.busy++
	return to.image, to.file, nil
}

// rest ends a request.
func (in *Import) rest() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.busy--
	in.last = time.Now()
	in.taking.Done()
}

// took notes what is here of a file, and records and lists the images which are complete by now.
func (in *Import) took(ctx context.Context, sum verify.Sum, broke bool) (err error) {
	for _, p := range in.places[sum] {
		have := in.have(in.index.Images[p.image])
		in.mu.Lock()
		in.rows[p.image].Have = have
		in.mu.Unlock()
		err = errors.Join(err, in.complete(p.image))
	}
	return errors.Join(err, in.list(ctx, broke)) // after a break no other request may come
}

// openFunc is the Open of a cache.Source.
type openFunc func(ctx context.Context, offset int64) (*verify.Stream, error)

// passing is bytes of a file on their way from a request to the store. The request has the bytes
// once. The store opens and reads a pipe; the goroutine of the request writes to the pipe.
type passing struct {
	path    string
	at, end int64     // of the bytes in the file
	size    int64     // of the file
	part    hash.Hash // of a whole part, which has a sum of its own; else nil
	sum     bundle.SHA256
	r       *io.PipeReader
	w       *io.PipeWriter
	wanted  chan struct{} // closed by the first open

	mu     sync.Mutex // guards what follows
	opened bool
	next   int64 // offset of the byte that the store takes next
	broke  error // why there are no more bytes, or why they are of no use
}

func newPassing(f bundle.File, at, n int64) *passing {
	p := &passing{path: f.Path, at: at, end: at + n, size: f.Size, wanted: make(chan struct{})}
	p.r, p.w = io.Pipe()
	begin := int64(0)
	for _, part := range f.Parts {
		if begin == at && part.Size == n {
			p.path, p.part, p.sum = part.Path, sha256.New(), part.SHA256
		}
		begin += part.Size
	}
	return p
}

// pass sends body while bring has the store take bytes, and ends with bring.
func (p *passing) pass(ctx context.Context, body io.Reader, bring func(openFunc) error) error {
	done := make(chan error, 1)
	go func() {
		err := bring(p.open)
		// Another import, whose download was joined, may have broken off.
		for n := 1; n < joinTries && errors.Is(err, verify.ErrUnavailable) && !p.used() && ctx.Err() == nil; n++ {
			err = bring(p.open)
		}
		p.r.Close() //nolint:errcheck // always nil
		done <- err
	}()
	select {
	case <-p.wanted:
		p.send(body)
	case err := <-done:
		done <- err
	}
	err := <-done
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.broke != nil {
		return p.broke
	}
	return err
}

// send writes body to the pipe as long as the store reads. The last bytes of a wrong part are not
// written.
func (p *passing) send(body io.Reader) {
	buf := make([]byte, min(takeBuffer, p.end-p.at))
	for rest := p.end - p.at; rest > 0; {
		n, err := body.Read(buf[:min(rest, int64(len(buf)))])
		rest -= int64(n)
		if p.part != nil {
			p.part.Write(buf[:n]) //nolint:errcheck // never fails
		}
		if rest == 0 && p.part != nil && bundle.SHA256(p.part.Sum(nil)) != p.sum {
			p.fail(fmt.Errorf("%w: sha256 is %x, want %s", verify.ErrMismatch, p.part.Sum(nil), p.sum))
			return
		}
		if _, gone := p.w.Write(buf[:n]); gone != nil {
			return // the store wants no more
		}
		if err != nil && rest > 0 {
			p.fail(fmt.Errorf("%w: at byte %d of %d: %w", ErrBroke, p.end-rest, p.end, err))
			return
		}
	}
	p.w.Close() //nolint:errcheck // always nil
}

func (p *passing) fail(err error) {
	p.mu.Lock()
	if p.broke == nil {
		p.broke = fmt.Errorf("%s: %w", p.path, err)
	}
	p.mu.Unlock()
	p.w.CloseWithError(err) //nolint:errcheck // always nil
}

// used tells whether the store has asked for bytes.
func (p *passing) used() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened || p.broke != nil
}

// open gives the bytes from offset on. A refusal is final, as the bytes come only once. The store
// keeps the bytes that came before, but for a part that is known to be wrong.
func (p *passing) open(ctx context.Context, offset int64) (*verify.Stream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errors.Is(p.broke, verify.ErrMismatch):
		return nil, fmt.Errorf("%w: %w", p.broke, fs.ErrPermission)
	case p.opened && offset < p.next:
		return nil, fmt.Errorf("what was here of it before was wrong, and a bundle is read only once: import it again: %w", fs.ErrPermission)
	case p.opened:
		return nil, fmt.Errorf("the bundle has no more of it here: %w", fs.ErrPermission)
	case offset < p.at || offset >= p.end:
		p.broke = fmt.Errorf("%w: bytes %d to %d of %s came, byte %d is wanted", ErrOffset, p.at, p.end, p.path, offset)
		return nil, fmt.Errorf("%w: %w", p.broke, fs.ErrPermission)
	}
	p.opened, p.next = true, offset
	close(p.wanted)
	end := func() { p.r.CloseWithError(context.Cause(ctx)) } //nolint:errcheck // always nil
	body := &passingBody{p: p, ctx: ctx, stop: context.AfterFunc(ctx, end), skip: offset - p.at}
	return &verify.Stream{ReadCloser: body, Size: p.size}, nil
}

// passingBody is what the store reads. Its reads end when the store's context does.
type passingBody struct {
	p    *passing
	ctx  context.Context
	stop func() bool
	skip int64 // bytes that the store has, and that the sender sends
}

func (b *passingBody) Read(buf []byte) (int, error) {
	n, err := b.p.r.Read(buf)
	if errors.Is(err, io.ErrClosedPipe) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	if b.skip > 0 {
		over := int(min(b.skip, int64(n)))
		b.skip -= int64(over)
		n = copy(buf, buf[over:n])
	}
	b.p.mu.Lock()
	b.p.next += int64(n)
	b.p.mu.Unlock()
	return n, err
}

// Close lets the sender go on without a reader.
func (b *passingBody) Close() error {
	b.stop()
	return b.p.r.Close()
}

// takeFile brings a file of a bundle to disk through open, which is called at most once, and
// returns when the file is verified.
func (m *Mirror) takeFile(ctx context.Context, image manifest.Manifest, index int, want verify.Want,
	open openFunc,
) error {
	blob, _ := blobOf(catalog.Entry{Manifest: image, Source: own.Imported}, index)
	blob.Want = want
	r, err := m.store.File(ctx, blob, []cache.Source{{Name: own.Imported, Open: open, Once: true}})
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	return r.Stored(ctx)
}
