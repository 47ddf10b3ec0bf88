package catalog

import (
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// keepDates is images of an answer of s, in which those without a date of their own keep the date that they had in
// answers before: the date of an answer is another each time that the list changes, and with some servers each time
// that they are asked.
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
	keep := func(was *manifest.Manifest) {
		if i, ok := undated[was.UUID]; ok && !was.Published.IsZero() && sameSums(was.Files, images[i].Files) {
			images[i] = images[i].WithDate(was.Published)
		}
	}
	c.state.Lock()
	list, others := s.list.Images, slices.Concat(manifests(s.unlisted), manifests(s.retired), s.toldBeside())
	c.state.Unlock()
	for i := range others {
		keep(&others[i])
	}
	for i := range list {
		keep(&list[i])
	}
	return images
}

// sameSums tells that both are the same files, as far as is known.
func sameSums(a, b []manifest.File) bool {
	return slices.EqualFunc(a, b, func(x, y manifest.File) bool { return x.SHA1 == y.SHA1 })
}
