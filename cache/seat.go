package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errHanded ends an attempt whose fill has no slot any more: the attempt's source is not to blame.
var errHanded = errors.New("the slot went to another download")

// takeSlot waits in the queue of downloads.
func (d *download) takeSlot() error {
	return d.queued(d.s.slots.acquire, d.f.candidates)
}

// retakeSlot waits, after the slot has gone to another download. others gives the sources of which a
// slot will do, too; nil: none will.
func (d *download) retakeSlot(others func() []*candidate) error {
	d.seated = false
	return d.queued(d.s.slots.wait, others)
}

// queued waits for a slot by wait. If the slot is of one of the others, next is that source.
func (d *download) queued(wait func(context.Context, *ticket) error, others func() []*candidate) error {
	d.s.metrics.slotsWaiting.Inc()
	defer d.s.metrics.slotsWaiting.Dec()
	d.f.update(func() { d.f.queued = true })
	defer d.f.update(func() { d.f.queued = false })
	t := d.f.ticket
	before := t.source
	t.others = nil
	if others != nil {
		t.others = func() []string { return willing(others()) }
	}
	if wait(d.f.ctx, t) == nil {
		d.seated = true
		if t.source != before {
			d.next = named(others(), t.source)
		}
		return nil
	}
	cause := context.Cause(d.f.ctx)
	if !errors.Is(cause, ErrClosed) {
		d.s.metrics.slotsRefused.Inc()
	}
	return fmt.Errorf("waiting for a slot: %w", cause)
}

// willing gives the names of those of sources that may still bring the bytes.
func willing(sources []*candidate) (names []string) {
	for _, c := range sources {
		if c.out == nil && !c.stalled {
			names = append(names, c.Name)
		}
	}
	return names
}

// named gives the one of sources with the name; nil: there is none.
func named(sources []*candidate, name string) *candidate {
	for _, c := range sources {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// sleepDry waits until the sources, which have answered and gave no byte, are asked again. A needed
// download has no slot meanwhile: another image of the source may be well.
func (d *download) sleepDry(wait time.Duration) error {
	t := d.f.ticket
	if !t.is().needed() {
		return d.sleep(wait)
	}
	d.giveSlot()
	t.dry = true
	if err := d.sleep(wait); err != nil {
		return err
	}
	return d.takeSlot()
}

// giveSlot gives the slot back, if the download has one.
func (d *download) giveSlot() {
	if d.seated {
		d.seated = false
		d.s.slots.release(d.f.ticket)
	}
}

// yieldSlot gives the slot to another download where the rules of slots say so. A download that has
// a reader, or is ahead of need, waits for its next slot with its connection open. One that has lost
// its readers gives errHanded: the connection ends, and retakeSlot has to follow; or errDropped, where
// the queue is crowded. c is the source of the connection; nil: there is none.
func (d *download) yieldSlot(c *candidate) error {
	t := d.f.ticket
	if !d.s.slots.pressed(t) {
		return nil
	}
	left := t.is() == rankLeft
	if !d.s.slots.hand(t) {
		return nil
	}
	d.s.metrics.slotsHanded.WithLabelValues(handedReason(t.is())).Inc()
	if left && d.f.giveUp() {
		return errDropped
	}
	if c != nil && left && !c.Once { // its bytes can be had again
		return errHanded
	}
	return d.retakeSlot(nil)
}

// charge puts the download on the account of the source c. errHanded: the source may have no more
// slots just now, and retakeSlot has to follow.
func (d *download) charge(c *candidate) error {
	if d.s.slots.charge(d.f.ticket, c.Name) {
		return nil
	}
	d.s.metrics.slotsHanded.WithLabelValues(handedSource).Inc()
	return errHanded
}

// SetFillSlots changes Options.FillSlots. Fills that run go on, also when there are more of them
// than that.
func (s *Store) SetFillSlots(n int) { s.slots.resize(n) }
