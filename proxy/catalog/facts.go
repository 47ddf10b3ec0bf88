package catalog

import (
	"maps"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Learn records what a downloaded file turned out to be, if its manifest gains by it: then that is saved and
// a list with the better manifest has been swapped in when Learn returns. It holds after refreshes and restarts,
// until the source states something else.
func (c *Catalog) Learn(id manifest.FileID, f manifest.Facts) {
	e, ok := c.Current().Entry(id.Image)
	if !ok || id.Index < 0 {
		return
	}
	gains := false
	for _, h := range e.Holders {
		if id.Index < len(h.Manifest.Files) && fits(h.Manifest, id.Index, f) {
			_, changed := h.Manifest.WithFacts(id.Index, f)
			gains = gains || changed
		}
	}
	if !gains {
		return
	}
	c.keepFacts(id, f, true)
	c.rebuild()
}

// keepFacts takes f for the next list. What is not saved is forgotten with the process.
func (c *Catalog) keepFacts(id manifest.FileID, f manifest.Facts, save bool) {
	c.state.Lock()
	facts := maps.Clone(c.facts)
	if facts == nil {
		facts = make(map[manifest.FileID]manifest.Facts)
	}
	facts[id] = f
	c.facts = facts
	c.stale = true
	c.state.Unlock()
	if !save {
		return
	}
	c.saving.Lock()
	err := c.opts.Index.SaveFacts(id, f)
	c.saving.Unlock()
	if err != nil {
		c.log.Error("facts of a file could not be saved", "uuid", id.Image, "sum", f.SHA1, "error", err)
	}
}

// allWithFacts is images with the facts of those in known filled in; images itself when that changes nothing.
func allWithFacts(images []manifest.Manifest, known map[uuid.UUID]bool, facts map[manifest.FileID]manifest.Facts) []manifest.Manifest {
	return replaced(images, func(m *manifest.Manifest) (manifest.Manifest, bool) {
		if !known[m.UUID] {
			return manifest.Manifest{}, false
		}
		return withFacts(*m, facts), true
	})
}

// withFacts is m with what is known of its files filled in.
func withFacts(m manifest.Manifest, facts map[manifest.FileID]manifest.Facts) manifest.Manifest {
	for i := range m.Files {
		if f, ok := facts[manifest.FileID{Image: m.UUID, Index: i}]; ok && fits(m, i, f) {
			m, _ = m.WithFacts(i, f)
		}
	}
	return m
}

// fits tells that f can be of file i as m states it: the source may have another file now than the one that
// f was learned from.
func fits(m manifest.Manifest, i int, f manifest.Facts) bool {
	stated := m.Files[i]
	return (stated.Size == 0 || stated.Size == f.Size) && (stated.SHA1.IsZero() || stated.SHA1 == f.SHA1)
}
