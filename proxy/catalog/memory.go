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
		shared, changed := l.share(images)
		if !changed {
			continue
		}
		c.state.Lock()
		if sameSlice(s.list.Images, images) {
			s.list.Images = shared
		}
		c.state.Unlock()
	}
}

// share gives images with the texts of those of l; images itself when they have them already.
func (l *List) share(images []manifest.Manifest) (_ []manifest.Manifest, changed bool) {
	out := images
	for i := range images {
		r, ok := l.record(images[i].UUID)
		if !ok {
			continue
		}
		m, ok := images[i].ShareText(r.manifest)
		if !ok {
			continue
		}
		if !changed {
			out, changed = append([]manifest.Manifest(nil), images...), true
		}
		out[i] = m
	}
	return out, changed
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
