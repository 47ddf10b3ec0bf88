package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errNoRoomAhead is the ErrNoSpace of a fill ahead of need: for a client, room would have been
// made.
var errNoRoomAhead = fmt.Errorf("%w: a download ahead of need takes free room only", ErrNoSpace)

// Freed space may take a while to show in what the file system tells, with ZFS until the
// transaction group is through.
const (
	freeingLimit = 10 * time.Second
	freeingPoll  = 100 * time.Millisecond
)

// reserve sets n bytes of src aside for a fill, and makes room for them. As long as the bytes are not
// verified, files go for them only as far as advance allows, the least recently used first; the rest
// is lent (see space.lend) until confirm. Nothing goes, and nothing is lent, if all that may go would
// not be enough; then reserve fails with ErrNoSpace. Nothing goes for a fill ahead of need either: where all
// that may go is not enough, these fills end.
func (s *Store) reserve(ctx context.Context, n int64, ahead bool, src Source, c *claim) error {
	full := s.space.book(n)
	if !errors.Is(full, ErrNoSpace) {
		return full
	}
	if ahead {
		return fmt.Errorf("%w (%w)", errNoRoomAhead, full)
	}
	if err := s.space.never(n); err != nil {
		return err
	}
	if err := s.evicting.take(ctx); err != nil { // one at a time, or each would make the same room
		return err
	}
	defer s.evicting.leave()
	c.tight = true
	gaveUp := false // the quarantine, and its room may not show yet
	for {
		full = s.space.book(n)
		if !errors.Is(full, ErrNoSpace) {
			return full
		}
		size, room, err := s.space.needs(n)
		if err != nil {
			return err
		}
		if size.must == 0 && room.must == 0 { // the room has just become free
			continue
		}
		if room.must > 0 && !gaveUp && s.quarantine.used() {
			if err := s.quarantine.limit(0, 0); err != nil {
				return err
			}
			gaveUp = true
			continue // that may do
		}
		plan := s.plan(size.or(room))
		switch {
		case len(plan) > 0:
		case s.endAhead(ctx): // what they had booked is free
			continue
		case s.endJudged(ctx): // now they may be evicted
			continue
		case room.must == 0 || !gaveUp:
			return full
		}
		plan, err = s.advance(plan, src, c, size.must, max(room.must, s.space.beyondLoans(size.must)))
		if err != nil {
			return err
		}
		gone := s.evict(plan)
		s.advances.took(c, verified(gone))
		if room.must == 0 && sizes(gone) >= size.must { // a smaller download may have taken the room meanwhile
			continue
		}
		if room.must > 0 && len(gone) == 0 && !gaveUp {
			return full
		}
		gaveUp = false
		if err := s.awaitSpace(ctx, n, c, room.must > 0); !errors.Is(err, ErrNoSpace) || room.must == 0 {
			return err
		}
	}
}

// mayFit fails with ErrNoSpace when n bytes do not fit, whatever may be evicted for them: then no
// source need be asked. It sets nothing aside.
func (s *Store) mayFit(n int64, ahead bool) error {
	if n <= 0 {
		return nil
	}
	if err := s.space.never(n); err != nil {
		return err
	}
	d, err := s.space.need(n)
	switch {
	case err != nil || d.must == 0:
		return err
	case ahead:
		return fmt.Errorf("%w: there are %d bytes too few (%s)", errNoRoomAhead, d.must, d.reason)
	case len(s.plan(d)) > 0, len(s.ahead()) > 0, len(s.judged()) > 0: // what fills ahead of need have booked can be had, too
		return nil
	}
	if d.reason == ReasonMinFree { // reserve gives up the quarantine for that
		if s.quarantine.used() {
			return nil
		}
	}
	return fmt.Errorf("%w: %d bytes wanted, and nothing that may be evicted would make room for them (%s)", ErrNoSpace, n, d.reason)
}

// awaitSpace lends n bytes: if slow, as soon as the file system shows the room that was made, for
// freeingLimit at most.
func (s *Store) awaitSpace(ctx context.Context, n int64, c *claim, slow bool) error {
	poll := time.NewTicker(freeingPoll)
	defer poll.Stop()
	limit := time.NewTimer(freeingLimit)
	defer limit.Stop()
	for {
		loan, err := s.space.lend(n)
		if c.loan += loan; !slow || !errors.Is(err, ErrNoSpace) {
			return err
		}
		select {
		case <-poll.C:
		case <-limit.C:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ahead gives the fills ahead of need.
func (s *Store) ahead() (all []*fill) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.fills {
		if f.ahead() {
			all = append(all, f)
		}
	}
	return all
}

// endAhead ends the fills ahead of need, whose room is needed now, and waits until they are over.
// It tells whether there were any.
func (s *Store) endAhead(ctx context.Context) bool {
	ending := slices.DeleteFunc(s.ahead(), func(f *fill) bool { return !f.yield() })
	for _, f := range ending {
		if f.ended(ctx) != nil {
			return false
		}
	}
	return len(ending) > 0
}

// judged gives the fills with a verdict and without a reader: once they are over their files may be
// evicted.
func (s *Store) judged() (all []*fill) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, f := range s.fills {
		f.mu.Lock()
		if f.judged() && !f.queued && f.hold.n.Load() == 0 {
			all = append(all, f)
		}
		f.mu.Unlock()
	}
	return all
}

// endJudged waits until the fills of judged are over, or have lost their files: these may need the caller's
// slot, or turn, to go on. It tells whether there were any.
func (s *Store) endJudged(ctx context.Context) bool {
	ending := s.judged()
	for _, f := range ending {
		f.urge()
	}
	for _, f := range ending {
		if f.await(ctx, func() bool { return f.over || f.queued || !f.judged() }) != nil {
			return false
		}
	}
	return len(ending) > 0
}

// book sets n bytes of c aside, in addition to what is booked.
func (d *download) book(n int64, c *candidate) error {
	if n <= 0 {
		return nil
	}
	err := d.s.reserve(d.f.ctx, n, d.f.ahead(), c.Source, &d.claim)
	if errors.Is(err, errNoRoomAhead) && !d.f.ahead() { // a client has come meanwhile
		err = d.s.reserve(d.f.ctx, n, false, c.Source, &d.claim)
	}
	switch {
	case err == nil:
		d.booked += n
	case errors.Is(err, errNoAdvance):
		c.out = err
	}
	d.s.metrics.noRoom(err)
	return err
}
