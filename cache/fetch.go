package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"imgmirror/verify"
)

// Waits between two passes over all sources (spec 5.5).
const (
	firstRefusalWait = 200 * time.Millisecond // while none has accepted yet, within Options.Patience in all
	firstDryWait     = time.Second            // later
	dryPasses        = 4                      // without a byte: then the fill fails
)

// fetch brings bytes from the sources until the round has all of them. Its
// error ends the round.
func (f *fill) fetch(r *round) error {
	if f.leftoverIsAll(r) {
		return nil
	}
	waits := f.newWaits()
	for {
		if err := f.makeRoom(); err != nil {
			return err
		}
		pass := f.askAll(r)
		if pass.over {
			return pass.err
		}
		if pass.brought { // go on at once, with a full budget
			waits = f.newWaits()
			if err := f.sleep(f.pace.Reserve().Delay()); err != nil {
				return err
			}
			continue
		}
		if waits.patient && f.accepted {
			waits = f.newWaits()
		}
		if len(f.candidates(r)) == 0 {
			return f.exhausted(r)
		}
		wait, ok := waits.next(pass.refusing)
		if !ok {
			return f.exhausted(r)
		}
		f.s.log.Debug("no source gives bytes: waiting", "sum", f.first.title(), "have", r.have, "wait", wait, "error", pass.err)
		if err := f.sleep(wait); err != nil {
			return err
		}
	}
}

// sleep waits, unless the fill has to end.
func (f *fill) sleep(d time.Duration) error {
	if d > 0 {
		select {
		case <-time.After(d):
		case <-f.ctx.Done():
		}
	}
	return context.Cause(f.ctx)
}

// leftoverIsAll tells whether an earlier download had brought everything, so
// that only the verdict was missing.
func (f *fill) leftoverIsAll(r *round) bool { return r.leftover > 0 && r.have == r.size }

// waits is the schedule of passes over the sources.
type waits struct {
	patient bool          // no source has accepted yet
	left    time.Duration // patient: until the end of patience
	passes  int           // not patient: until the end of the dry spell
	backoff backoff.ExponentialBackOff
}

func (f *fill) newWaits() *waits {
	w := &waits{patient: !f.accepted, left: f.s.o.Patience, passes: dryPasses}
	first := firstDryWait
	if w.patient {
		first = firstRefusalWait
	}
	w.backoff = backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: time.Minute}
	w.backoff.Reset()
	return w
}

// next tells how long to wait after a pass in which sources refused for that
// long; !ok: there is to be no other pass.
func (w *waits) next(refusing time.Duration) (_ time.Duration, ok bool) {
	wait := w.backoff.NextBackOff()
	if !w.patient {
		w.passes--
		return wait, w.passes > 0
	}
	w.left -= refusing
	if w.left <= 0 {
		return 0, false
	}
	wait = min(wait, w.left) // the last try is made when patience ends
	w.left -= wait
	return wait, true
}

// pass is the outcome of asking each source once.
type pass struct {
	over     bool          // the round is over
	brought  bool          // bytes came, and then no more
	refusing time.Duration // spent on sources that did not accept, stalls apart
	err      error         // over: why, or nil for a complete body; else how the last try ended
}

// askAll asks the sources in turn until one brings bytes.
func (f *fill) askAll(r *round) pass {
	var p pass
	for left := f.candidates(r); len(left) > 0; {
		began, before := time.Now(), r.have
		won, lost := f.ask(left, before)
		var refusing time.Duration
		for _, a := range lost {
			left = without(left, a.c)
			a.c.slow = a.slow
			if p.err = r.failed(a.c, a.err); !a.c.stalled {
				refusing = a.took
			}
		}
		var over bool
		if won != nil {
			left = without(left, won.c)
			over, p.err = f.try(r, won)
		}
		if f.ctx.Err() != nil {
			return pass{over: true, err: context.Cause(f.ctx)}
		}
		if won == nil {
			p.refusing += refusing
			continue
		}
		if over && won.c.out == nil {
			return pass{over: true, err: p.err} // the source is not to blame
		}
		if p.err = r.failed(won.c, p.err); over {
			return pass{over: true, err: p.err}
		}
		if r.have > before {
			f.s.log.Info("a download broke off", "sum", f.first.title(), "have", r.have, "error", p.err)
			p.brought = true
			return p
		}
		if !won.c.stalled {
			refusing = time.Since(began)
		}
		p.refusing += refusing
	}
	return p
}

// failed notes how the last try of c ended.
func (r *round) failed(c *candidate, err error) error {
	c.last = fmt.Errorf("source %s: %w", c.Name, err)
	if c.stalled = errors.Is(err, errStalled); c.stalled {
		r.lead = nil
	}
	return c.last
}

// candidates are the sources to ask, in this order: the one that is just
// bringing bytes, those in good health as configured, those that stalled last.
func (f *fill) candidates(r *round) []*candidate {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*candidate
	for _, c := range f.sources {
		// What stalled or was slow to refuse before anyone accepted is not waited for twice.
		if c.out == nil && (f.accepted || !c.stalled && !c.slow) {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b *candidate) int { return rank(r, a) - rank(r, b) })
	if f.alone(r) && len(all) > 0 {
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
		all = []*candidate{r.only}
	}
	return all
}

func rank(r *round, c *candidate) int {
	switch {
	case c == r.lead:
		return 0
	case c.stalled:
		return 2
	default:
		return 1
	}
}

// alone tells whether the round's bytes must be all from one source: when mixed
// ones were wrong, and when there is nothing to check them against.
func (f *fill) alone(r *round) bool {
	return f.solo || r.have > 0 && !f.want.Checkable() && r.md5 == nil
}

// exhausted says why the sources could not bring the bytes, and counts those
// that have less of the file than they should. Only what all agree on has a
// meaning: "not there" of one source says nothing if another could not tell.
func (f *fill) exhausted(r *round) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var absent, refused, wrong, unverified, unknown int
	e := &exhaustedError{meaning: verify.ErrUnavailable}
	for _, c := range f.sources {
		err := c.out
		if err == nil {
			err = c.last
		}
		switch {
		case err == nil:
			unknown++
			continue
		case errors.Is(err, verify.ErrMismatch):
			wrong++
		case errors.Is(err, ErrUnverified):
			unverified++
		case errors.Is(err, fs.ErrNotExist):
			absent++
		case errors.Is(err, fs.ErrPermission):
			refused++
		default:
			unknown++
		}
		e.said = append(e.said, err.Error())
		if c.ended && c.out == nil && r.size >= 0 { // it has had its chances to send the rest
			f.s.metrics.failure(c.Name, whereSize)
		}
	}
	switch {
	case unknown > 0 || absent+refused+wrong+unverified == 0:
	case wrong > 0:
		e.meaning = verify.ErrMismatch
	case unverified > 0:
		e.meaning = ErrUnverified
	case refused > 0:
		e.meaning = ErrRefused
	default:
		e.meaning = fs.ErrNotExist
	}
	return e
}

// exhaustedError says that no source is left to ask, and what each said. It
// matches what that means taken together, and not what a single one said.
type exhaustedError struct {
	meaning error
	said    []string
}

func (e *exhaustedError) Error() string {
	if e.said == nil {
		return "there is no source to ask"
	}
	return strings.Join(e.said, "; ")
}

func (e *exhaustedError) Unwrap() error { return e.meaning }
