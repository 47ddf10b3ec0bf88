// Package ranges makes one body, in order, of many ranges that are asked for at the same time, from
// one source or from several. It judges no bytes, and has nothing on disk: what has arrived ahead of
// the reader is in a window of memory, and is lost with the Body.
//
// The window slides with the reader. Each source has some streams; a stream asks for one piece after
// the other, so a slow source brings fewer pieces. Four rules keep the reader going:
//
//	sample   The body begins with bytes of the first source. Pieces of another source are used once
//	         that source has sent the same first bytes.
//	rest     A piece whose request ends before its last byte is cut there; the rest goes to the
//	         next stream that looks for work.
//	rival    The piece that the reader waits for is asked for once more, by a stream that can be
//	         expected to have the rest in half the time. The reader takes the bytes of the request
//	         that has them, and the other request ends.
//	refused  A request without a byte ends its stream. The last stream ends the Body.
package ranges

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"imgmirror/verify"
)

// ErrWhole is matched when a source answers a range with another one, or with the whole body.
var ErrWhole = errors.New("the answer is not the range that was asked for")

// Source is one place where ranges of the body can be had.
type Source struct {
	Name string
	// Open asks for length bytes from offset on, in one try, and gives up at once when ctx ends, as
	// do the Reads of the stream. Stream.Part tells how many bytes the answer has.
	Open func(ctx context.Context, offset, length int64) (*verify.Stream, error)
}

// Options of New. All but Pause are required.
type Options struct {
	Sources []Source       // the first one has sent First
	Streams int            // requests at the same time to one source; most streams have MaxStreams in all
	Offset  int64          // where the body begins
	Size    int64          // where it ends: the size of the whole file
	First   *verify.Stream // the answer for First.Part bytes from Offset on; the Body closes it
	Drop    func()         // ends the request of First
	Memory  *Memory        // what the window was taken from
	Window  int64          // bytes, of Memory.Take; the Body gives it back
	// Pause is called before a stream asks again after a request that broke off. An error ends the
	// stream. nil: no pause.
	Pause func(ctx context.Context) error
}

// FirstPiece is how many bytes the first request asks for.
const FirstPiece = leastPiece

// MaxStreams is the most streams of one Body.
const MaxStreams = 16

// lookEvery is how often a reader that waits has the streams see whether its piece is late.
const lookEvery = 100 * time.Millisecond

// Lost tells that a request of a source ended before the last byte of its range.
type Lost struct {
	Source int // index in Options.Sources
	Err    error
}

// Body is the body. One goroutine may Read, and call By and Lost; Close may be called at any time.
type Body struct {
	o      Options
	most   int64 // bytes of the largest piece
	ctx    context.Context
	cancel context.CancelFunc
	unwake func() bool
	all    sync.WaitGroup // of the streams
	closed sync.Once

	sampleEnd int // bytes of a whole sample; never changes

	mu      sync.Mutex // guards what follows
	data    *sync.Cond // the reader waits for bytes
	work    *sync.Cond // streams wait for work
	sources []source
	running int           // streams that have not ended
	leading int           // of these, streams that may bring pieces of the body
	sample  []byte        // the first bytes that the reader was given, up to sampleEnd
	pieces  []*piece      // in order; the first one has the byte at read, and none is missing up to planned
	read    int64         // where the reader is
	planned int64         // where the last piece ends
	hungry  bool          // the reader waits
	waits   time.Time     // since then, but for what is in held; valid while hungry
	held    time.Duration // that the reader has waited for pieces which the own limit held
	by      int           // the source of the bytes of the last Read
	lost    []Lost
	failed  error // how the last stream ended
}

// New begins to ask. The requests end with ctx, and with Close, which must follow.
func New(ctx context.Context, o Options) *Body {
	b := &Body{o: o, sources: make([]source, len(o.Sources)), read: o.Offset, planned: o.Offset}
	b.data, b.work = sync.NewCond(&b.mu), sync.NewCond(&b.mu)
	b.ctx, b.cancel = context.WithCancel(ctx)
	streams := b.streams()
	b.most = largest(o.Window, len(streams))
	b.sampleEnd = int(min(sampleSize, o.Size-o.Offset))
	b.sources[0].admitted = true
	b.unwake = context.AfterFunc(b.ctx, b.wakeAll)
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.plan(o.First.Part)
	b.begin(first, 0)
	first.cancel = o.Drop
	for i, source := range streams {
		p, answer := first, o.First
		switch {
		case source > 0:
			p, answer = nil, nil
		case i > 0:
			p, answer = b.fresh(source), nil
		}
		b.running++
		if source == 0 {
			b.leading++
		}
		b.all.Go(func() { b.stream(source, p, answer) })
	}
	return b
}

// streams gives the source of each stream: those of the first source come first, as the reader waits
// for the first pieces.
func (b *Body) streams() (sources []int) {
	n, most := len(b.o.Sources), Streams(b.o.Streams, len(b.o.Sources))
	for i := range most {
		sources = append(sources, i%n)
	}
	slices.Sort(sources)
	return sources
}

// Streams is the number of streams of a Body with so many for each of its sources.
func Streams(each, sources int) int { return min(each*sources, MaxStreams) }

// Read gives the next bytes in order, io.EOF at the end of the file, and an error when no stream is
// left that could bring the next byte: without the sample, none of another source than the first can.
func (b *Body) Read(p []byte) (int, error) {
	if b.read == b.o.Size { // the reader alone changes read
		return 0, io.EOF
	}
	have, head, err := b.await()
	if err != nil {
		return 0, err
	}
	n := copy(p, have)
	b.advance(head, p[:n])
	return n, nil
}

// await waits until the first piece has bytes at read, and gives some of these.
func (b *Body) await() ([]byte, *piece, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits = time.Now()
	for {
		if head := b.head(); head != nil {
			if have := head.at(b.read); have != nil {
				b.by = head.source
				return have, head, nil
			}
		}
		switch {
		case b.ctx.Err() != nil:
			return nil, nil, context.Cause(b.ctx)
		case b.running == 0, b.leading == 0 && len(b.sample) < b.sampleEnd:
			return nil, nil, b.failed
		}
		b.hunger()
	}
}

// hunger waits for what may be bytes, while streams look every now and then whether the first piece
// is late. b.mu is held.
func (b *Body) hunger() {
	b.hungry = true
	b.work.Broadcast()
	look := time.AfterFunc(lookEvery, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.data.Signal()
	})
	b.data.Wait()
	look.Stop()
	b.hungry = false
}

// head gives the first piece, after the change to its rival where that one is ahead; nil: none is
// planned. b.mu is held.
func (b *Body) head() *piece {
	for len(b.pieces) > 0 && b.pieces[0].to <= b.read { // read, or cut where the reader is or has been
		p := b.pieces[0]
		if p.rival != nil {
			b.drop(p.rival)
		}
		b.free(p, p.to)
		b.pieces = b.pieces[1:]
	}
	if len(b.pieces) == 0 {
		return nil
	}
	h := b.pieces[0]
	if r := h.rival; r != nil && h.at(b.read) == nil && r.at(b.read) != nil {
		h.rival = nil
		b.drop(h)
		b.pieces[0] = r
		return r
	}
	return h
}

// advance moves read on behind the bytes, which are of the piece.
func (b *Body) advance(head *piece, given []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sampled(given)
	b.read += int64(len(given))
	b.free(head, b.read)
	b.head()
	b.work.Broadcast()
}

// Pace implements verify.Stream.Pace: Held is for how long Reads have waited because the own limit held the piece that
// they needed.
func (b *Body) Pace() verify.Pace {
	b.mu.Lock()
	defer b.mu.Unlock()
	return verify.Pace{Held: b.held}
}

// By gives the index of the source that brought the bytes of the last Read.
func (b *Body) By() int { return b.by }

// Lost gives what sources have failed to bring since the last call: each failure that ended a stream, and some of the
// others.
func (b *Body) Lost() []Lost {
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := b.lost
	b.lost = nil
	return lost
}

// wakeAll has all see that ctx has ended.
func (b *Body) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data.Broadcast()
	b.work.Broadcast()
}

// Close ends all requests, waits for their ends, and gives the window back.
func (b *Body) Close() error {
	b.closed.Do(func() {
		b.cancel()
		b.o.Drop()
		b.unwake()
		b.wakeAll()
		b.all.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.pieces {
			b.free(p, p.to)
		}
		b.o.Memory.Give(b.o.Window)
	})
	return nil
}
