package catalog

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// terse tells that m, an entry of a list, lacks what clients need, and that there may be more.
func terse(m *manifest.Manifest) bool { return len(m.Files) == 0 && m.Active() && m.Servable() }

// told is the list of s with details in the place of its entries; state is held.
func (s *source) told() []manifest.Manifest {
	if len(s.details) == 0 {
		return s.list.Images
	}
	return replaced(s.list.Images, func(m *manifest.Manifest) (manifest.Manifest, bool) {
		d, ok := s.details[m.UUID]
		return d.manifest, ok
	})
}

// keepDetails drops the details of entries that have left the list of s, or have changed; state is
// held.
func (s *source) keepDetails() {
	if len(s.details) == 0 {
		return
	}
	kept := make(map[uuid.UUID]given)
	for i := range s.list.Images {
		m := &s.list.Images[i]
		if d, ok := s.details[m.UUID]; ok && d.of == sha1.Sum(m.Raw()) {
			kept[m.UUID] = d
		}
	}
	s.details = kept
}

// loadDetails takes over those of the saved manifests that are of terse entries of the list.
func (s *source) loadDetails(saved []manifest.Manifest) {
	byUUID := make(map[uuid.UUID]manifest.Manifest)
	for _, m := range saved {
		byUUID[m.UUID] = m
	}
	for i := range s.list.Images {
		m := &s.list.Images[i]
		if !terse(m) {
			continue
		}
		if full, ok := byUUID[m.UUID]; ok {
			s.keepDetail(m, full)
		}
	}
}

// keepDetail takes full in the place of m, an entry of the list of s; state is held.
func (s *source) keepDetail(m *manifest.Manifest, full manifest.Manifest) {
	s.details[m.UUID] = given{manifest: full, of: sha1.Sum(m.Raw())}
}

// learnDetail asks the sources of e by uuid for what their lists do not tell; learned: a source has
// told more. Else why says the reason, which is remembered for memory.
func (c *Catalog) learnDetail(ctx context.Context, e Entry) (learned bool, memory time.Duration, why string) {
	if len(e.Holders) == 0 {
		return false, lookMemory, "no source may be asked"
	}
	var whys []string
	busy := false
	for _, h := range e.Holders {
		s := c.byName[h.Source.Name()]
		if s == nil {
			continue
		}
		if c.hasOnlyList(s) {
			whys = append(whys, fmt.Sprintf("source %s has nothing but its list", s.name))
			memory = max(memory, lookMemory)
			continue
		}
		askCtx, cancel := context.WithTimeout(ctx, lookDeadline)
		a := c.ask(askCtx, s, e.Manifest.UUID)
		cancel()
		switch {
		case errors.Is(a.err, errPrivate) && c.noteDetail(s, &h.Manifest, a.manifest): // its list said nothing of that
			return true, 0, ""
		case a.err != nil:
			whys = append(whys, a.err.Error())
		case terse(&a.manifest):
			whys = append(whys, fmt.Sprintf("source %s tells none by uuid either", s.name))
		case c.noteDetail(s, &h.Manifest, a.manifest):
			return true, 0, ""
		}
		busy = busy || errors.Is(a.err, ErrBusy)
		memory = max(memory, c.lookMemory(s.name, answered(a.err)))
	}
	switch {
	case len(whys) == 0:
		return false, unsureLook, "its sources have other lists by now"
	case busy:
		memory = notAsked
	}
	return false, memory, strings.Join(whys, "; ")
}

// hasOnlyList tells that s can tell no more of an image by uuid than its list does.
func (c *Catalog) hasOnlyList(s *source) bool {
	c.state.Lock()
	defer c.state.Unlock()
	return s.list.Kind == kindStatic || s.list.Kind == kindDirectory
}

// isStatic tells that s answers a question by uuid with its whole list.
func (c *Catalog) isStatic(s *source) bool {
	c.state.Lock()
	defer c.state.Unlock()
	return s.list.Kind == kindStatic
}

// noteDetail takes what s told by uuid in the place of entry, if that is still on its list.
func (c *Catalog) noteDetail(s *source, entry *manifest.Manifest, full manifest.Manifest) bool {
	if full.Undated() && !entry.Undated() {
		full = full.WithDate(entry.Published)
	}
	c.state.Lock()
	defer c.state.Unlock()
	i := slices.IndexFunc(s.list.Images, func(m manifest.Manifest) bool { return m.UUID == entry.UUID })
	if i < 0 || !bytes.Equal(s.list.Images[i].Raw(), entry.Raw()) {
		return false
	}
	s.keepDetail(&s.list.Images[i], full)
	s.unsaved, c.stale = true, true
	return true
}

// saveDetails saves the lists of which details have been learned.
func (c *Catalog) saveDetails() {
	for _, s := range c.sources {
		c.state.Lock()
		unsaved := s.unsaved
		c.state.Unlock()
		if unsaved {
			c.saveListing(s)
		}
	}
}
