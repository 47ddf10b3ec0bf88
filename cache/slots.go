package cache

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// slots bounds how many fills run at the same time. Those that wait are served
// in the order in which they came, but the low ones after all others; a low one
// that runs is asked to make room when another waits.
type slots struct {
	urgent atomic.Int32 // tickets waiting that are not low; written under mu

	mu    sync.Mutex // guards what follows
	total int
	used  int
	queue []*ticket
}

// ticket is one fill's claim on a slot.
type ticket struct {
	low   bool          // guarded by slots.mu
	ready chan struct{} // closed when the slot is given; made anew by each wait
}

func newSlots(n int) *slots { return &slots{total: n} }

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

// promote makes t one that is not low.
func (s *slots) promote(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.low {
		return
	}
	t.low = false
	if slices.Contains(s.queue, t) {
		s.count(t, 1)
		s.grant()
	}
}

// isLow tells whether t is still one that is low.
func (s *slots) isLow(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.low
}

// wanted tells whether t, which has a slot, should give it to one that waits.
func (s *slots) wanted(t *ticket) bool {
	if s.urgent.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.low && s.urgent.Load() > 0
}

// resize sets the number of slots. Fills that run go on, also when there are
// more of them now than slots.
func (s *slots) resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = n
	s.grant()
}

// grant gives what is free to those whose turn it is. s.mu is held.
func (s *slots) grant() {
	for s.used < s.total && len(s.queue) > 0 {
		i := max(0, slices.IndexFunc(s.queue, func(t *ticket) bool { return !t.low }))
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
	if !t.low {
		s.urgent.Add(n)
	}
}

// SetFillSlots changes Options.FillSlots. Fills that run go on, also when there
// are more of them than that.
func (s *Store) SetFillSlots(n int) { s.slots.resize(n) }
