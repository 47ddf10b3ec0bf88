package cache

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// slotPatience is how long a fill waits for a slot of its first source alone.
const slotPatience = time.Second

// maxLeft is how many fills without a reader wait in the queue of one source.
const maxLeft = 32

// slots bounds how many fills run at the same time. Each source has an account, with its fills that
// have a slot and those that wait. The rules:
//
//	share    is half of total, and at least one slot; for the only source with needed fills, total.
//	free     A free slot goes to needed fills before others, to sources below their share before
//	         others, to clients before jobs, to the source with the fewest slots, and to the
//	         source that was served longest ago. One account is served in the order of arrival,
//	         but a fill whose sources gave no byte the last time comes after the others.
//	lent     A source does not wait for another: a source without a slot is lent one when all are
//	         taken, and a source below its share is lent slots for needed fills. So total, and for
//	         each source half of total and one, are in use at most.
//	shifted  A needed fill that has waited for slotPatience takes the slot of another of its sources,
//	         where that one has a slot to give at once.
//	handed   A fill with a slot hands the slot to a waiting fill of a better rank. While slots are
//	         lent, a fill that is not needed gives its slot back. But the last slot of a source
//	         stays with the source.
//	left     At most maxLeft fills of one source wait for a slot without a reader: clients that come
//	         and leave make no longer queue.
//
// Fills that run are never interrupted by other fills of the same rank, so what is lent ends with
// the fills that were there before.
type slots struct {
	// pressing is the rank behind which a fill with a slot has to look whether hand applies. It
	// changes under mu only.
	pressing atomic.Int32

	mu       sync.Mutex // guards what follows, accounts and tickets included; a leaf
	total    int
	used     int
	served   uint64 // slots given so far
	lent     uint64 // of which beyond total
	accounts map[string]*account
}

// account is one source's fills. An account without a fill does not exist.
type account struct {
	name   string
	used   int       // slots
	queue  []*ticket // that wait, in the order of arrival
	needed int       // tickets with a slot, or in the queue, that are needed
	served uint64    // slots.served when the account got its last slot
}

func newSlots(n int) *slots {
	s := &slots{accounts: make(map[string]*account)}
	s.resize(n)
	return s
}

// acquire waits for a slot. Unless it fails with ctx's error, release must follow.
func (s *slots) acquire(ctx context.Context, t *ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	s.enqueue(t, false)
	s.settle()
	s.mu.Unlock()
	return s.wait(ctx, t)
}

// wait waits for the slot of a ticket in the queue; as acquire.
func (s *slots) wait(ctx context.Context, t *ticket) error {
	var late <-chan time.Time
	if t.others != nil {
		tick := time.NewTicker(slotPatience)
		defer tick.Stop()
		late = tick.C
	}
	for {
		select {
		case <-t.ready:
			return nil
		case <-ctx.Done():
			s.release(t)
			return ctx.Err()
		case <-late:
			s.shift(t, t.others())
		}
	}
}

// shift puts t on the account of the first of sources that has a slot for t now. None may have.
func (s *slots) shift(t *ticket, sources []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.seated || !t.is().needed() {
		return
	}
	i := slices.IndexFunc(sources, func(name string) bool {
		a := s.accounts[name]
		return name != t.source && (a == nil || s.lendsTo(a, t.is()))
	})
	if i < 0 {
		return
	}
	s.remove(t)
	t.source = sources[i]
	s.enqueue(t, true)
	s.seat(t)
	s.settle()
}

// release gives the slot of t back, or takes t out of the queue.
func (s *slots) release(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(t)
	s.settle()
}

// rerank sets the rank of t.
func (s *slots) rerank(t *ticket, r rank) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := t.is()
	t.rank.Store(int32(r))
	if a := t.account; a != nil && before != r {
		a.needed += count(r.needed()) - count(before.needed())
		s.settle()
	}
}

// crowded tells whether t waits without a reader, behind maxLeft others of its source.
func (s *slots) crowded(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.account == nil || t.seated || t.is() != rankLeft {
		return false
	}
	left := 0
	for _, other := range t.account.queue {
		left += count(other.is() == rankLeft)
	}
	return left > maxLeft
}

// charge puts t, which has a slot, on the account of another source. Where that source may have no
// more slots just now the slot is gone: t is in the queue, wait must follow, and charge gives false.
func (s *slots) charge(t *ticket, source string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.source == source {
		return true
	}
	s.remove(t)
	t.source = source
	s.enqueue(t, true)
	if s.used < s.total || s.lends(t) {
		s.seat(t)
	}
	s.settle()
	return t.seated
}

// welcome tells whether charge would let t keep its slot on the account of source.
func (s *slots) welcome(t *ticket, source string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[source]
	return a == nil || t.source == source || s.used <= s.total || s.lendsTo(a, t.is())
}

// pressed tells at little cost whether hand may apply to t, which has a slot.
func (s *slots) pressed(t *ticket) bool { return t.rank.Load() > s.pressing.Load() }

// hand takes the slot of t where the rules say so, and gives it to a better ticket, if one waits.
// Then t is in the queue again, wait must follow, and hand gives true. A fill without a reader
// joins the end of the queue, any other its head.
func (s *slots) hand(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.account == nil || !t.seated {
		return false
	}
	better := s.better(t)
	if better == nil && (t.is().needed() || s.used <= s.total || t.account.used == 1) {
		return false
	}
	s.remove(t)
	s.enqueue(t, t.is() != rankLeft)
	if better != nil {
		s.seat(better)
	}
	s.settle()
	return !t.seated
}

// better gives the waiting ticket that has to have the slot of t; nil: there is none. s.mu is held.
func (s *slots) better(t *ticket) *ticket {
	var best *ticket
	a := t.account
	a.used-- // as if t waited, too
	defer func() { a.used++ }()
	for _, other := range s.accounts {
		w := other.first()
		if w == nil || w.is() >= t.is() || other != a && a.used == 0 || s.compare(w, t) > 0 {
			continue
		}
		if best == nil || s.compare(w, best) < 0 {
			best = w
		}
	}
	return best
}

// resize sets the number of slots; 0 = defaultFillSlots. Fills that run go on, also when there are
// more of them now than slots.
func (s *slots) resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = cmp.Or(max(0, n), defaultFillSlots)
	s.settle()
}

// settle gives all slots that can be given. s.mu is held.
func (s *slots) settle() {
	for t := s.next(); t != nil; t = s.next() {
		s.seat(t)
	}
	pressing := rankNone
	for _, a := range s.accounts {
		if t := a.first(); t != nil {
			pressing = min(pressing, t.is())
		}
	}
	if s.used > s.total {
		pressing = min(pressing, rankJob)
	}
	s.pressing.Store(int32(pressing))
}

// next gives the ticket that is to have a slot now; nil: there is none. s.mu is held.
func (s *slots) next() (best *ticket) {
	for _, a := range s.accounts {
		t := a.first()
		if t == nil || s.used >= s.total && !s.lends(t) {
			continue
		}
		if best == nil || s.compare(t, best) < 0 {
			best = t
		}
	}
	return best
}

// lends tells whether t may have a slot although all are taken. s.mu is held.
func (s *slots) lends(t *ticket) bool { return s.lendsTo(t.account, t.is()) }

func (s *slots) lendsTo(a *account, r rank) bool {
	return a.used == 0 || r.needed() && a.used < s.share() && s.used < s.total+len(s.accounts)*half(s.total)
}

// share is the number of slots that each source may have while needed fills of all wait: many
// sources that hang, and keep their slots, leave a source that is well its half. s.mu is held.
func (s *slots) share() int {
	sources := 0
	for _, a := range s.accounts {
		sources += count(a.needed > 0)
	}
	if sources <= 1 {
		return s.total
	}
	return half(s.total)
}

// compare orders waiting tickets, the one to be served first at the front. s.mu is held.
func (s *slots) compare(t, u *ticket) int {
	a, b, share := t.account, u.account, s.share()
	return cmp.Or(
		count(!t.is().needed())-count(!u.is().needed()),
		count(a.used >= share)-count(b.used >= share),
		cmp.Compare(t.is(), u.is()),
		cmp.Compare(a.used, b.used),
		cmp.Compare(a.served, b.served),
		cmp.Compare(a.name, b.name),
	)
}

// first gives the ticket of the queue that is served first; nil: none waits.
func (a *account) first() (best *ticket) {
	for _, t := range a.queue {
		if best == nil || t.before(best) {
			best = t
		}
		if best.is() == rankClient && !best.dry {
			break
		}
	}
	return best
}

// enqueue puts t into the queue of its account, ahead of all others if front. s.mu is held.
func (s *slots) enqueue(t *ticket, front bool) {
	a := s.accounts[t.source]
	if a == nil {
		a = &account{name: t.source}
		s.accounts[t.source] = a
	}
	t.account, t.ready = a, make(chan struct{})
	a.needed += count(t.is().needed())
	if front {
		a.queue = slices.Insert(a.queue, 0, t)
	} else {
		a.queue = append(a.queue, t)
	}
}

// seat gives t, which is in the queue, a slot. s.mu is held.
func (s *slots) seat(t *ticket) {
	a := t.account
	a.queue = slices.DeleteFunc(a.queue, func(other *ticket) bool { return other == t })
	s.used++
	s.served++
	a.used++
	a.served = s.served
	if s.used > s.total {
		s.lent++
	}
	t.seated = true
	close(t.ready)
}

// remove takes t off its account, with its slot if t has one. s.mu is held.
func (s *slots) remove(t *ticket) {
	a := t.account
	if a == nil {
		return
	}
	if t.seated {
		s.used--
		a.used--
	} else {
		a.queue = slices.DeleteFunc(a.queue, func(other *ticket) bool { return other == t })
	}
	a.needed -= count(t.is().needed())
	t.account, t.seated = nil, false
	if a.used == 0 && len(a.queue) == 0 {
		delete(s.accounts, a.name)
	}
}

// count is 1 if is, else 0.
func count(is bool) int {
	if is {
		return 1
	}
	return 0
}
