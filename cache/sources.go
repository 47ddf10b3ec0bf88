package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"imgmirror/cache/ranges"
	"imgmirror/race"
	"imgmirror/verify"
)

// Waits between two passes over all sources (spec 5.5).
const (
	firstRefusalWait = 200 * time.Millisecond // while none has answered yet, within Options.Patience in all
	nextRefusalWait  = 300 * time.Millisecond
	firstDryWait     = time.Second // later
	longestDryWait   = time.Minute
	dryPasses        = 4 // without a byte: then the download fails
)

// headStart is what the first source has, before the last one is asked too, as long as none has
// answered well: one that cannot be reached must not keep a client from the others.
const headStart = 500 * time.Millisecond

// slowRefusal is the time after which a refusal is slow: the source is not asked twice before
// another has answered, as the client waits.
const slowRefusal = 1500 * time.Millisecond

// candidate is a source in the eyes of one download.
type candidate struct {
	Source
	out      error // why it is asked no more; nil while it is
	last     error // how its last attempt ended
	accepted bool  // it has answered well
	stalled  bool  // its last attempt stalled: others are asked before it
	slow     bool  // its last attempt took long to be refused, or was not made
	ended    bool  // its last attempt ended before the body did, and brought nothing
	whole    bool  // it has refused a range, or answered it with something else: it is asked for none

	rate  int64     // bytes a second that it brought lately; 0: none
	rated time.Time // when that was; zero: it has not brought bytes
}

// firstName is the name of the source that a download asks first; "" without sources.
func firstName(sources []Source) string {
	if len(sources) == 0 {
		return ""
	}
	return sources[0].Name
}

// waits is the schedule of passes over the sources.
type waits struct {
	patient bool          // no source has answered yet
	left    time.Duration // patient: until the end of patience
	passes  int           // not patient: until the end of the dry spell
	backoff backoff.ExponentialBackOff
}

func (d *download) newWaits() *waits {
	w := &waits{patient: !d.answered, left: d.s.o.Patience, passes: dryPasses}
	first, longest := firstDryWait, longestDryWait
	if w.patient { // ten tries: a source that fails with half of all questions gives its files
		first, longest = firstRefusalWait, nextRefusalWait
	}
	w.backoff = backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: longest}
	w.backoff.Reset()
	return w
}

// next tells how long to wait after a pass; !ok: there is to be no other pass.
func (w *waits) next() (_ time.Duration, ok bool) {
	wait := w.backoff.NextBackOff()
	if !w.patient {
		w.passes--
		return wait, w.passes > 0
	}
	wait = min(wait, w.left) // the last attempts are made when patience ends
	w.left -= wait
	return wait, wait > 0
}

// pass asks each source once, until one brings bytes. over: the round has ended, with err, or with
// all its bytes if that is nil; else err is how the last attempt ended.
func (d *download) pass(r *round, waits *waits) (over bool, err error) {
	if d.next != nil {
		r.current, d.next = d.next, nil
	}
	left := d.candidates(r)
	asked := func(c *candidate) {
		left = slices.DeleteFunc(left, func(other *candidate) bool { return other == c })
	}
	for len(left) > 0 {
		if d.charge(left[0]) != nil {
			if err := d.retakeSlot(func() []*candidate { return left }); err != nil {
				return true, err
			}
			if next := d.next; next != nil {
				d.next = nil
				asked(next)
				left = append([]*candidate{next}, left...)
			}
		}
		began, before := time.Now(), r.have
		won, lost := d.race(r, left)
		var refusing time.Duration // stalls apart
		for _, a := range lost {
			asked(a.c)
			a.c.slow = a.slow
			if err = r.failed(a.c, a.err); !a.c.stalled {
				refusing = a.took
			}
		}
		if won != nil {
			asked(won.c)
			over, err = d.receive(r, won)
		}
		if d.f.ctx.Err() != nil {
			return true, context.Cause(d.f.ctx)
		}
		if won != nil {
			if errors.Is(err, errHanded) {
				return false, err
			}
			if over && won.c.out == nil { // the source is not to blame
				return true, err
			}
			if err = r.failed(won.c, err); over {
				return true, err
			}
			r.current, d.next = cmp.Or(d.next, r.current), nil
			if r.have > before {
				d.s.log.Info("a download broke off", "sum", d.f.blob.title(), "have", r.have, "error", err)
				return false, err
			}
			if !won.c.stalled {
				refusing = time.Since(began)
			}
		}
		waits.left -= refusing
	}
	return false, err
}

// failed notes how the last attempt of c ended.
func (r *round) failed(c *candidate, err error) error {
	c.last = fmt.Errorf("source %s: %w", c.Name, err)
	if c.stalled = errors.Is(err, verify.ErrStalled); c.stalled {
		r.current = nil
	}
	return c.last
}

// candidates are the sources to ask, in this order: the one that is just bringing bytes, those in
// good health as configured, those that stalled last. There is one of them when the round's bytes
// must be all from one source: when mixed ones were wrong, and when there is nothing to check them
// against.
func (d *download) candidates(r *round) []*candidate {
	var all []*candidate
	for _, c := range d.f.candidates() {
		if r.have > 0 && slices.Contains(r.differ, c) { // bytes of two files make none
			continue
		}
		// What stalled, was slow to refuse, or rests, before any source answered, is not waited for twice.
		if c.out == nil && (d.answered || !c.stalled && !c.slow) {
			all = append(all, c)
		}
	}
	rank := func(c *candidate) int {
		switch {
		case c == r.current:
			return 0
		case c.stalled:
			return 2
		default:
			return 1
		}
	}
	slices.SortStableFunc(all, func(a, b *candidate) int { return rank(a) - rank(b) })
	alone := d.single || r.have > 0 && !d.want.Checkable() && r.view.md5 == nil
	if !alone || len(all) == 0 {
		return all
	}
	switch {
	case r.only != nil:
	case len(r.from) > 0:
		r.only = r.from[0]
	default:
		r.only = all[0]
	}
	if r.only.out != nil {
		return nil
	}
	return []*candidate{r.only}
}

// attempt is one request to one source, or with a team the first of many to several. When body is not
// nil, end must follow.
type attempt struct {
	c      *candidate
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  *time.Timer // ends ctx; stopped but while something is waited for
	limit  time.Duration
	body   *verify.Stream
	err    error         // why there is no body
	slow   bool          // that took long, or another try soon is of no use
	took   time.Duration // until the answer, since the sources were asked

	length int64              // bytes that are asked for; 0: all from the offset on
	drop   context.CancelFunc // with length: ends the request alone
	team   *team              // brings the rest, too; nil: body is all
	ranges *ranges.Body       // of the team; nil: it has not begun
}

// open asks for the bytes from offset on, and waits for the answer.
func (a *attempt) open(offset int64) {
	began := time.Now()
	a.stall = time.AfterFunc(a.limit, func() { a.cancel(fmt.Errorf("%w: no byte for %s", verify.ErrStalled, a.limit)) })
	if a.length > 0 {
		a.body, a.err = a.openRange(offset)
	} else {
		a.body, a.err = a.c.Open(a.ctx, offset)
	}
	if !a.stall.Stop() && a.err == nil {
		a.body.Close() // read only
		a.body, a.err = nil, verify.ErrStalled
	}
	if a.err != nil {
		a.err = a.why(a.err)
		a.slow = time.Since(began) >= slowRefusal || errors.Is(a.err, verify.ErrResting)
		a.cancel(nil)
	}
}

// end frees what the attempt holds.
func (a *attempt) end() {
	a.stall.Stop()
	a.cancel(nil)
	if a.body != nil {
		a.body.Close() // read only
	}
	a.team.leave()
}

// why gives the stall that made the attempt fail, else err itself.
func (a *attempt) why(err error) error {
	if cause := context.Cause(a.ctx); errors.Is(cause, verify.ErrStalled) {
		return cause
	}
	return err
}

// race asks for the round's missing bytes: the first of candidates, or as long as none has answered
// well all of them, each a little after the one before, until one does. lost are those that did
// not; the rest has not been asked, or was called off.
func (d *download) race(r *round, candidates []*candidate) (won *attempt, lost []*attempt) {
	offset, team := r.have, d.team(r)
	if d.answered {
		candidates = candidates[:1]
	}
	began := time.Now()
	pause := headStart / time.Duration(max(1, len(candidates)-1))
	var asked []*attempt
	won, late, ok := race.First(context.Background(), len(candidates), pause, func(i int, answers chan<- *attempt) {
		a := &attempt{c: candidates[i], limit: d.s.o.StallTimeout}
		a.ctx, a.cancel = context.WithCancelCause(d.f.ctx)
		a.length = team.length(a.c)
		a.c.ended = false
		asked = append(asked, a)
		d.s.work.Go(func() {
			a.open(offset)
			answers <- a
		})
	}, func(a *attempt) bool {
		a.took = time.Since(began)
		if a.err == nil {
			return true
		}
		a.c.heard(a.err)
		a.c.whole = a.c.whole || a.length > 0 && offset > 0 // it may give what is left in one request
		lost = append(lost, a)
		return false
	})
	if !ok {
		team.leave()
		return nil, lost
	}
	if won.body.Part > 0 {
		won.team = team
	} else { // all from the offset on is coming
		won.c.whole = won.c.whole || won.length > 0
		team.leave()
	}
	for _, other := range asked {
		if other != won {
			other.cancel(nil)
		}
	}
	d.s.work.Go(func() { // the others end, too
		for other := range late {
			other.end()
		}
	})
	return won, lost
}

// heard takes in why c has sent nothing. It is asked no more where it refuses the file.
func (c *candidate) heard(err error) {
	refused := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
	if refused && (!c.accepted || c.Once) { // else the refusal may pass, as any break in mid-file does
		c.out = fmt.Errorf("source %s: %w", c.Name, err)
	}
	c.whole = c.whole || errors.Is(err, ranges.ErrWhole)
}

// refuse puts a source that is wrong out of this download, and remembers it.
func (d *download) refuse(r *round, c *candidate, where string, why error) {
	c.out = fmt.Errorf("source %s: %w", c.Name, why)
	d.s.metrics.failure(c.Name, where)
	dear := slices.Contains(r.from, c)
	d.s.mu.Lock()
	d.s.liars.distrust(c, d.f.key, dear)
	d.s.mu.Unlock()
	if dear {
		d.s.advances.lost(c.Source, &d.claim, d.s.share())
	}
	d.s.log.Warn("a source gives wrong bytes", "sum", d.f.blob.title(), "source", c.Name, "where", where, "error", why)
	d.tellWrong(c.Name, why)
}

// exhaustedError says that no source is left to ask, and what each said. It matches what that means
// taken together, and not what a single one said.
type exhaustedError struct {
	meaning error
	said    []string
}

// answers are those of sources from which something follows, the weightiest first.
var answers = []struct{ is, means error }{
	{verify.ErrMismatch, verify.ErrMismatch},
	{ErrUnverified, ErrUnverified},
	{ErrNoSpace, ErrNoSpace},
	{fs.ErrPermission, ErrRefused},
	{fs.ErrNotExist, fs.ErrNotExist},
}

// exhausted says why the sources could not bring the bytes, and counts those that have less of the
// file than they should. Only what all agree on has a meaning: "not there" of one source says
// nothing if another could not tell.
func (d *download) exhausted(r *round) error {
	e := &exhaustedError{meaning: verify.ErrUnavailable}
	heard := len(answers)
	for _, c := range d.f.candidates() {
		err := c.out
		if err == nil {
			err = c.last
		}
		heard = min(heard, slices.IndexFunc(answers, func(a struct{ is, means error }) bool { return errors.Is(err, a.is) }))
		if err != nil {
			e.said = append(e.said, err.Error())
		}
		if c.ended && c.out == nil && r.view.size >= 0 { // it has had its chances to send the rest
			d.s.metrics.failure(c.Name, whereSize)
			d.tellWrong(c.Name, fmt.Errorf("%w: the body ends before its %d bytes", verify.ErrMismatch, r.view.size))
		}
	}
	if heard >= 0 && heard < len(answers) { // -1: a source could not tell
		e.meaning = answers[heard].means
	}
	return e
}

func (e *exhaustedError) Error() string {
	if e.said == nil {
		return "there is no source to ask"
	}
	return strings.Join(e.said, "; ")
}

func (e *exhaustedError) Unwrap() error { return e.meaning }
