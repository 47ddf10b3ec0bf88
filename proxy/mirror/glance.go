package mirror

import (
	"sync"
	"time"

	"imgmirror/cache"
)

// countEvery is how old the Counts may be: each of the images on disk is looked at for them.
const countEvery = 2 * time.Second

// Counts are numbers of images.
type Counts struct {
	Listed    int            // that clients see on the list
	Cached    int            // with a file on disk
	Pinned    int            // that are kept from eviction, by hand or by rule
	Conflicts int            // that a source has with other files than those that are served
	Hidden    map[string]int // by reason: what the sources have and clients are not shown
}

// counting keeps the last Counts.
type counting struct {
	mu   sync.Mutex // held while the images are counted
	at   time.Time
	last Counts
}

// Counts gives the numbers of images; they may be a moment old.
func (m *Mirror) Counts() Counts {
	c := &m.counting
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.at.IsZero() || now.Sub(c.at) >= countEvery {
		c.last, c.at = m.count(), now
	}
	return c.last
}

func (m *Mirror) count() Counts {
	list := m.Current()
	n := Counts{Listed: len(list.Images()), Conflicts: len(list.Conflicts()), Hidden: make(map[string]int)}
	pinned := m.store.Pinned()
	for _, id := range m.store.Images() {
		n.Cached++
		if m.store.Kept(id) {
			pinned[id] = true
		}
	}
	n.Pinned = len(pinned)
	for _, source := range m.Status() {
		for reason, hidden := range source.Hidden {
			n.Hidden[reason] += hidden
		}
	}
	return n
}

// Room tells what the files take and may take.
func (m *Mirror) Room() cache.Room { return m.store.Room() }

// ScrubRound tells how far the scrub is.
func (m *Mirror) ScrubRound() cache.ScrubRound { return m.store.ScrubRound() }

// Trouble tells what the last look at the data folder has found wrong.
func (m *Mirror) Trouble() []string { return m.store.Trouble() }
