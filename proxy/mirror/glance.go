package mirror

import (
	"sync"
	"time"

	"imgmirror/cache"
)

// countShare keeps the counting of images from more than one part in so many of the time: each image on
// disk is looked at.
const countShare = 20

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
	mu    sync.Mutex // held while the images are counted
	fresh time.Time  // until then last is good enough
	last  Counts
}

// Counts gives the numbers of images; where there are very many, they may be a moment old.
func (m *Mirror) Counts() Counts {
	c := &m.counting
	c.mu.Lock()
	defer c.mu.Unlock()
	if begun := time.Now(); !begun.Before(c.fresh) {
		c.last = m.count()
		if took := time.Since(begun); took > time.Millisecond {
			c.fresh = begun.Add(countShare * took)
		}
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
