package upstream

import (
	"slices"

	"imgmirror/manifest"
)

// gathered is images of which it is not known how many will come. They lie in chunks, so that
// nothing is copied, and left to the garbage collector, while they come.
type gathered struct {
	chunks [][]manifest.Manifest // full but for the last
	n      int
}

const chunkImages = 512

func (g *gathered) add(m manifest.Manifest) {
	if g.n%chunkImages == 0 {
		g.chunks = append(g.chunks, make([]manifest.Manifest, 0, chunkImages))
	}
	last := &g.chunks[len(g.chunks)-1]
	*last = append(*last, m)
	g.n++
}

// cut drops the images from number n on, and tells drop of each.
func (g *gathered) cut(n int, drop func(*manifest.Manifest)) {
	for g.n > n {
		g.n--
		last := &g.chunks[len(g.chunks)-1]
		m := &(*last)[len(*last)-1]
		drop(m)
		*m = manifest.Manifest{}
		if *last = (*last)[:len(*last)-1]; len(*last) == 0 {
			g.chunks = g.chunks[:len(g.chunks)-1]
		}
	}
}

// all gives the images in one slice.
func (g *gathered) all() []manifest.Manifest { return slices.Concat(g.chunks...) }
