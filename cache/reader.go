package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// Reader reads one blob, also while it is being filled. It holds the file: that is not evicted, and
// what it reads stays there although the file is removed by hand. Not for concurrent use. Close it,
// or its file stays for ever.
type Reader struct {
	result Result
	size   int64
	hold   *hold   // nil once closed
	store  *Store  // of a file on disk
	stored *stored // the file on disk; nil: it is being filled
	info   Info    // of a file on disk
	served *atomic.Int64

	fill *fill    // nil: the file was on disk
	why  Why      // of the request to the fill
	view *view    // of the round whose bytes are read
	file *os.File // nil: not open yet
	of   *view    // of the round whose file that is

	offset int64 // where the next bytes are taken from
	end    int64 // where they end
	at     int64 // where file stands; -1 when that is not known
	given  bool  // bytes of the round were given out
}

// newReader gives a Reader on f's round. f.mu is held.
func newReader(f *fill, result Result, b Blob) *Reader {
	return &Reader{
		fill: f, why: b.Why, view: f.view, hold: f.hold, result: result, size: f.view.size, end: f.view.size,
		served: &f.s.metrics.traffic.tally(b.By, result).bytes,
	}
}

// Info is what is known by now. Digests.Size is right from the start, SHA1 if the blob wanted one, else
// once the file has been verified; the rest is there once the file is stored.
func (r *Reader) Info() Info {
	if r.fill == nil {
		return r.info
	}
	f := r.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	info := Info{Digests: r.view.digests, ModTime: r.view.modTime, ContentType: r.view.contentType}
	if !r.view.verified {
		info.Digests = verify.Digests{SHA1: f.blob.Want.SHA1, Size: r.size}
	}
	return info
}

// MD5 is the body's md5 to announce: of the verified file, or the one the manifest or the source
// claims while the file is filled; nil when unknown. Without a claim, MD5 of a verified file
// waits until it is known. The error is ctx's, or the fill's own.
func (r *Reader) MD5(ctx context.Context) ([]byte, error) {
	f := r.fill
	if f == nil {
		return r.info.Digests.MD5[:], nil
	}
	f.mu.Lock()
	v := r.view
	awaited := v.verified && !v.digested && v.md5 == nil
	f.mu.Unlock()
	if awaited {
		f.urge()
		if err := f.await(ctx, func() bool { return v.digested || f.over }); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case v.digested:
		return v.digests.MD5[:], nil
	case awaited:
		return nil, f.err
	}
	return v.md5, nil
}

// Result tells hit, miss or join.
func (r *Reader) Result() Result { return r.result }

// Size is the whole blob's size in bytes. -1 never happens: File waits for the end of a fill whose
// size no source claims.
func (r *Reader) Size() int64 { return r.size }

// SeekTo sets where the next bytes are taken from. Call it before the first bytes are taken.
func (r *Reader) SeekTo(offset int64) { r.offset = offset }

// Limit makes the Reader end n bytes from where it is, or where the blob ends if that comes first.
// The last of these bytes is held back like the blob's last block.
func (r *Reader) Limit(n int64) { r.end = min(r.offset+n, r.size) }

// Wait blocks until bytes at the current offset may be given out, and tells how many there are at
// least. io.EOF at the end; else an error that ends the body: verify.ErrMismatch,
// verify.ErrUnavailable, ErrNoSpace, ErrClosed, or that of a disk that fails. The last block (64
// KiB) of a fill, and the last byte of what the Reader is to give out, come only once the digests
// hold: a body that is complete is right. io.EOF, also of an offset behind the end, comes no
// earlier.
func (r *Reader) Wait() (int64, error) { return r.WaitContext(context.Background()) }

// WaitContext is Wait that gives up with ctx.Err() when ctx ends; the Reader is good for more.
func (r *Reader) WaitContext(ctx context.Context) (int64, error) {
	if r.fill == nil {
		if r.stored.wrong.Load() {
			return 0, fmt.Errorf("%w: the file on disk was found wrong", verify.ErrMismatch)
		}
		if r.offset >= r.end {
			return 0, io.EOF
		}
		return r.end - r.offset, nil
	}
	for {
		n, wake, err := r.look()
		if err != nil {
			return 0, err
		}
		if n > 0 {
			opened, err := r.open()
			if err != nil {
				return 0, err
			}
			if opened {
				return n, nil
			}
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// look tells how many bytes there are, or gives what to wait for.
func (r *Reader) look() (n int64, wake <-chan struct{}, err error) {
	f := r.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := r.view; v.err != nil || v.lost.Load() && r.of != v { // the next round is read
		switch {
		case v.err != nil && r.given: // no later round can make these bytes right
			return 0, nil, v.err
		case f.view != v:
			r.view = f.view
		case f.err != nil: // there is no later round
			return 0, nil, f.err
		case f.over:
			return 0, nil, fmt.Errorf("%w: file %s was removed", ErrDisk, v.path)
		default: // it has not begun
			return 0, f.wake, nil
		}
	}
	switch limit := r.view.limit(r.end); {
	case r.view.size >= 0 && r.view.size != r.size:
		return 0, nil, fmt.Errorf("%w: size is %d, %d was announced", verify.ErrMismatch, r.view.size, r.size)
	case r.view.verified && r.offset >= r.end:
		return 0, nil, io.EOF
	case limit > r.offset:
		return limit - r.offset, nil, nil
	case f.over && f.err != nil && !r.view.verified:
		return 0, nil, f.err
	}
	return 0, f.wake, nil
}

// open opens the round's file, unless it is open. !opened: the round ended meanwhile, or its file
// is just being renamed.
func (r *Reader) open() (opened bool, err error) {
	if r.file != nil && r.of == r.view {
		return true, nil
	}
	if err := r.closeFile(); err != nil {
		return false, disk.Error(err)
	}
	f := r.fill
	f.mu.Lock()
	path := r.view.path
	f.mu.Unlock()
	file, err := os.Open(path)
	f.mu.Lock()
	// The file of that name is this round's as long as the round is not over.
	ended := r.view.err != nil
	renamed := r.view.path != path || r.view.verified && !f.over
	f.mu.Unlock()
	switch {
	case err == nil && !ended:
		r.file, r.of, r.at = file, r.view, 0
		return true, nil
	case err == nil:
		file.Close() // unread
		return false, nil
	case ended, renamed && errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, fs.ErrNotExist): // removed by hand: the fill begins again
		r.view.lost.Store(true)
		return false, nil
	}
	return false, disk.Error(err)
}

// Stored waits until the whole file is on disk under its final name, so that Peek knows it, and
// takes no bytes. The error is the fill's own, or ctx's.
func (r *Reader) Stored(ctx context.Context) error {
	f := r.fill
	if f == nil {
		return nil
	}
	f.urge()
	if err := f.ended(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// SendTo writes exactly n bytes (as told by Wait, or fewer) to w through w's io.ReaderFrom as one
// *io.LimitedReader around a *os.File of its own, so that a TCP connection underneath uses
// sendfile(2). It tells how many were written; fewer than n come with an error.
func (r *Reader) SendTo(w io.Writer, n int64) (int64, error) {
	if r.file == nil {
		return 0, errors.New("cache: SendTo before Wait")
	}
	if err := r.position(); err != nil {
		return 0, err
	}
	r.given = r.given || n > 0
	from := &io.LimitedReader{R: r.file, N: n}
	var sent int64
	var err error
	if rf, ok := w.(io.ReaderFrom); ok {
		sent, err = rf.ReadFrom(from)
	} else {
		sent, err = io.Copy(w, from)
	}
	r.took(sent)
	if err == nil && sent < n {
		err = io.ErrUnexpectedEOF // the file was cut by hand
	}
	if err != nil {
		r.at = -1
		r.unreadable(err)
	}
	return sent, err
}

// SendBy is SendTo by a function that sends n bytes of the file from offset on, and tells how many were sent: these may
// be fewer without an error.
func (r *Reader) SendBy(send func(file *os.File, offset, n int64) (int64, error), n int64) (int64, error) {
	if r.file == nil {
		return 0, errors.New("cache: SendBy before Wait")
	}
	r.given = r.given || n > 0
	sent, err := send(r.file, r.offset, n)
	r.took(sent)
	r.at = -1
	r.unreadable(err)
	return sent, err
}

// unreadable takes a file on disk whose bytes cannot be read out of the cache: the next request
// brings the file anew. Errors of another kind, and nil, change nothing.
func (r *Reader) unreadable(err error) {
	if r.fill != nil || !damaged(err) || r.stored.wrong.Load() {
		return
	}
	if err := r.store.reject(r.info.Digests.SHA1, r.stored, whereUnreadable, err); err != nil {
		r.store.log.Error("a file that cannot be read cannot be moved away", "sum", r.info.Digests.SHA1, "error", err)
	}
}

// Read is Wait and read, for callers that are not sockets.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.Wait()
	if err != nil {
		return 0, err
	}
	if err := r.position(); err != nil {
		return 0, err
	}
	r.given = true
	m, err := r.file.Read(p[:min(n, int64(len(p)))])
	r.took(int64(m))
	if errors.Is(err, io.EOF) { // the file was cut by hand
		err = io.ErrUnexpectedEOF
	}
	r.unreadable(err)
	return m, err
}

// position makes the file stand where the next bytes are.
func (r *Reader) position() error {
	if r.at == r.offset {
		return nil
	}
	if _, err := r.file.Seek(r.offset, io.SeekStart); err != nil {
		return err
	}
	r.at = r.offset
	return nil
}

func (r *Reader) took(n int64) {
	r.offset += n
	r.at += n
	r.served.Add(n)
}

// Close lets the file go: from then on it may be evicted. The fill, if one runs, goes on, unless
// only jobs wanted it: then it has ended. Idempotent.
func (r *Reader) Close() error {
	if r.hold == nil {
		return nil
	}
	if r.stored != nil {
		r.stored.touch()
	}
	if r.fill != nil {
		r.fill.leave(r.why)
	} else {
		r.hold.n.Add(-1)
	}
	r.hold = nil
	return r.closeFile()
}

func (r *Reader) closeFile() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
