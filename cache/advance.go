package cache

import (
	"fmt"
	"sync"
	"time"
)

// Until the sum of a download holds, its bytes are worth nothing, and yet they need room. This file
// has the rule for what these bytes may cost the verified files (adr 16).
//
//	free room        is taken by all
//	the share        of what may be stored is made free in advance, for all downloads together
//	beyond MaxSize   the rest is lent where the file system has the room; files go once the sum holds
//	beyond the share files go in advance only for MinFree, and only for a source that has not lied

// advanceShare is the part of what may be stored that may go for bytes without a verdict: one in
// that many.
const advanceShare = 10

// errNoAdvance is the ErrNoSpace of a source for which no more verified files go in advance.
var errNoAdvance = fmt.Errorf("%w: no more verified files are removed for bytes that may be wrong", ErrNoSpace)

// claim is what the room of one download costs others. The download's goroutine owns it.
type claim struct {
	loan    int64 // bytes beyond MaxSize
	removed int64 // bytes of verified files that went in advance
	beyond  bool  // more than the share went for a source without a proof
	tight   bool  // there was no free room
}

// advances is the account of the verified files that went for bytes without a verdict.
type advances struct {
	mu     sync.Mutex      // guards what follows
	out    int64           // bytes that went for downloads under way
	beyond int             // downloads whose claim is beyond
	proven map[string]bool // sources that have brought right bytes in this process
	losses map[string]loss // by source
}

// loss is what wrong bytes of a source have cost. It is forgotten at the rate of one share in each
// liarMemory.
type loss struct {
	bytes int64
	when  time.Time
}

// left is what is left of the loss by now.
func (l loss) left(share int64) int64 {
	forgotten := time.Since(l.when).Seconds() / liarMemory.Seconds() * float64(share)
	return max(0, l.bytes-int64(min(forgotten, float64(l.bytes))))
}

// allowance tells how many bytes of verified files may go for unverified bytes of src.
func (a *advances) allowance(src Source, share int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(0, share-max(a.out, 0)-a.losses[src.Name].left(share))
}

// mayExceed tells whether more than the share may go for src, where there is no other room. A source
// without a proof may do so for one download at a time; c notes that.
func (a *advances) mayExceed(src Source, c *claim, share int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case src.Once || c.beyond: // an operator brings the bytes
		return true
	case a.losses[src.Name].left(share) > 0:
		return false
	case a.proven[src.Name]:
		return true
	case a.beyond > 0:
		return false
	}
	a.beyond++
	c.beyond = true
	return true
}

// took notes that n bytes of verified files went for the download.
func (a *advances) took(c *claim, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out += n
	c.removed += n
}

// lost notes that the bytes of src, for which the claim's files went, are wrong.
func (a *advances) lost(src Source, c *claim, share int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.proven, src.Name)
	if n := c.removed; n > 0 && !src.Once {
		if a.losses == nil {
			a.losses = make(map[string]loss)
		}
		a.losses[src.Name] = loss{a.losses[src.Name].left(share) + n, time.Now()}
	}
	a.settle(c)
}

// confirmed notes that size bytes of these sources are right.
func (a *advances) confirmed(from []*candidate, c *claim, size, share int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, src := range from {
		if src.Once {
			continue
		}
		if a.proven == nil {
			a.proven = make(map[string]bool)
		}
		a.proven[src.Name] = true
		if left := a.losses[src.Name].left(share) - size; left > 0 {
			a.losses[src.Name] = loss{left, time.Now()}
		} else {
			delete(a.losses, src.Name)
		}
	}
	a.settle(c)
}

// end takes the claim of a download that is over out of the account.
func (a *advances) end(c *claim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(c)
}

// settle is end with a.mu held.
func (a *advances) settle(c *claim) {
	a.out -= c.removed
	if c.beyond {
		a.beyond--
	}
	c.removed, c.beyond = 0, false
}

// removed is the number of bytes of verified files that went for downloads under way.
func (a *advances) removed() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out
}

// share is the number of bytes of verified files that may go for all bytes without a verdict.
func (s *Store) share() int64 { return s.space.limit() / advanceShare }

// advance gives the part of plan that goes before the bytes of src have a verdict, so that must
// bytes become free; physical bytes are needed for MinFree, and cannot be lent.
func (s *Store) advance(plan []Evicted, src Source, c *claim, must, physical int64) ([]Evicted, error) {
	share := s.share()
	left := s.advances.allowance(src, share)
	exceeds := false
	var freed int64
	for i, e := range plan {
		if freed >= max(must, physical) {
			return plan[:i], nil
		}
		if !e.Partial && !exceeds {
			if e.Size > left {
				if freed >= physical {
					return plan[:i], nil
				}
				if exceeds = s.advances.mayExceed(src, c, share); !exceeds {
					return nil, fmt.Errorf("source %s: %w", src.Name, errNoAdvance)
				}
				must = physical
			} else {
				left -= e.Size
			}
		}
		freed += e.Size
	}
	return plan, nil
}

// confirm makes the room that right bytes have on loan, and as much more as the low water asks for.
func (d *download) confirm(r *round) {
	s := d.s
	s.advances.confirmed(r.from, &d.claim, r.have, s.share())
	if !d.claim.tight {
		return
	}
	if s.evicting.take(d.f.ctx) != nil { // the fill has to end
		return
	}
	defer s.evicting.leave()
	s.space.repay(d.claim.loan)
	d.claim.loan = 0
	want, err := s.space.need(0)
	if err != nil {
		s.log.Warn("no room is made for a verified file", "sum", d.f.blob.title(), "error", err)
		return
	}
	if want.reason == ReasonMinFree {
		// What was removed may not show yet; and if others take the disk, sweep is the one to look.
		if want.must > 0 || time.Since(s.lowered) < freeingLimit {
			return
		}
		s.lowered = time.Now()
	}
	want.must = 0 // what can be done is better than nothing
	s.evict(s.plan(want))
}

// giveRoom gives back what the round has booked and not written, and its loan.
func (d *download) giveRoom() {
	d.s.space.release(d.booked)
	d.s.space.repay(d.claim.loan)
	d.booked, d.claim.loan = 0, 0
}

// sizes is the number of bytes of these files.
func sizes(gone []Evicted) (n int64) {
	for _, e := range gone {
		n += e.Size
	}
	return n
}

// verified is sizes without unfinished downloads.
func verified(gone []Evicted) (n int64) {
	for _, e := range gone {
		if !e.Partial {
			n += e.Size
		}
	}
	return n
}
