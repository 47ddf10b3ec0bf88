package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"imgmirror/verify"
)

const (
	// A source that brings a few bytes and breaks, again and again, is not to be hammered.
	attemptsPerSecond = 10
	attemptsAtOnce    = 20

	// maxLost is how many rounds of a download may lose their file by hand.
	maxLost = 3
	// bookAhead is how many bytes are booked at a time when the size is not known.
	bookAhead = 64 << 20
)

// errPartialLost ends a round whose file was removed by hand.
var errPartialLost = fmt.Errorf("%w: the unfinished file was removed", ErrDisk)

// FillMemory is the most memory, in bytes, that one download takes: blocks on their way to the disk
// and to the hashes, one more block of a follower, and the connection.
const FillMemory = 2 << 20

// download brings the blob of one fill. One goroutine of the store runs it, and no other touches
// its fields, nor those of the fill's candidates.
type download struct {
	s        *Store
	f        *fill
	want     verify.Want
	max      int64         // bytes, at most
	leftover int64         // bytes of the partial file that no round has in hand
	seated   bool          // it has a slot
	booked   int64         // bytes set aside in the account and not yet written
	claim    claim         // what its room costs others
	answered bool          // some source has answered well
	tempo    *tempo        // of the source that sent the last body
	next     *candidate    // is to be asked first, instead of a slow source or one without a slot; nil: none is
	single   bool          // a round's bytes must all come from one source
	lost     int           // rounds whose file was removed by hand
	brought  int64         // bytes that sources sent for the round
	took     time.Duration // in which they came
	pace     *rate.Limiter // of attempts that follow at once on one that brought bytes
}

func newDownload(f *fill, leftover int64) *download {
	d := &download{
		s: f.s, f: f, want: f.blob.Want, max: f.blob.MaxSize, leftover: leftover,
		pace: rate.NewLimiter(attemptsPerSecond, attemptsAtOnce),
	}
	if d.max <= 0 {
		d.max = maxFileSize
	}
	return d
}

// run is the download's goroutine.
func (d *download) run() {
	s, f := d.s, d.f
	deadline := time.AfterFunc(s.o.Deadline, func() {
		f.stop(fmt.Errorf("%w: not complete within %s", verify.ErrUnavailable, s.o.Deadline))
	})
	defer deadline.Stop()
	defer f.stop(nil)
	err := d.bring()
	s.mu.Lock()
	if s.fills[f.key] == f { // else the file is published
		delete(s.fills, f.key)
		if d.leftover > 0 {
			s.partials[f.name] = Partial{Sum: d.want.SHA1, Size: d.want.Size, Have: d.leftover, Dropped: errors.Is(err, errDropped)}
		}
	}
	s.mu.Unlock()
	s.suspectDisk(err)
	if err != nil {
		level, what := slog.LevelWarn, "fill failed"
		switch {
		case errors.Is(err, errDropped):
			level, what = slog.LevelInfo, "fill dropped"
		case errors.Is(err, errNoRoomAhead): // it may be tried again and again
			level = slog.LevelDebug
		}
		s.log.Log(context.Background(), level, what, "sum", f.blob.title(), "uuid", f.blob.Image, "have", d.leftover, "error", err)
		err = fmt.Errorf("fill %s: %w", f.blob.title(), err)
	}
	f.update(func() { f.over, f.err = true, err })
}

// bring is the whole order of a miss. After a failure there is a partial file only if leftover says
// so.
func (d *download) bring() error {
	if err := d.mayFit(); err != nil {
		return err
	}
	if err := d.takeSlot(); err != nil {
		return err
	}
	defer d.giveSlot()
	defer d.s.advances.end(&d.claim)
	d.s.metrics.inflight.Inc()
	defer d.s.metrics.inflight.Dec()
	for {
		r, err := begin(d.f, d.leftover)
		if err != nil {
			return err
		}
		d.s.space.addPartial(r.leftover - d.leftover) // by hand
		d.brought, d.took = 0, 0
		if err = d.collect(r); err == nil {
			err = d.judge(r)
		}
		if err == nil {
			err = d.publish(r)
		}
		r.close()
		d.giveRoom()
		d.leftover = 0
		if err == nil {
			d.s.metrics.traffic.brought.Add(d.brought)
			d.s.metrics.traffic.took.Add(int64(d.took))
			return nil
		}
		again := d.mayBeginAgain(r, err)
		if lost := d.abandon(r, err); lost != nil || !again {
			return errors.Join(err, lost)
		}
		if !d.seated { // the right file was lost before its record
			if err := d.takeSlot(); err != nil {
				return err
			}
		}
	}
}

// mayFit fails where the bytes cannot be stored, before any source is asked.
func (d *download) mayFit() error {
	if d.want.Size > d.max {
		return fmt.Errorf("%w: size is %d, at most %d is taken", verify.ErrMismatch, d.want.Size, d.max)
	}
	sources := d.f.candidates()
	fromStart := len(sources) > 0 && !slices.ContainsFunc(sources, func(c *candidate) bool { return !c.FromStart })
	if d.leftover > 0 && (fromStart || d.want.Size > 0 && d.leftover > d.want.Size) { // of no use
		have := d.leftover
		d.leftover = 0
		if err := d.s.dropPartial(d.s.dir.partial(d.f.name), have); err != nil {
			return err
		}
	}
	if err := d.s.present(); err != nil { // there is nowhere to put it
		return err
	}
	err := d.s.mayFit(d.want.Size-d.leftover, d.f.ahead())
	d.s.metrics.noRoom(err)
	return err
}

// collect asks the sources, pass after pass, until the round has all bytes. Its error ends the
// round.
func (d *download) collect(r *round) error {
	if r.leftover > 0 && r.complete() { // only the verdict was missing
		return nil
	}
	waits := d.newWaits()
	for {
		if err := d.yieldSlot(nil); err != nil {
			return err
		}
		before := r.have
		over, err := d.pass(r, waits)
		if over {
			return err
		}
		if errors.Is(err, errHanded) {
			if err := d.retakeSlot(func() []*candidate { return d.candidates(r) }); err != nil {
				return err
			}
			waits = d.newWaits()
			continue
		}
		if r.have > before { // go on at once, with a full budget
			waits = d.newWaits()
			sleep := d.sleep
			if errors.Is(err, verify.ErrStalled) {
				sleep = d.sleepDry
			}
			if err := sleep(d.pace.Reserve().Delay()); err != nil {
				return err
			}
			continue
		}
		if waits.patient && d.answered {
			waits = d.newWaits()
		}
		wait, ok := waits.next()
		if !ok || len(d.candidates(r)) == 0 {
			return d.exhausted(r)
		}
		d.s.log.Debug("no source gives bytes: waiting", "sum", d.f.blob.title(), "have", r.have, "wait", wait, "error", err)
		sleep := d.sleepDry
		if waits.patient {
			sleep = d.sleep
		}
		if err := sleep(wait); err != nil {
			return err
		}
	}
}

// sleep waits, unless the fill has to end.
func (d *download) sleep(wait time.Duration) error {
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-d.f.ctx.Done():
		}
	}
	return context.Cause(d.f.ctx)
}

// receive takes what comes of the body that a has got, from the first missing byte on. over: the
// round has ended, with err, or with all its bytes if that is nil.
func (d *download) receive(r *round, a *attempt) (over bool, err error) {
	defer a.end()
	c, body, offset := a.c, a.body, r.have
	if err := d.charge(c); err != nil {
		if !c.Once {
			d.answered, c.accepted, r.current = true, true, c // the next pass asks this source first
			return false, err
		}
		if err := d.retakeSlot(nil); err != nil {
			return true, err
		}
	}
	if over, err := d.accept(r, c, body); err != nil {
		return over, err
	}
	defer d.f.update(func() { d.f.from = "" })
	begun := time.Now()
	defer func() { d.took += time.Since(begun) }()
	if offset > 0 {
		d.s.metrics.resumes.WithLabelValues(c.Name).Inc()
	}
	if err := r.waitHashed(); err != nil {
		return true, err
	}
	if a.team != nil {
		d.spread(a, offset)
	}
	tempo := d.measure(c, a.body)
	defer tempo.tell()
	a.stall.Reset(a.limit)
	for {
		buf := r.hash.Buffer()
		n, err := tempo.read(buf)
		c = a.by()
		if over, err := d.hear(r, a); over {
			return true, err
		}
		if n > 0 {
			a.stall.Stop() // a slow disk is not the source's fault
			if over, err := d.take(r, c, buf[:n]); err != nil {
				return over, err
			}
		}
		end := err == io.EOF //nolint:errorlint // a Reader says it that way
		if err == nil {
			a.stall.Stop()
			if err := d.yieldSlot(c); err != nil {
				return !errors.Is(err, errHanded), err
			}
		}
		if err == nil || n > 0 && !end {
			if err := d.tooSlow(r, tempo); err != nil {
				return false, err
			}
		}
		if err == nil { // no byte is a sign of life too: the source skips forward
			a.stall.Reset(a.limit)
		}
		switch {
		case err == nil:
			continue
		case r.complete(), r.view.size < 0 && end: // all of it, and nothing after it
			r.credit(c)
			return true, nil
		case !end && !errors.Is(err, io.ErrUnexpectedEOF):
			return false, a.why(err)
		case r.have == offset && body.Size < 0 && end: // the source calls that complete
			return d.wrongSize(r, c, fmt.Sprintf("the body ends after %d bytes, want %d", r.have, r.view.size))
		default:
			c.ended = r.have == offset
			return false, a.why(fmt.Errorf("the body broke off after %d of %d bytes: %w", r.have, r.view.size, io.ErrUnexpectedEOF))
		}
	}
}

// accept looks at what a source claims of its body before any of it is taken.
func (d *download) accept(r *round, c *candidate, body *verify.Stream) (over bool, err error) {
	v, size := r.view, body.Size
	switch {
	case size > d.max:
		return d.wrongSize(r, c, fmt.Sprintf("the body is said to have %d bytes, at most %d are taken", size, d.max))
	case size < 0:
	case v.size >= 0 && size != v.size && (d.want.Size > 0 || r.have > 0):
		return d.wrongSize(r, c, fmt.Sprintf("the body is said to have %d bytes, want %d", size, v.size))
	case size < r.have: // then it is the leftover that is wrong
		return true, fmt.Errorf("%w: %d bytes of an earlier download, want %d", verify.ErrMismatch, r.have, size)
	}
	if !d.want.Checkable() {
		switch {
		case r.have == 0: // the claim of the first body is what the file will be held against
			if body.MD5 == nil && !d.f.blob.Unverified && !d.s.o.AllowUnverified {
				c.out = fmt.Errorf("source %s: %w", c.Name, ErrUnverified) // the source is not to blame
				d.s.metrics.failure(c.Name, whereUnchecked)
				d.s.log.Warn("a file is not fetched", "image", d.f.blob.Image, "file", d.f.key, "source", c.Name, "error", ErrUnverified)
				return false, ErrUnverified
			}
		case v.md5 != nil && body.MD5 != nil && !bytes.Equal(body.MD5, v.md5), v.md5 == nil && !body.ModTime.Equal(v.modTime):
			err := fmt.Errorf("%w: the file at the source has changed", verify.ErrMismatch)
			d.refuse(r, c, whereUnchecked, err)
			return true, err
		}
	}
	// Not earlier: others must not be evicted for what no source will bring.
	if total := max(size, d.want.Size); total > 0 {
		if err := d.book(total-r.have-d.booked, c); err != nil {
			return !errors.Is(err, errNoAdvance), err // then another source may do
		}
	}
	d.answered, c.accepted = true, true
	d.f.update(func() {
		if size >= 0 {
			v.size = size
		}
		if r.have == r.leftover { // the first body of the round speaks for it
			v.modTime, v.contentType = body.ModTime, body.ContentType
			if d.want.MD5 == nil {
				v.md5 = body.MD5
			}
		}
		v.open = true
		d.f.from = c.Name
	})
	return false, nil
}

// take writes and hashes bytes that c brought.
func (d *download) take(r *round, c *candidate, p []byte) (over bool, err error) {
	n := int64(len(p))
	limit, what := d.max, ", which is the limit"
	if r.view.size >= 0 {
		limit, what = r.view.size, ""
	}
	switch {
	case r.view.lost.Load():
		return true, errPartialLost
	case r.have+n > limit:
		r.credit(c) // whatever it brought is not to be trusted
		return d.wrongSize(r, c, fmt.Sprintf("the body has more than %d bytes%s", limit, what))
	}
	if d.booked < n { // of unknown size
		if err := d.book(min(max(n, bookAhead), d.max-r.have-d.booked), c); err != nil {
			return true, err
		}
	}
	if err := r.write(c, p); err != nil {
		return true, err
	}
	c.accepted = true
	d.booked -= n
	d.s.space.wrote(n)
	if !c.Once { // an upload is no source
		d.brought += n
		d.s.metrics.traffic.fetched.Add(n)
	}
	return false, nil
}

// wrongSize ends an attempt of a source whose body has another size than it should. If some of it
// is in the file, the round is over.
func (d *download) wrongSize(r *round, c *candidate, what string) (over bool, err error) {
	err = fmt.Errorf("%w: %s", verify.ErrMismatch, what)
	d.refuse(r, c, whereSize, err)
	return slices.Contains(r.from, c), err
}
