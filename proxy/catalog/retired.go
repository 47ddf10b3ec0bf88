package catalog

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Kinds of sources that are treated in a way of their own.
const (
	kindStatic    = "static"    // has nothing but its list
	kindDirectory = "directory" // a folder of this machine
)

// retire gives those of had, the list of s, that are not in next, and whose files are all on disk.
func (c *Catalog) retire(s *source, had, next []manifest.Manifest) []manifest.Manifest {
	if s.Withdraws {
		return nil
	}
	var retired []manifest.Manifest
	left := missing(had, next)
	for i := range had {
		m, ok := left[had[i].UUID]
		if ok && len(m.Files) > 0 && c.opts.Cached(m) {
			retired = append(retired, m.CloneText())
		}
	}
	return retired
}

// missing gives those of had that are in none of lists.
func missing(had []manifest.Manifest, lists ...[]manifest.Manifest) map[uuid.UUID]manifest.Manifest {
	if len(had) == 0 {
		return nil
	}
	there := make(map[uuid.UUID]struct{}, len(had))
	for _, images := range lists {
		for i := range images {
			there[images[i].UUID] = struct{}{}
		}
	}
	left := make(map[uuid.UUID]manifest.Manifest)
	for i := range had {
		if _, ok := there[had[i].UUID]; !ok {
			left[had[i].UUID] = had[i]
		}
	}
	return left
}

// ancestorsLeft gives those of had that left the list of s, now next, although staying images of
// any source are built on them. These remain reachable by uuid.
func (c *Catalog) ancestorsLeft(s *source, had, next, retired []manifest.Manifest) []manifest.Manifest {
	if s.Withdraws {
		return nil
	}
	left := missing(had, next, retired)
	if len(left) == 0 {
		return nil
	}
	var kept []manifest.Manifest
	keep := func(id uuid.UUID) {
		for {
			m, ok := left[id]
			if !ok {
				return
			}
			delete(left, id)
			kept = append(kept, m.CloneText())
			id = m.Origin
		}
	}
	c.state.Lock()
	in := c.inputs()
	c.state.Unlock()
	stay := [][]manifest.Manifest{retired}
	for _, src := range in.sources {
		if src.source == s {
			src.images = next
		}
		stay = append(stay, src.images, src.unlisted, src.retired)
	}
	for _, images := range stay {
		for i := range images {
			keep(images[i].Origin)
		}
	}
	return kept
}

// evicted gives the images retired by s without files on disk, each with whether others are built
// on it.
func (c *Catalog) evicted(s *source) map[uuid.UUID]bool {
	c.state.Lock()
	retired := manifests(s.retired)
	c.state.Unlock()
	evicted := make(map[uuid.UUID]bool)
	for _, m := range retired {
		if !c.opts.Cached(m) {
			evicted[m.UUID] = c.Current().isOrigin(m.UUID)
		}
	}
	return evicted
}

// confirmRetired asks sources for what has left their lists. An image that a source still gives by
// uuid is disabled or in another channel: the image is unlisted, not retired.
func (c *Catalog) confirmRetired(ctx context.Context, w *walk) {
	answers := c.findAll(ctx, c.unconfirmed(func(s *source) map[uuid.UUID]given {
		if s.list.Kind == kindStatic {
			return nil
		}
		return s.retired
	}), w)
	if len(answers) == 0 {
		return
	}
	now := time.Now()
	var there []answer
	changed := make(map[*source]bool)
	c.state.Lock()
	for _, a := range answers {
		u, ok := a.source.retired[a.id]
		switch {
		case !ok: // listed again meanwhile
		case a.err == nil || errors.Is(a.err, errPrivate):
			delete(a.source.retired, a.id)
			c.stale = true
			changed[a.source] = true
			if a.err == nil {
				there = append(there, a)
			}
		case errors.Is(a.err, fs.ErrNotExist):
			a.source.retired[a.id] = given{manifest: u.manifest, checked: now}
			if u.checked.IsZero() {
				c.log.Info("image has left its source and is kept because it is cached", "source", a.source.name, "uuid", a.id)
			}
		}
	}
	c.state.Unlock()
	c.note(there)
	c.rebuild()
	for s := range changed {
		c.saveListing(s)
	}
}
