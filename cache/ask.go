package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"imgmirror/verify"
)

// headStart is what the first source has, before the last one is asked too, as
// long as none has accepted: one that cannot be reached must not keep a client
// from the others.
const headStart = 500 * time.Millisecond

// slowRefusal is how long a source takes to say no that is not asked twice by a
// client who waits: there is no time for it.
const slowRefusal = 1500 * time.Millisecond

// errStalled ends a try in which nothing came for Options.StallTimeout.
var errStalled = errors.New("stalled")

// attempt is one request to one source. When body is not nil, end must follow.
type attempt struct {
	c      *candidate
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  *time.Timer // ends ctx; stopped but while something is waited for
	limit  time.Duration
	body   *verify.Stream
	err    error         // why there is no body
	slow   bool          // that took long
	took   time.Duration // until the answer, since the sources were asked
}

func (f *fill) newAttempt(c *candidate) *attempt {
	c.ended = false
	a := &attempt{c: c, limit: f.s.o.StallTimeout}
	a.ctx, a.cancel = context.WithCancelCause(f.ctx)
	return a
}

// open asks for the bytes from offset on, and waits for the answer.
func (a *attempt) open(offset int64) {
	began := time.Now()
	a.stall = time.AfterFunc(a.limit, func() { a.cancel(fmt.Errorf("%w: no byte for %s", errStalled, a.limit)) })
	a.body, a.err = a.c.Open(a.ctx, offset)
	if !a.stall.Stop() && a.err == nil {
		a.body.Close() // read only
		a.body, a.err = nil, errStalled
	}
	if a.err != nil {
		a.err = a.why(a.err)
		a.slow = time.Since(began) >= slowRefusal
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
}

// why gives the stall that made the attempt fail, else err itself.
func (a *attempt) why(err error) error {
	if cause := context.Cause(a.ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// ask asks for the bytes from offset on: the first of candidates, or as long as
// none has accepted all of them, each a little after the one before, until one
// answers well. lost are those that did not; the rest has not been asked, or
// was called off.
func (f *fill) ask(candidates []*candidate, offset int64) (won *attempt, lost []*attempt) {
	if f.accepted {
		candidates = candidates[:1]
	}
	began := time.Now()
	pause := headStart / time.Duration(max(1, len(candidates)-1))
	next := time.NewTimer(0)
	defer next.Stop()
	var asked []*attempt
	answers := make(chan *attempt, len(candidates))
	for len(lost) < len(candidates) {
		select {
		case <-next.C:
			if len(asked) < len(candidates) {
				a := f.newAttempt(candidates[len(asked)])
				asked = append(asked, a)
				f.s.work.Go(func() {
					a.open(offset)
					answers <- a
				})
				next.Reset(pause)
			}
		case a := <-answers:
			a.took = time.Since(began)
			if a.err == nil {
				f.callOff(asked, len(asked)-len(lost)-1, a, answers)
				return a, lost
			}
			refused := errors.Is(a.err, fs.ErrNotExist) || errors.Is(a.err, fs.ErrPermission)
			if refused && (!a.c.accepted || a.c.Once) { // else the refusal may pass, as any break in mid-file does
				a.c.out = fmt.Errorf("source %s: %w", a.c.Name, a.err)
			}
			lost = append(lost, a)
			next.Reset(0)
		}
	}
	return nil, lost
}

// callOff ends those of asked that have not answered yet, pending of them.
func (f *fill) callOff(asked []*attempt, pending int, won *attempt, answers <-chan *attempt) {
	if pending == 0 {
		return
	}
	for _, a := range asked {
		if a != won {
			a.cancel(nil)
		}
	}
	f.s.work.Go(func() {
		for range pending {
			(<-answers).end()
		}
	})
}

// without is all but c.
func without(all []*candidate, c *candidate) []*candidate {
	return slices.DeleteFunc(all, func(other *candidate) bool { return other == c })
}
