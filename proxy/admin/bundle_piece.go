package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"imgmirror/verify"
)

// piece is a file of a bundle, or a part of one, as a source of the store: it can
// be opened once, for its bytes pass by only once. Whoever has them pass must
// close it before he goes on.
type piece struct {
	r         skipper
	at, end   int64  // of its bytes in the file
	size      int64  // of the file
	interrupt func() // ends a read of r that is under way

	mu     sync.Mutex // guards what follows, and r; held while r is read
	opened bool
	closed bool
	next   int64 // byte of the file that r gives next
	broke  error // why r gave no more

	state   sync.Mutex // guards reading
	reading bool
}

// skipper is what a piece reads: a *bundle.Piece.
type skipper interface {
	io.Reader
	Skip(n int64) error
}

// open gives the bytes from offset on. That they cannot be had a second time is a
// refusal, and what the store has by then stays, but for bytes that were wrong.
func (p *piece) open(ctx context.Context, offset int64) (*verify.Stream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errors.Is(p.broke, verify.ErrMismatch):
		return nil, fmt.Errorf("%w: %w", p.broke, fs.ErrPermission)
	case p.opened && offset < p.next:
		return nil, fmt.Errorf("what was here of it before was wrong, and a bundle is read only once: import it again: %w", fs.ErrPermission)
	case p.opened || p.closed:
		return nil, fmt.Errorf("the bundle has no more of it here: %w", fs.ErrPermission)
	case offset < p.at || offset > p.end:
		return nil, fmt.Errorf("bytes %d to %d are here, %d is wanted: %w", p.at, p.end, offset, fs.ErrPermission)
	}
	p.opened, p.next = true, p.at
	if err := p.r.Skip(offset - p.at); err != nil {
		p.broke = err
		return nil, fmt.Errorf("bundle: skip to %d: %w", offset, err)
	}
	p.next = offset
	return &verify.Stream{ReadCloser: &pieceBody{p: p, stop: context.AfterFunc(ctx, p.wake)}, Size: p.size}, nil
}

// wake ends a read that is under way: nobody wants its bytes any more.
func (p *piece) wake() {
	p.state.Lock()
	defer p.state.Unlock()
	if p.reading {
		p.interrupt()
	}
}

// close has nobody read r from here on, and tells why r gave no more if that was
// not its end.
func (p *piece) close() error {
	p.wake()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.broke
}

// begun tells whether the store has asked for bytes.
func (p *piece) begun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// ended tells whether all of r has been read.
func (p *piece) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened && p.next == p.end
}

// read is a Read of r for one who has opened it.
func (p *piece) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, fs.ErrClosed
	}
	p.setReading(true)
	n, err := p.r.Read(b)
	p.setReading(false)
	p.next += int64(n)
	if err != nil && (!errors.Is(err, io.EOF) || p.next < p.end) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		p.broke = err
	}
	return n, err
}

func (p *piece) setReading(is bool) {
	p.state.Lock()
	defer p.state.Unlock()
	p.reading = is
}

// pieceBody is what the store reads.
type pieceBody struct {
	p    *piece
	stop func() bool
}

func (b *pieceBody) Read(buf []byte) (int, error) { return b.p.read(buf) }

// Close leaves the rest to whoever reads the bundle.
func (b *pieceBody) Close() error {
	b.stop()
	return nil
}
