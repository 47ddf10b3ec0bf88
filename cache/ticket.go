package cache

import (
	"cmp"
	"sync/atomic"
)

// rank says how urgent a fill is. A lower rank goes first.
type rank int32

// The ranks of a fill.
const (
	rankClient rank = iota // a client reads the fill, or waits for its first bytes
	rankJob                // a job does
	rankLeft               // clients or jobs wanted the fill, and have left
	rankAhead              // neither a client nor a job has asked for the fill
	rankNone               // of no fill: behind all others
)

// needed tells whether a client or a job waits for the fill.
func (r rank) needed() bool { return r <= rankJob }

// MaxFills is how many fills run at the same time at the very most, with so many slots and sources:
// slots are lent to sources that would wait for others (see slots).
func MaxFills(slots, sources int) int { return slots + sources*(half(slots)+1) }

// half is the slots that each source may have while others want some, too.
func half(slots int) int { return max(1, slots/2) }

// ticket is one fill's claim on a slot. slots.mu guards it.
type ticket struct {
	rank    atomic.Int32  // changes under slots.mu
	source  string        // the account of the ticket; changes by the goroutine of the fill only
	account *account      // nil: the ticket neither waits nor has a slot
	seated  bool          // the ticket has a slot
	dry     bool          // the sources gave no byte the last time; changes while account is nil only
	ready   chan struct{} // closed when the slot is given; made anew by each wait

	// others gives the sources that may serve instead of source, in order; nil: there are none. The
	// goroutine of the fill sets and calls it.
	others func() []string
}

func newTicket(source string) *ticket {
	t := &ticket{source: source}
	t.rank.Store(int32(rankAhead))
	return t
}

// before tells whether t is served before u, which joined the queue of the account first.
func (t *ticket) before(u *ticket) bool {
	return cmp.Or(cmp.Compare(t.is(), u.is()), count(t.dry)-count(u.dry)) < 0
}

func (t *ticket) is() rank { return rank(t.rank.Load()) }
