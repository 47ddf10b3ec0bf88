package catalog

import (
	"bytes"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Change is what a list of a source has more, less and otherwise than the list before, in images.
type Change struct{ Added, Removed, Changed int }

// imagesOf are the images on the last good list of s.
func (c *Catalog) imagesOf(s *source) []manifest.Manifest {
	c.state.Lock()
	defer c.state.Unlock()
	return s.list.Images
}

// changeOf compares two lists, in any order.
func changeOf(before, after []manifest.Manifest) Change {
	if sameImages(before, after) {
		return Change{}
	}
	was := make(map[uuid.UUID]int, len(before))
	for i := range before {
		was[before[i].UUID] = i
	}
	var change Change
	for i := range after {
		m := &after[i]
		at, ok := was[m.UUID]
		switch {
		case !ok:
			change.Added++
		case !bytes.Equal(before[at].Raw(), m.Raw()):
			change.Changed++
		}
		delete(was, m.UUID)
	}
	change.Removed = len(was)
	return change
}
