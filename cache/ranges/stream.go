package ranges

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"imgmirror/verify"
)

// stream brings one piece after the other from one source. p is the first one; nil: there is none yet.
// answer, if there is one, is that for p.
func (b *Body) stream(source int, p *piece, answer *verify.Stream) {
	var err error
	admitted := source == 0
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running--
		if admitted {
			b.leading--
		}
		if err != nil {
			b.failed = err
		}
		b.data.Broadcast()
		b.work.Broadcast()
	}()
	if !admitted {
		if admitted = b.admit(source); !admitted {
			return
		}
	}
	for {
		if p == nil {
			p, err = b.next(source), nil
		}
		if p == nil {
			return
		}
		err = b.fetch(p, answer)
		if !b.settle(p, err) {
			return
		}
		if err != nil && b.o.Pause != nil && b.o.Pause(b.ctx) != nil {
			return
		}
		p, answer = nil, nil
	}
}

// next waits for a piece that the source can bring; nil: the stream has to end.
func (b *Body) next(source int) *piece {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.ctx.Err() != nil || b.sources[source].out || b.read == b.o.Size {
			return nil
		}
		if i := slices.IndexFunc(b.pieces, func(p *piece) bool { return !p.busy && !p.complete() }); i >= 0 {
			b.begin(b.pieces[i], source)
			return b.pieces[i]
		}
		if p := b.compete(source); p != nil {
			return p
		}
		if p := b.fresh(source); p != nil {
			return p
		}
		b.work.Wait()
	}
}

// fresh plans the next piece, for the source; nil: the window is full, or all is planned. b.mu is
// held.
func (b *Body) fresh(source int) *piece {
	rest := b.o.Size - b.planned
	s := &b.sources[source]
	// Towards the end pieces get smaller, so that all streams end at about the same time.
	share := rest / int64(max(b.running, 1)) / blockSize * blockSize // a part of a block takes a whole one
	n := min(s.size(), b.most, max(share, s.least()), rest)
	if n == 0 || b.planned+n-b.read > b.o.Window-b.most {
		return nil
	}
	p := b.plan(n)
	b.begin(p, source)
	return p
}

// plan adds a piece of n bytes. b.mu is held.
func (b *Body) plan(n int64) *piece {
	p := &piece{from: b.planned, to: b.planned + n}
	b.planned = p.to
	b.pieces = append(b.pieces, p)
	return p
}

// begin gives p, of which no byte has come, to a stream of the source. b.mu is held.
func (b *Body) begin(p *piece, source int) {
	p.source, p.busy = source, true
	p.began = time.Now()
	p.last = p.began
}

// compete gives the rest of the first piece to a second request, where the reader waits for the
// piece and the source can be expected to be faster; nil: it cannot. b.mu is held.
func (b *Body) compete(source int) *piece {
	s := &b.sources[source]
	if !b.hungry || s.rate == 0 {
		return nil
	}
	h := b.head()
	if h == nil || h.rival != nil || h.to-b.read > b.most || !h.late(time.Now(), b.read, source, s.needs(h.to-b.read)) {
		return nil
	}
	h.rival = &piece{from: b.read, to: h.to}
	b.begin(h.rival, source)
	return h.rival
}

// drop ends the request of p, of which nothing is needed any more. b.mu is held.
func (b *Body) drop(p *piece) {
	p.dropped = true
	if p.cancel != nil {
		p.cancel()
	}
	if !p.busy {
		b.free(p, p.to)
	}
}

// free gives back the blocks of p before the offset. A block that a request may write to stays. b.mu
// is held.
func (b *Body) free(p *piece, offset int64) {
	for i, k := range p.blocks {
		if k == nil {
			continue
		}
		end := p.from + int64(i+1)*blockSize
		if min(end, p.to) > offset {
			return
		}
		p.blocks[i] = nil
		b.o.Memory.spare.Put(k)
	}
}

// fetch brings p. answer, if there is one, is that for p.
func (b *Body) fetch(p *piece, answer *verify.Stream) (err error) {
	if answer == nil {
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		b.mu.Lock()
		p.cancel = cancel
		dropped := p.dropped
		b.mu.Unlock()
		if dropped {
			return context.Canceled
		}
		if answer, err = b.open(ctx, p.source, p.from, p.to-p.from); err != nil {
			return err
		}
	} else {
		defer b.o.Drop()
	}
	defer answer.Close()     // read only
	var before time.Duration // that Reads have waited for the own limit
	for !p.complete() && err == nil {
		var n int
		n, err = answer.Read(b.space(p))
		held := before
		if answer.Pace != nil {
			held = answer.Pace().Held
		}
		b.arrived(p, int64(n), held-before)
		before = held
	}
	switch {
	case p.complete() && err == nil:
		return b.end(answer, p.to)
	case p.complete():
		return nil
	case err == io.EOF: //nolint:errorlint // a Reader says it that way
		return fmt.Errorf("the range from %d on broke off after %d of %d bytes: %w", p.from, p.got, p.to-p.from, io.ErrUnexpectedEOF)
	}
	return err
}

// open asks the source for length bytes from offset on.
func (b *Body) open(ctx context.Context, source int, offset, length int64) (*verify.Stream, error) {
	answer, err := b.o.Sources[source].Open(ctx, offset, length)
	switch {
	case err != nil:
		return nil, err
	case answer.Size >= 0 && answer.Size != b.o.Size:
		err = fmt.Errorf("%w: the range is said to be of %d bytes, want %d", verify.ErrMismatch, answer.Size, b.o.Size)
	case answer.Part != length:
		err = fmt.Errorf("%w: %d bytes from %d on, want %d", ErrWhole, answer.Part, offset, length)
	default:
		return answer, nil
	}
	answer.Close() // unread
	return nil, err
}

// end reads the end of an answer that has given all bytes up to the offset: only then is the connection of use again.
func (b *Body) end(answer *verify.Stream, offset int64) error {
	var more [1]byte
	for {
		n, err := answer.Read(more[:])
		if n > 0 {
			return fmt.Errorf("%w: more bytes than up to %d", ErrWhole, offset)
		}
		if err != nil { // all bytes have come
			return nil
		}
	}
}

// space gives room for the next bytes of p, which is not complete.
func (b *Body) space(p *piece) []byte {
	i := int(p.got / blockSize)
	if i == len(p.blocks) {
		k := b.o.Memory.spare.Get().(*block)
		b.mu.Lock()
		p.blocks = append(p.blocks, k)
		b.mu.Unlock()
	}
	return p.blocks[i][p.got%blockSize : min(blockSize, p.to-p.from-int64(i)*blockSize)]
}

// arrived notes that n more bytes of p have come, after a Read that waited so long for the own limit.
func (b *Body) arrived(p *piece, n int64, held time.Duration) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	p.held += held
	if b.hungry && len(b.pieces) > 0 && (b.pieces[0] == p || b.pieces[0].rival == p) {
		b.held += min(held, now.Sub(b.waits))
		b.waits = now
	}
	if p.got == 0 {
		p.first = now
	}
	p.got += n
	p.last = now
	if b.hungry {
		b.data.Signal()
	}
}

// settle notes how the request for p ended. It tells whether the stream goes on.
func (b *Body) settle(p *piece, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.busy = false
	s := &b.sources[p.source]
	s.learn(p.got, p.first.Sub(p.began), p.last.Sub(p.first))
	if p.dropped { // the bytes came from elsewhere
		b.free(p, p.to)
		return true
	}
	if err != nil && b.ctx.Err() == nil {
		s.out = s.out || errors.Is(err, verify.ErrMismatch)
	}
	goesOn := err == nil || p.got > 0 && !s.out && !errors.Is(err, ErrWhole)
	if err != nil && b.ctx.Err() == nil {
		b.tell(Lost{p.source, err}, !goesOn)
	}
	if !p.complete() {
		b.giveUp(p)
	}
	b.data.Signal()
	b.work.Broadcast()
	return goesOn
}

// tell notes what Lost gives. A reader may be away for long: of the streams that go on, some are told. b.mu is held.
func (b *Body) tell(l Lost, ends bool) {
	if ends || len(b.lost) < MaxStreams {
		b.lost = append(b.lost, l)
	}
}

// giveUp cuts p where its bytes end; another stream has to bring the rest. Behind the first piece, bytes
// that do not fill a block are dropped: a source that sends few bytes an answer would take more memory
// than the window. b.mu is held.
func (b *Body) giveUp(p *piece) {
	if h := b.pieces[0]; h.rival == p {
		h.rival = nil
		b.free(p, p.to)
		return
	}
	i := slices.Index(b.pieces, p)
	if i > 0 {
		p.got -= p.got % blockSize
	}
	rest := p.rival
	if rest == nil {
		rest = &piece{from: p.from + p.got, to: p.to}
	}
	p.rival = nil
	if p.got == 0 {
		b.pieces[i] = rest
		b.free(p, p.to)
		return
	}
	p.to = p.from + p.got
	blocks := (p.got + blockSize - 1) / blockSize
	for _, k := range p.blocks[blocks:] {
		b.o.Memory.spare.Put(k)
	}
	p.blocks = p.blocks[:blocks]
	b.pieces = slices.Insert(b.pieces, i+1, rest)
}
