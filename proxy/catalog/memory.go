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
// are the same: each manifest is in memory once. What a source says anew leads to another list.
func (c *Catalog) shareTexts() {
	l := c.Current()
	moved := false
	for _, s := range c.sources {
		c.state.Lock()
		images, done := s.list.Images, l.shares[s]
		c.state.Unlock()
		if done {
			continue
		}
		shared := replaced(images, func(m *manifest.Manifest) (manifest.Manifest, bool) {
			r, ok := l.record(m.UUID)
			if !ok {
				return manifest.Manifest{}, false
			}
			return m.ShareText(r.manifest)
		})
		moved = moved || !sameSlice(images, shared)
		c.state.Lock()
		if sameSlice(s.list.Images, images) {
			s.list.Images = shared
			l.shares[s] = true
		}
		c.state.Unlock()
	}
	if moved {
		c.hidden.Store(nil) // it may refer to the former texts
	}
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

// sweepLoaded collects the garbage of the reading of saved lists before the first list is made of them: else the heap
// grows to twice what both take.
func (c *Catalog) sweepLoaded() {
	images := 0
	for _, s := range c.sources {
		images += len(s.list.Images)
	}
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
