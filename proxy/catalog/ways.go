package catalog

import (
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
)

// way is the mirrors that s has an image through, the nearest first: none unless s is known to be a
// mirror. state is held.
func (s *source) way(id uuid.UUID) []string {
	if s.list.Mirror == "" {
		return nil
	}
	if way, ok := s.list.Ways[id]; ok {
		return way
	}
	return []string{s.list.Mirror} // not on its list
}

// isOneOf tells whether s is one of the mirrors ids.
func (c *Catalog) isOneOf(s *source, ids []string) bool {
	c.state.Lock()
	defer c.state.Unlock()
	return slices.Contains(ids, s.list.Mirror)
}

// stored finds an image in the current list as far as the mirrors asked may be told of it: with the
// holders only that do not have the image through one of them. The result is false for an image
// that is here through them only.
func (c *Catalog) stored(id uuid.UUID, asked []string) (Entry, bool) {
	l := c.Current()
	e, ok := l.Entry(id)
	if !ok || len(asked) == 0 {
		return e, ok
	}
	c.state.Lock()
	defer c.state.Unlock()
	var left []Holder
	for _, h := range e.Holders {
		s := c.byName[h.Source.Name()]
		if !via.Crosses(s.way(id), asked) {
			left = append(left, h)
		}
	}
	e.Holders = left
	e.Others = slices.DeleteFunc(e.Others, func(h Holder) bool {
		return slices.Contains(asked, c.byName[h.Source.Name()].list.Mirror)
	})
	return e, len(left) > 0 || c.opts.Offline || e.Listed && !via.Crosses(l.ways[id], asked)
}

// asking tells whether one of the mirrors ids, or a mirror that has the image through one of them,
// is being asked for a file of the image. Such mirrors have the file from elsewhere, or never.
func (c *Catalog) asking(id uuid.UUID, ids []string) bool {
	c.state.Lock()
	defer c.state.Unlock()
	return slices.ContainsFunc(c.sources, func(s *source) bool {
		return via.Crosses(s.way(id), ids) && s.opening.under(id)
	})
}

// ways gives the shortest way of each image of l that this mirror has through others only. A
// retired image came through none: the mirror has it.
func (in inputs) ways(l *List) map[uuid.UUID][]string {
	own := make(map[uuid.UUID]bool)
	any := false
	for _, src := range in.sources {
		any = any || src.ways != nil
		for i := range src.retired {
			own[src.retired[i].UUID] = true
		}
	}
	if !any {
		return nil
	}
	bySource := make(map[*source]map[uuid.UUID][]string, len(in.sources))
	for _, src := range in.sources {
		bySource[src.source] = src.ways
	}
	ways := make(map[uuid.UUID][]string)
	for _, r := range l.records {
		id := r.manifest.UUID
		if !r.listed || r.retired || own[id] {
			continue
		}
		shortest := bySource[r.source][id]
		for _, h := range r.holders {
			if way := bySource[h.source][id]; len(way) < len(shortest) {
				shortest = way
			}
		}
		if len(shortest) > 0 {
			ways[id] = shortest
		}
	}
	return ways
}

// Paths tell other mirrors which mirrors the images on the list came through.
func (l *List) Paths() via.Paths {
	ids := make([]uuid.UUID, len(l.images))
	for i := range l.images {
		ids[i] = l.images[i].UUID
	}
	return via.NewPaths(ids, func(id uuid.UUID) []string { return l.ways[id] })
}

// sameWays tells that two answers of a source say the same of the ways that its images came.
func sameWays(a, b manifest.Listing) bool {
	if a.Mirror != b.Mirror || len(a.Ways) != len(b.Ways) {
		return false
	}
	for id, way := range a.Ways {
		if other, ok := b.Ways[id]; !ok || !slices.Equal(way, other) {
			return false
		}
	}
	return true
}
