package cache

import (
	"fmt"
	"time"

	"imgmirror/verify"
)

const (
	// defaultRateWindow is the time over which Options.MinRate counts.
	defaultRateWindow = time.Minute
	// ratedWindows is for how many windows a download believes what it has seen of a source's rate.
	ratedWindows = 10
	// muchFaster is how many times as fast a source must be to take over from a slow one.
	muchFaster = 2
)

// tempo measures how fast a source sends, over all bodies that come from it one after the other. Only
// the time counts in which the source is waited for: neither the mirror's own limit, nor the disk,
// nor a wait for a slot makes a source slow. The time between a body that breaks off and the next
// one counts.
type tempo struct {
	c      *candidate
	body   *verify.Stream
	window time.Duration
	broke  time.Time     // when the body before broke off; zero: it did not
	pace   verify.Pace   // of the body, after the last read
	bytes  int64         // in the window
	waited time.Duration // the part of the window that has passed
	rate   int64         // bytes a second, of the window before; valid once rated
	rated  bool
}

// measure gives the tempo of the body that c sends now.
func (d *download) measure(c *candidate, body *verify.Stream) *tempo {
	t := d.tempo
	if t == nil || t.c != c {
		t = &tempo{c: c, window: d.s.o.rateWindow}
		d.tempo = t
	}
	if !t.broke.IsZero() {
		t.waited += time.Since(t.broke)
	}
	t.body, t.pace, t.broke = body, verify.Pace{}, time.Time{}
	return t
}

// read is Read of the body, measured.
func (t *tempo) read(p []byte) (int, error) {
	began := time.Now()
	n, err := t.body.Read(p)
	t.waited += time.Since(began)
	t.bytes += int64(n)
	if t.body.Pace != nil {
		now := t.body.Pace()
		t.bytes += now.Skipped - t.pace.Skipped
		t.waited -= now.Held - t.pace.Held
		t.pace = now
	}
	if err != nil {
		t.broke = time.Now()
	}
	return n, err
}

// ended tells, once in each window, that the window has ended and rate is that of the window.
func (t *tempo) ended() bool {
	if t.waited < t.window {
		return false
	}
	t.take()
	return true
}

func (t *tempo) take() {
	t.rate, t.rated = int64(float64(t.bytes)/t.waited.Seconds()), true
	t.bytes, t.waited = 0, 0
}

// tell leaves with the candidate what was seen of its rate.
func (t *tempo) tell() {
	if !t.rated && t.bytes > 0 && t.waited > 0 {
		t.take()
	}
	if t.rated {
		t.c.rate, t.c.rated = t.rate, time.Now()
	}
}

// tooSlow ends the attempt of a source, with a stall, if the source has been slower than Options.MinRate for a window
// and another source may be much faster.
func (d *download) tooSlow(r *round, t *tempo) error {
	c := t.c
	if d.s.o.MinRate <= 0 || !t.ended() || t.rate >= d.s.o.MinRate || r.complete() {
		return nil
	}
	t.tell()
	d.s.metrics.slow.WithLabelValues(c.Name).Inc()
	next := d.faster(r, c)
	if next == nil {
		return nil
	}
	d.s.metrics.takeovers.WithLabelValues(c.Name).Inc()
	next.rate, next.rated = 0, time.Now() // as long as the source brings nothing
	d.next = next
	return fmt.Errorf("%w: %d bytes a second, at least %d are wanted", verify.ErrStalled, t.rate, d.s.o.MinRate)
}

// faster gives the source that is to take over from c; nil: there is none. The source is known to be
// much faster, or nothing is known of it: so two slow sources do not take turns. It also may have a
// slot now.
func (d *download) faster(r *round, c *candidate) (best *candidate) {
	for _, other := range d.candidates(r) {
		if other == c || !d.s.slots.welcome(d.f.ticket, other.Name) {
			continue
		}
		known := !other.rated.IsZero() && time.Since(other.rated) < ratedWindows*d.s.o.rateWindow
		switch {
		case known && (other.rate == 0 || other.rate < muchFaster*c.rate):
		case best == nil, known && other.rate > best.rate:
			best = other
		}
	}
	return best
}
