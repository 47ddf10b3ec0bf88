package catalog

import (
	"runtime/debug"

	"imgmirror/manifest"
)

// largeList is the number of images from which a garbage collection after a list is worth its time.
const largeList = 10_000

// shareTexts lets what sources said last refer to the texts of the list being served, where these
// are the same: each manifest is in memory once.
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
	c.hidden.Store(nil) // it may refer to the former texts
}

func sameSlice(a, b []manifest.Manifest) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// giveBack returns the memory to the system that the reading of a large list took: a multiple of
// the list's own, which would stay with the process until the next list.
func (c *Catalog) giveBack() {
	if len(c.Current().records) < largeList {
		return
	}
	c.shareTexts()
	debug.FreeOSMemory()
}
