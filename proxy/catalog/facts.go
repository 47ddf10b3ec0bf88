package catalog

import (
	"maps"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Learn records the facts of a downloaded file if a manifest gains by them. The facts are saved,
// and in the list being served, when Learn returns. They hold until the source states something
// else.
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

// allWithFacts is images with the facts of the known ones filled in; images itself without such.
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

// fits tells that f can be of file i as m states the file: the source may have another file by now.
func fits(m manifest.Manifest, i int, f manifest.Facts) bool {
	stated := m.Files[i]
	return (stated.Size == 0 || stated.Size == f.Size) && (stated.SHA1.IsZero() || stated.SHA1 == f.SHA1)
}
