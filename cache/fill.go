package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// fill brings one blob to the disk, for all who want it. It runs on one
// goroutine of its own, which belongs to the store, and goes through rounds: a
// round begins with a partial file, and ends with the verdict on its bytes.
type fill struct {
	s      *Store
	key    string // in Store.fills
	name   string // of its partial file
	first  Blob   // who asked first
	want   verify.Want
	max    int64 // bytes, at most
	loose  bool  // bytes that nothing can be checked against are taken
	ctx    context.Context
	stop   context.CancelCauseFunc
	cancel context.CancelFunc // frees what ctx holds
	ticket *ticket            // its claim on a slot
	hold   *hold              // who waits for it or reads it; goes over to the file
	began  time.Time

	// What follows is for the fill's goroutine alone.
	seated   bool          // it has a slot
	leftover int64         // bytes of the partial file that was there before
	booked   int64         // bytes set aside in the space and not yet written
	accepted bool          // some source has answered well
	solo     bool          // a round's bytes must all come from one source
	lost     int           // rounds whose file was removed by hand
	pace     *rate.Limiter // of tries that follow at once on one that brought bytes

	// Guarded by Store.mu.
	firm    bool // somebody wants the blob even if he does not wait for it
	dropped bool // nobody does, and it is about to end: it is joined no more

	mu      sync.Mutex    // guards what follows, and the round's shared fields; never held over I/O
	wake    chan struct{} // closed, and replaced, whenever a shared field has changed
	blobs   []Blob        // who wants it, one of each image
	sources []*candidate
	round   *round // the one under way, or the last one; nil before the first
	from    string // the source whose body is being taken; "" between two
	speed   speed
	over    bool  // nothing will change any more
	err     error // why the fill failed; valid once over
}

// candidate is a source in the eyes of one fill.
type candidate struct {
	Source
	out      error // why it is asked no more; nil while it is
	last     error // how its last try ended
	accepted bool  // it has answered well
	stalled  bool  // its last try stalled: others are asked before it
	slow     bool  // its last try took long to be refused
	ended    bool  // its last try ended before the body did, and brought nothing
}

// pace of tries that follow one another without a wait: a source that brings a
// few bytes and breaks, again and again, is not to be hammered.
const (
	triesPerSecond = 10
	triesAtOnce    = 20
)

func newFill(s *Store, b Blob, sources []Source) *fill {
	f := &fill{
		s: s, key: b.fillKey(), name: b.partialName(), first: b, want: b.Want, max: b.MaxSize, loose: b.Unverified || s.o.AllowUnverified,
		ticket: &ticket{low: b.Why == Ahead},
		pace:   rate.NewLimiter(triesPerSecond, triesAtOnce),
		wake:   make(chan struct{}),
		hold:   new(hold),
		firm:   b.Why != Job,
		began:  time.Now(),
	}
	if f.max <= 0 {
		f.max = maxFileSize
	}
	ctx, stop := context.WithCancelCause(s.ctx)
	f.stop = stop
	f.ctx, f.cancel = context.WithTimeoutCause(ctx, s.o.Deadline,
		fmt.Errorf("%w: not complete within %s", verify.ErrUnavailable, s.o.Deadline))
	f.add(b, sources)
	return f
}

// join lets one more have the blob.
func (f *fill) join(b Blob, sources []Source) {
	if b.Why != Ahead {
		f.s.slots.promote(f.ticket)
	}
	f.add(b, sources)
}

// suits tells whether a request for b may join, although the first request wanted less: the fill must want
// nothing that b does not want, and bring a file of b's size as far as its source tells.
func (f *fill) suits(b Blob) bool {
	if b.Want.SHA1.IsZero() || f.want.SHA1 != b.Want.SHA1 || len(f.want.MD5) > 0 && !bytes.Equal(f.want.MD5, b.Want.MD5) {
		return false
	}
	size := f.want.Size
	if size == 0 && b.Want.Size > 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.round == nil {
			return false
		}
		size = f.round.size
	}
	return size == b.Want.Size
}

// add notes a request for the blob, and the sources that only this request knows. Store.mu is held.
func (f *fill) add(b Blob, sources []Source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := false
	for _, have := range f.blobs {
		known = known || have.Image == b.Image && have.Key == b.Key && have.Index == b.Index
	}
	if !known {
		f.blobs = append(f.blobs, b)
	}
next:
	for _, src := range sources {
		for _, c := range f.sources {
			if c.Name == src.Name {
				continue next
			}
		}
		c := &candidate{Source: src}
		if b.Why != Job {
			c.out = f.s.justLied(f.key, src)
		}
		f.sources = append(f.sources, c)
	}
}

// admit waits until a source has answered, and gives a Reader.
func (f *fill) admit(ctx context.Context, result Result) (*Reader, error) {
	for {
		f.mu.Lock()
		var reader *Reader
		if r := f.round; r != nil && r.err == nil && (r.verified || r.open && r.size >= 0) {
			reader = newReader(f, result)
		}
		wake, over, err := f.wake, f.over, f.err
		f.mu.Unlock()
		switch {
		case reader != nil:
			return reader, nil
		case over:
			return nil, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// errPartialLost ends a round whose file was removed by hand. As often as that may
// happen to a fill it begins again.
var errPartialLost = fmt.Errorf("%w: the unfinished file was removed", ErrDisk)

const maxLost = 3

// errDropped ends a fill that nobody wants any more.
var errDropped = errors.New("nobody wants it any more")

// leave notes that one waiter or reader of the fill has gone. The fill ends if that was
// the last one, and no request asked for more than that; no source is asked by it
// any more when leave returns.
func (f *fill) leave() {
	if f.hold.n.Add(-1) > 0 || !f.drop() {
		return
	}
	_ = f.ended(context.Background()) // never fails: this context does not end
}

// drop ends the fill if no request wants the fill.
func (f *fill) drop() bool {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.firm || f.dropped || f.s.fills[f.key] != f || f.hold.n.Load() > 0 {
		return false
	}
	f.dropped = true
	f.stop(errDropped)
	return true
}

// changed wakes all who wait. f.mu is held.
func (f *fill) changed() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// run is the fill's goroutine.
func (f *fill) run() {
	defer f.stop(nil)
	defer f.cancel()
	err := f.bring()
	f.s.space.release(f.booked)
	f.s.mu.Lock()
	if f.s.fills[f.key] == f { // else it was published
		delete(f.s.fills, f.key)
		if f.leftover > 0 {
			f.s.partials[f.name] = leftover{
				sum: f.want.SHA1, size: f.want.Size, have: f.leftover, dropped: errors.Is(err, errDropped),
			}
		}
	}
	f.s.mu.Unlock()
	f.s.suspectDisk(err)
	if err != nil {
		level, what := slog.LevelWarn, "fill failed"
		switch {
		case errors.Is(err, errDropped):
			level, what = slog.LevelInfo, "fill dropped"
		case errors.Is(err, errNoRoomAhead): // it may be tried again and again
			level = slog.LevelDebug
		}
		f.s.log.Log(context.Background(), level, what, "sum", f.first.title(), "uuid", f.first.Image, "have", f.leftover, "error", err)
		err = fmt.Errorf("fill %s: %w", f.first.title(), err)
	}
	f.mu.Lock()
	f.over, f.err = true, err
	f.changed()
	f.mu.Unlock()
}

// bring goes through as many rounds as it takes. On failure it leaves a partial
// file only if leftover says so.
func (f *fill) bring() error {
	if f.want.Size > f.max {
		return fmt.Errorf("%w: size is %d, at most %d is taken", verify.ErrMismatch, f.want.Size, f.max)
	}
	if f.leftover > 0 && (f.want.Size > 0 && f.leftover > f.want.Size || f.fromStart()) {
		f.s.space.removedPartial(f.leftover)
		f.leftover = 0
		if err := os.Remove(f.s.dir.partial(f.name)); err != nil {
			return disk.Error(err)
		}
	}
	if err := f.s.present(); err != nil { // there is nowhere to put it
		return err
	}
	if err := f.s.mayFit(f.want.Size-f.leftover, f.low()); err != nil {
		return err
	}
	if err := f.takeSlot(); err != nil {
		return err
	}
	defer f.giveSlot()
	f.s.metrics.inflight.Inc()
	defer f.s.metrics.inflight.Dec()
	for {
		r, err := f.begin()
		if err != nil {
			return err
		}
		if err = f.fetch(r); err == nil {
			err = f.judge(r)
		}
		if err == nil {
			if err = f.publish(r); err == nil {
				return nil
			}
		}
		again := f.mayBeginAgain(r, err)
		if lost := f.abandon(r, err); lost != nil || !again {
			return errors.Join(err, lost)
		}
	}
}

// fromStart tells whether nobody can bring the rest of a file alone.
func (f *fill) fromStart() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sources) > 0 && !slices.ContainsFunc(f.sources, func(c *candidate) bool { return !c.FromStart })
}

// takeSlot waits in the queue of fills.
func (f *fill) takeSlot() error {
	f.s.metrics.slotsWaiting.Inc()
	defer f.s.metrics.slotsWaiting.Dec()
	if f.s.slots.acquire(f.ctx, f.ticket) == nil {
		f.seated = true
		return nil
	}
	cause := context.Cause(f.ctx)
	if !errors.Is(cause, ErrClosed) {
		f.s.metrics.slotsRefused.Inc()
	}
	return fmt.Errorf("waiting for a slot: %w", cause)
}

// giveSlot gives the slot back, if the fill has one.
func (f *fill) giveSlot() {
	if f.seated {
		f.seated = false
		f.s.slots.release()
	}
}

// makeRoom lends the slot of a fill that nobody waits for to one that somebody
// does, and waits for another.
func (f *fill) makeRoom() error {
	if !f.s.slots.wanted(f.ticket) {
		return nil
	}
	f.giveSlot()
	return f.takeSlot()
}

// book sets n bytes aside, in addition to what is booked.
func (f *fill) book(n int64) error {
	if n <= 0 {
		return nil
	}
	err := f.s.reserve(f.ctx, n, f.low())
	if errors.Is(err, errNoRoomAhead) && !f.low() { // somebody wants it by now
		err = f.s.reserve(f.ctx, n, false)
	}
	if err == nil {
		f.booked += n
	}
	return err
}

// low tells whether nobody waits for the fill.
func (f *fill) low() bool { return f.s.slots.isLow(f.ticket) }

// mayBeginAgain tells whether a round that ended with err is worth another,
// after it has put the blame where it belongs.
func (f *fill) mayBeginAgain(r *round, err error) bool {
	if f.ctx.Err() != nil {
		return false
	}
	if errors.Is(err, errPartialLost) {
		f.lost++
		return f.lost < maxLost
	}
	if !errors.Is(err, verify.ErrMismatch) {
		// Alone of all sources the round's one could not go on: the others may still, from the start.
		if r.only == nil || !errors.Is(err, verify.ErrUnavailable) {
			return false
		}
		r.only.out = err
		return f.anyLeft()
	}
	if r.leftover > 0 {
		return true // from the start, and from the same sources
	}
	return f.anyLeft()
}

// anyLeft tells whether some source may still be asked.
func (f *fill) anyLeft() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.sources {
		if c.out == nil {
			return true
		}
	}
	return false
}

// resumable tells whether what a round has is of use to a later fill.
func (f *fill) resumable(r *round, err error) bool {
	return !f.want.SHA1.IsZero() && !f.solo && r.have > 0 && !errors.Is(err, verify.ErrMismatch) &&
		(errors.Is(err, verify.ErrUnavailable) || errors.Is(err, ErrClosed) || errors.Is(err, errDropped) ||
			errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoRoomAhead) && r.leftover > 0)
}

// abandon ends a round that failed with err. Its readers that have been given
// bytes end with err too. The partial file is kept, as the fill's leftover, only
// if it is of use to a later fill.
func (f *fill) abandon(r *round, err error) error {
	r.close()
	f.mu.Lock()
	if !r.verified { // else its readers have the right bytes, and go on
		r.err = err
	}
	f.changed()
	f.mu.Unlock()
	f.s.space.release(f.booked)
	f.booked = 0
	if f.resumable(r, err) {
		f.leftover = r.have
		return nil
	}
	f.leftover = 0
	f.s.space.removedPartial(r.have)
	if err := os.Remove(r.path); !errors.Is(err, fs.ErrNotExist) {
		return disk.Error(err)
	}
	return nil // it was removed by hand
}
