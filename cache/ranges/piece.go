package ranges

import (
	"context"
	"time"
)

const (
	// blockSize is how much memory a piece takes at a time, as its bytes come.
	blockSize = 256 << 10
	// leastPiece is a source's first piece, and the smallest one but for rests and the end of the body.
	leastPiece = 1 << 20
	// mostPiece is the largest piece.
	mostPiece = 8 << 20
	// A piece is to last that long, and so many times as long as the source needs to begin an
	// answer: then 2 % of the time is for waiting.
	pieceLasts = 250 * time.Millisecond
	waitsLast  = 50
	// endWaits is the same for the pieces at the end of the body.
	endWaits = 10
)

// block is some of the memory of a piece.
type block [blockSize]byte

// piece is a range of the body, with what has come of it. The Body's mu guards the fields, but its
// stream alone adds to blocks and got, and reads these without.
type piece struct {
	from, to int64
	blocks   []*block // nil: read, or never there
	got      int64    // bytes that have come
	source   int      // that brings it
	cancel   context.CancelFunc
	busy     bool          // a request is under way
	dropped  bool          // another request has brought the bytes: what the own one brings is of no use
	rival    *piece        // the same bytes from another request; nil: there is none
	began    time.Time     // when the request was made
	first    time.Time     // when the first bytes came
	last     time.Time     // when the last bytes came
	held     time.Duration // that Reads have waited for the own limit
}

// complete tells whether all bytes have come.
func (p *piece) complete() bool { return p.from+p.got == p.to }

// at gives the bytes from offset on that have come and lie together; nil: none have come.
func (p *piece) at(offset int64) []byte {
	at := offset - p.from
	if at >= p.got {
		return nil
	}
	i := at / blockSize
	return p.blocks[i][at%blockSize : min(blockSize, p.got-i*blockSize)]
}

// late tells whether a request to the source that needs that long for the bytes from offset on can be expected to
// have them in half the time that the piece's own request will take. Waits for the own limit do not count against a
// request to the same source, which would wait, too.
func (p *piece) late(now time.Time, offset int64, source int, needs time.Duration) bool {
	var held time.Duration
	if source == p.source {
		held = p.held
	}
	took := now.Sub(p.began)
	if p.got > 0 { // else it may take as long again as it has taken
		took = time.Duration(float64(p.last.Sub(p.began)-held) / float64(p.got) * float64(p.to-offset))
	}
	return 2*needs < max(took, now.Sub(p.last))
}

// source is what is known of a source. The Body's mu guards it.
type source struct {
	admitted bool // its pieces are used
	trying   bool // one of its streams brings the sample

	out  bool          // its answers are about another file
	rate float64       // bytes a second of one stream; 0: not known
	wait time.Duration // until an answer begins
}

// learn takes in what a request has shown: n bytes within took, after wait.
func (s *source) learn(n int64, wait, took time.Duration) {
	if n < blockSize {
		return
	}
	rate := float64(n) / max(took, time.Millisecond).Seconds()
	if s.rate > 0 {
		rate, wait = (s.rate+rate)/2, (s.wait+wait)/2
	}
	s.rate, s.wait = rate, wait
}

// needs is how long a request for n bytes will take; s.rate must be known.
func (s *source) needs(n int64) time.Duration {
	return s.wait + time.Duration(float64(n)/s.rate*float64(time.Second))
}

// size is how long the next piece of the source is.
func (s *source) size() int64 {
	lasts := max(pieceLasts, waitsLast*s.wait)
	return min(max(int64(s.rate*lasts.Seconds())/blockSize*blockSize, leastPiece), mostPiece)
}

// least is how long a piece at the end of the body has to be.
func (s *source) least() int64 {
	if s.rate == 0 {
		return leastPiece
	}
	return max(blockSize, int64(s.rate*(endWaits*s.wait).Seconds())/blockSize*blockSize)
}

// largest is the largest piece of a window that so many streams share: a stream can have a piece
// that waits for the reader while the next one comes, and there is room for a rival.
func largest(window int64, streams int) int64 {
	return max(window/int64(2*streams+1)/blockSize*blockSize, blockSize)
}
