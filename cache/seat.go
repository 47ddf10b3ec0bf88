package cache

import (
	"context"
	"errors"
	"fmt"
)

// errHanded ends an attempt whose fill has no slot any more: the attempt's source is not to blame.
var errHanded = errors.New("the slot went to another download")

// takeSlot waits in the queue of downloads.
func (d *download) takeSlot() error {
	return d.queued(func() error { return d.s.slots.acquire(d.f.ctx, d.f.ticket) })
}

// retakeSlot waits, after the slot has gone to another download.
func (d *download) retakeSlot() error {
	d.seated = false
	return d.queued(func() error { return d.s.slots.wait(d.f.ctx, d.f.ticket) })
}

// queued waits for a slot by wait.
func (d *download) queued(wait func() error) error {
	d.s.metrics.slotsWaiting.Inc()
	defer d.s.metrics.slotsWaiting.Dec()
	d.f.update(func() { d.f.queued = true })
	defer d.f.update(func() { d.f.queued = false })
	if wait() == nil {
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
		d.s.slots.release(d.f.ticket)
	}
}

// yieldSlot gives the slot to another download where the rules of slots say so. A download that has
// a reader, or is ahead of need, waits for its next slot with its connection open. One that has lost
// its readers gives errHanded: the connection ends, and retakeSlot has to follow. body: there is a
// connection, of c.
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
	if c != nil && left && !c.Once { // its bytes can be had again
		return errHanded
	}
	return d.retakeSlot()
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
