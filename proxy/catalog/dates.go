package catalog

import (
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// keepDates is images of an answer of s. An image without a date of its own keeps the date of
// answers before: the date of an answer changes with the list, and with some servers each time.
func (c *Catalog) keepDates(s *source, images []manifest.Manifest) []manifest.Manifest {
	undated := make(map[uuid.UUID]int)
	for i := range images {
		if images[i].Undated() {
			undated[images[i].UUID] = i
		}
	}
	if len(undated) == 0 {
		return images
	}
	images = slices.Clone(images)
	c.state.Lock()
	before := [][]manifest.Manifest{manifests(s.unlisted), manifests(s.retired), manifests(s.details), s.list.Images}
	c.state.Unlock()
	sameSum := func(x, y manifest.File) bool { return x.SHA1 == y.SHA1 } // as far as is known
	for _, had := range before {
		for j := range had {
			was := &had[j]
			if i, ok := undated[was.UUID]; ok && !was.Published.IsZero() && slices.EqualFunc(was.Files, images[i].Files, sameSum) {
				images[i] = images[i].WithDate(was.Published)
			}
		}
	}
	return images
}
