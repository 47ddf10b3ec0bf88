package upstream

import (
	"fmt"
	"sync"
)

// DefaultListMemory is the memory for the lists of all sources where no other bound is given.
const DefaultListMemory = 1 << 30 // bytes

// ListMemory bounds the memory that the lists of several sources take together: those that are
// kept, and those that are being read. One half of it is divided into equal shares, one a source;
// the other half is for the sources whose list is larger than their share. So no source takes what
// another needs for a list within its share, or for a list as large as its last one.
type ListMemory struct {
	limit, share, pool int64

	mu       sync.Mutex
	accounts []*account
}

// NewListMemory divides limit, in bytes, among so many sources.
func NewListMemory(limit int64, sources int) *ListMemory {
	share := limit / 2 / int64(max(sources, 1))
	if sources <= 1 {
		share = limit
	}
	return &ListMemory{limit: limit, share: share, pool: limit / 2}
}

// account is what the lists of one source take.
type account struct {
	of      *ListMemory
	kept    int64 // by the last good list
	reading int64 // by lists that are being read
	metrics sourceMetrics
}

// open makes the account of one more source.
func (l *ListMemory) open(metrics sourceMetrics) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &account{of: l, metrics: metrics}
	l.accounts = append(l.accounts, a)
	return a
}

// beyond is how much of the pool the source takes.
func (a *account) beyond() int64 { return max(0, max(a.kept, a.reading)-a.of.share) }

// grow books n more bytes for a list that is being read, or fails: there is no room.
func (a *account) grow(n int64) error {
	l := a.of
	l.mu.Lock()
	defer l.mu.Unlock()
	a.reading += n
	if a.reading > a.kept && a.beyond() > 0 {
		taken := int64(0)
		for _, other := range l.accounts {
			taken += other.beyond()
		}
		if taken > l.pool {
			a.reading -= n
			return bounded(reasonBudget, "no room for the list beside those of other sources: %d bytes for all lists, of which %d are this source's own", l.limit, l.share)
		}
	}
	a.show()
	return nil
}

// shrink gives back n bytes of a list that is being read.
func (a *account) shrink(n int64) {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.reading -= n
	a.show()
}

// keep tells that the list in memory takes n bytes.
func (a *account) keep(n int64) {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.kept = n
	a.show()
}

// show sets the gauge; the lock is held.
func (a *account) show() { a.metrics.lists.Set(float64(a.kept + a.reading)) }

// The values of the label "reason" of refusals.
const (
	reasonBytes      = "bytes"      // of a list
	reasonElements   = "elements"   // of a list
	reasonPages      = "pages"      // of a list
	reasonProportion = "proportion" // of the memory for a list to its text
	reasonBudget     = "budget"     // for the lists of all sources
	reasonDocument   = "document"   // bytes of another answer
	reasonTurn       = "turn"       // of a large answer
)

var refusalReasons = []string{reasonBytes, reasonElements, reasonPages, reasonProportion, reasonBudget, reasonDocument, reasonTurn}

// boundError is an answer that is more than is taken.
type boundError struct{ reason, text string }

func (e *boundError) Error() string { return e.text }

func bounded(reason, format string, args ...any) error {
	return &boundError{reason, fmt.Sprintf(format, args...)}
}
