package catalog

import (
	"runtime/debug"

	"imgmirror/manifest"
)

// largeList is from how many images on the memory that a list took while it was read is worth a garbage collection.
const largeList = 10_000

// shareTexts has what sources said last refer to the texts of the list being served, where they are the same: then each
// manifest is in memory once, whatever it came in.
func (c *Catalog) shareTexts() {
	l := c.Current()
	for _, s := range c.sources {
		c.state.Lock()
		images := s.list.Images
		c.state.Unlock()
		shared := replaced(images, func(m *manifest.Manifest) (manifest.Manifest, bool) {
			r, ok := l.record(m.UUID)
			if !ok {
				return manifest.Manifest{}, false
			}
			return m.ShareText(r.manifest)
		})
		c.state.Lock()
		if sameSlice(s.list.Images, images) {
			s.list.Images = shared
		}
		c.state.Unlock()
	}
}

func sameSlice(a, b []manifest.Manifest) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// giveBack returns to the system what a large list took while it was read, which is a multiple of what it takes from
// then on. Left to itself that would stay with the process until the next list.
func (c *Catalog) giveBack() {
	if len(c.Current().records) < largeList {
		return
	}
	c.shareTexts()
	debug.FreeOSMemory()
}
