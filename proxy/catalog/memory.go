package catalog

import (
	"runtime"
	"runtime/debug"
	gometrics "runtime/metrics"
	"sync"

	"imgmirror/manifest"
)

const (
	// largeList is the number of images from which a garbage collection after a list is worth its time.
	largeList = 10_000
	// littleGarbage is how many bytes the process may allocate before a garbage collection is worth its time again.
	littleGarbage = 16 << 20
)

// shareTexts lets what sources said last refer to the texts of the list being served, where these
// are the same: each manifest is in memory once. Where the list being served is a copy of a source's list, the source has
// that copy. What a source says anew leads to another list.
func (c *Catalog) shareTexts() {
	c.sharing.Lock()
	defer c.sharing.Unlock()
	l := c.Current()
	moved := false
	for _, s := range c.sources {
		c.state.Lock()
		images, done, copied := s.list.Images, l.shares.done[s], l.shares.copied
		c.state.Unlock()
		if done {
			continue
		}
		var shared []manifest.Manifest
		if len(images) > 0 && sameSlice(images, copied) {
			shared = l.images
		} else {
			shared = l.withTexts(images)
		}
		moved = moved || !sameSlice(images, shared)
		c.state.Lock()
		if sameSlice(s.list.Images, images) {
			s.list.Images = shared
			l.shares.done[s] = true
		}
		c.state.Unlock()
	}
	c.state.Lock()
	l.shares.copied = nil // a source may say something else by now, or details besides
	c.state.Unlock()
	if moved {
		c.hidden.Store(nil) // it may refer to the former texts
	}
}

// withTexts is images with the texts of l, where these are the same.
func (l *List) withTexts(images []manifest.Manifest) []manifest.Manifest {
	return replaced(images, func(m *manifest.Manifest) (manifest.Manifest, bool) {
		r, ok := l.record(m.UUID)
		if !ok {
			return manifest.Manifest{}, false
		}
		return m.ShareText(r.manifest)
	})
}

func sameSlice(a, b []manifest.Manifest) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// giveBack returns the memory to the system that the reading of a large list took: a multiple of
// the list's own, which would stay with the process until the next list. A call soon after another has
// nothing to return.
func (c *Catalog) giveBack() {
	if len(c.Current().records) < largeList {
		return
	}
	c.shareTexts()
	c.garbage.collect()
}

// sweepLoaded sweeps after saved lists have been read, before the first list is made of them.
func (c *Catalog) sweepLoaded() {
	images := 0
	for _, s := range c.sources {
		images += len(s.list.Images)
	}
	sweep(images)
}

// sweep collects the garbage of the reading of so many images before a list is made of them: else the heap grows to
// twice the answer and the list.
func sweep(images int) {
	if images >= largeList {
		runtime.GC()
	}
}

// garbage is what the process has allocated since it last gave memory back.
type garbage struct {
	mu    sync.Mutex // held while memory is given back
	given uint64     // all bytes allocated until then
}

func (g *garbage) collect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	sample := []gometrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	gometrics.Read(sample)
	if now := sample[0].Value.Uint64(); now-g.given >= littleGarbage {
		debug.FreeOSMemory()
		g.given = now
	}
}
