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

// reserve sets n bytes aside for a fill, after it has made the room for them: what was least
// recently used goes until they fit, and then down to the low water. Nothing goes if that would not
// be enough; then it fails with ErrNoSpace. Nothing goes for a fill ahead of need either: where all
// that may go is not enough, these fills end.
func (s *Store) reserve(ctx context.Context, n int64, ahead bool) error {
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
	s.evicting.Lock() // one at a time, or each would make the same room
	defer s.evicting.Unlock()
	gaveUp := false // the quarantine, and its room may not show yet
	for {
		full = s.space.book(n)
		if !errors.Is(full, ErrNoSpace) {
			return full
		}
		d, err := s.space.need(n)
		if err != nil {
			return err
		}
		if d.must == 0 { // the room has just become free
			continue
		}
		if d.reason == ReasonMinFree && !gaveUp && s.quarantine.used() {
			if err := s.quarantine.limit(0, 0); err != nil {
				return err
			}
			gaveUp = true
			continue // that may do
		}
		gone := s.evict(s.plan(d))
		if len(gone) == 0 && s.endAhead(ctx) { // what they had booked is free
			continue
		}
		if d.reason != ReasonMinFree {
			if len(gone) == 0 {
				return full
			}
			continue
		}
		if len(gone) == 0 && !gaveUp {
			return full
		}
		gaveUp = false
		if err := s.awaitSpace(ctx, n); !errors.Is(err, ErrNoSpace) {
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
	case len(s.plan(d)) > 0, len(s.ahead()) > 0: // what fills ahead of need have booked can be had, too
		return nil
	}
	if d.reason == ReasonMinFree { // reserve gives up the quarantine for that
		if s.quarantine.used() {
			return nil
		}
	}
	return fmt.Errorf("%w: %d bytes wanted, and nothing that may be evicted would make room for them (%s)", ErrNoSpace, n, d.reason)
}

// awaitSpace books n bytes as soon as the file system shows the room that was made, for
// freeingLimit at most.
func (s *Store) awaitSpace(ctx context.Context, n int64) error {
	poll := time.NewTicker(freeingPoll)
	defer poll.Stop()
	limit := time.NewTimer(freeingLimit)
	defer limit.Stop()
	for {
		err := s.space.book(n)
		if !errors.Is(err, ErrNoSpace) {
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

// book sets n bytes aside, in addition to what is booked.
func (d *download) book(n int64) error {
	if n <= 0 {
		return nil
	}
	err := d.s.reserve(d.f.ctx, n, d.f.ahead())
	if errors.Is(err, errNoRoomAhead) && !d.f.ahead() { // a client has come meanwhile
		err = d.s.reserve(d.f.ctx, n, false)
	}
	if err == nil {
		d.booked += n
	}
	return err
}
