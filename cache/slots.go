package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// slots bounds how many fills run at the same time. Those that wait are served in the order in
// which they came, but those ahead of need after all others; one of these that runs is asked to
// yield its slot when another waits.
type slots struct {
	urgent atomic.Int32 // tickets waiting that are not ahead of need; written under mu

	mu    sync.Mutex // guards what follows
	total int
	used  int
	queue []*ticket
}

// ticket is one fill's claim on a slot.
type ticket struct {
	needed atomic.Bool   // a client or a job waits for the fill, which is else ahead of need; written under slots.mu
	ready  chan struct{} // closed when the slot is given; made anew by each wait
}

func newSlots(n int) *slots {
	s := new(slots)
	s.resize(n)
	return s
}

// acquire waits for a slot. Unless it fails with ctx's error, release must follow.
func (s *slots) acquire(ctx context.Context, t *ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	t.ready = make(chan struct{})
	s.queue = append(s.queue, t)
	s.count(t, 1)
	s.grant()
	s.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.queue, t); i >= 0 {
		s.take(i)
	} else { // it was given at the same moment
		s.used--
		s.grant()
	}
	return ctx.Err()
}

// release gives a slot back.
func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	s.grant()
}

// promote makes t one that is not ahead of need.
func (s *slots) promote(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.needed.Swap(true) && slices.Contains(s.queue, t) {
		s.count(t, 1)
		s.grant()
	}
}

// wanted tells whether t, which has a slot, should give it to one that waits.
func (s *slots) wanted(t *ticket) bool { return s.urgent.Load() > 0 && !t.needed.Load() }

// resize sets the number of slots; 0 = defaultFillSlots. Fills that run go on, also when there are more of them now than
// slots.
func (s *slots) resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = cmp.Or(max(0, n), defaultFillSlots)
	s.grant()
}

// grant gives what is free to those whose turn it is. s.mu is held.
func (s *slots) grant() {
	for s.used < s.total && len(s.queue) > 0 {
		i := max(0, slices.IndexFunc(s.queue, func(t *ticket) bool { return t.needed.Load() }))
		s.used++
		close(s.take(i).ready)
	}
}

// take takes a ticket out of the queue. s.mu is held.
func (s *slots) take(i int) *ticket {
	t := s.queue[i]
	s.queue = slices.Delete(s.queue, i, i+1)
	s.count(t, -1)
	return t
}

func (s *slots) count(t *ticket, n int32) {
	if t.needed.Load() {
		s.urgent.Add(n)
	}
}

// takeSlot waits in the queue of downloads.
func (d *download) takeSlot() error {
	d.s.metrics.slotsWaiting.Inc()
	defer d.s.metrics.slotsWaiting.Dec()
	if d.s.slots.acquire(d.f.ctx, d.f.ticket) == nil {
		d.seated = true
		return nil
	}
	cause := context.Cause(d.f.ctx)
	if !errors.Is(cause, ErrClosed) {
		d.s.metrics.slotsRefused.Inc()
	}
	return fmt.Errorf("waiting for a slot: %w", cause)
}

// giveSlot gives the slot back, if the download has one.
func (d *download) giveSlot() {
	if d.seated {
		d.seated = false
		d.s.slots.release()
	}
}

// yieldSlot lends the slot of a download ahead of need to one that a client waits for, and waits
// for another.
func (d *download) yieldSlot() error {
	if !d.s.slots.wanted(d.f.ticket) {
		return nil
	}
	d.giveSlot()
	return d.takeSlot()
}

// SetFillSlots changes Options.FillSlots. Fills that run go on, also when there are more of them
// than that.
func (s *Store) SetFillSlots(n int) { s.slots.resize(n) }
