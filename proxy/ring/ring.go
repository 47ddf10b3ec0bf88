// Package ring is a bounded queue of values that many goroutines put in and one takes out in batches.
// No writer waits, takes a lock or allocates: a value is written into its place, which exists from the
// start, and a writer that finds the ring full is told so. The reader is woken once a batch.
package ring

import (
	"context"
	"sync/atomic"
	"time"
)

// Ring has places for values of T. Writers may be many; Next and Release are for one reader at a time.
//
// The turn of a place tells whose the place is: with the number n of a value, counted from 0, the
// place is n's writer's at turn n, the reader's at n+1, and free for the value n+size at n+size.
type Ring[T any] struct {
	places []Place[T]
	mask   uint64
	wake   chan struct{} // a token in it: a batch is there, or the first value after a sleep
	asleep atomic.Bool   // Run waits for a first value
	hurry  atomic.Bool   // values are not to gather

	_    [64]byte      // writers and the reader each have cache lines of their own
	head atomic.Uint64 // number of the next value
	_    [64]byte
	tail atomic.Uint64 // number of the oldest value that was not released
}

// Place has one value. Index is the place's own number, from 0, and never changes.
type Place[T any] struct {
	turn  atomic.Uint64
	Index int
	Value T
}

// New makes a ring of size places, a power of two.
func New[T any](size int) *Ring[T] {
	if size < 2 || size&(size-1) != 0 {
		panic("ring: the size is no power of two")
	}
	r := &Ring[T]{places: make([]Place[T], size), mask: uint64(size) - 1, wake: make(chan struct{}, 1)}
	for i := range r.places {
		r.places[i].Index = i
		r.places[i].turn.Store(uint64(i))
	}
	return r
}

// Claim gives a place to write a value in; nil: the ring is full. The place has some former value. The
// caller must Publish the place soon: the reader gets no later value before.
func (r *Ring[T]) Claim() *Place[T] {
	n := r.head.Load()
	for {
		p := &r.places[n&r.mask]
		turn := p.turn.Load()
		switch {
		case turn == n && r.head.CompareAndSwap(n, n+1):
			return p
		case turn < n: // the value that is size older was not taken out
			return nil
		}
		n = r.head.Load()
	}
}

// Publish hands a claimed place to the reader.
func (r *Ring[T]) Publish(p *Place[T]) {
	published := p.turn.Add(1)
	if published&(r.mask>>1) == 0 || r.asleep.Load() && r.asleep.CompareAndSwap(true, false) {
		select {
		case r.wake <- struct{}{}:
		default: // a token is there
		}
	}
}

// Hurry has Run take the values that are there at once.
func (r *Ring[T]) Hurry() {
	r.hurry.Store(true)
	select {
	case r.wake <- struct{}{}:
	default: // a token is there
	}
}

// Next gives the place of the oldest value, for the reader alone until Release; nil: no value is there.
func (r *Ring[T]) Next() *Place[T] {
	n := r.tail.Load()
	if p := &r.places[n&r.mask]; p.turn.Load() == n+1 {
		return p
	}
	return nil
}

// Release frees the place of Next.
func (r *Ring[T]) Release(p *Place[T]) {
	n := r.tail.Add(1)
	p.turn.Store(n + r.mask)
}

// Len is the number of values that wait, those being written included.
func (r *Ring[T]) Len() int {
	tail := r.tail.Load()                              // first: the difference is never negative
	return min(int(r.head.Load()-tail), len(r.places)) //nolint:gosec // at most the ring's size, but for values between the two
}

// Run calls take whenever values have gathered for the time gather, half of the ring is full, or Hurry was
// called, until ctx ends, and once more then. take takes out what is there, by Next and Release. Run sleeps while no
// value comes.
func (r *Ring[T]) Run(ctx context.Context, gather time.Duration, take func()) {
	pause := time.NewTimer(gather)
	defer pause.Stop()
	defer take()
	for {
		r.asleep.Store(true)
		if !r.waiting() {
			select {
			case <-r.wake:
			case <-ctx.Done():
				return
			}
		}
		r.asleep.Store(false)
		if !r.hurry.Load() {
			pause.Reset(gather)
			select {
			case <-pause.C:
			case <-r.wake:
			case <-ctx.Done():
				return
			}
		}
		r.hurry.Store(false) // first: take sees what came before a Hurry
		take()
	}
}

// waiting tells whether a value is there; the reader may be another goroutine than the caller.
func (r *Ring[T]) waiting() bool {
	for {
		n := r.tail.Load()
		there := r.places[n&r.mask].turn.Load() == n+1
		if r.tail.Load() == n {
			return there
		}
	}
}
