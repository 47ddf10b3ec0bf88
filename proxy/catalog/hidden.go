package catalog

import (
	"fmt"
	"maps"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Hidden says why an image that a source has is not shown to clients.
type Hidden struct {
	Source string
	Reason string // one of the Reason constants: what is counted
	Detail string // one line for people
}

// The reasons for which an image is not shown.
const (
	ReasonRefused     = "refused"  // its manifest cannot be read, or would harm imgadm
	ReasonSkipped     = "skipped"  // nothing that clients could use: type vmimage, state nuked
	ReasonPrivate     = "private"  // not public, and its source is not configured with serve_private
	ReasonDisabled    = "disabled" // by its state; so the next three
	ReasonUnactivated = "unactivated"
	ReasonCreating    = "creating"
	ReasonFailed      = "failed"
	ReasonNoFiles     = "no_files"     // its manifest names no file
	ReasonIncomplete  = "incomplete"   // the size or the compression of its file is not known yet
	ReasonUnusable    = "unusable"     // its file is none that a node can receive
	ReasonFiltered    = "filtered"     // by include and exclude of its source
	ReasonNoChannel   = "no_channel"   // in none of the mirror's channels
	ReasonConflict    = "conflict"     // a source before it has other files under that uuid
	ReasonBrokenChain = "broken_chain" // no source has one of its origins, and such images are hidden
	ReasonRetired     = "retired"      // it left its source, and such images are hidden
	ReasonUnlisted    = "unlisted"     // found by its uuid: no list shows it
)

// Reasons are all of these.
var Reasons = []string{
	ReasonRefused, ReasonSkipped, ReasonPrivate, ReasonDisabled, ReasonUnactivated, ReasonCreating, ReasonFailed, ReasonNoFiles,
	ReasonIncomplete, ReasonUnusable, ReasonFiltered, ReasonNoChannel, ReasonConflict, ReasonBrokenChain, ReasonRetired, ReasonUnlisted,
}

// offer is an image of one source.
type offer struct {
	image  uuid.UUID
	source string
}

// replacedBy gives, of each conflict, the source that wins.
func replacedBy(conflicts []manifest.Conflict) map[offer]string {
	out := make(map[offer]string, len(conflicts))
	for _, x := range conflicts {
		out[offer{x.UUID, x.Left}] = x.Kept
	}
	return out
}

// Conflicts gives the images that a source has with other files than those that are served, in no
// order.
func (l *List) Conflicts() []manifest.Conflict {
	all := make([]manifest.Conflict, 0, len(l.replaced))
	for left, kept := range l.replaced {
		all = append(all, manifest.Conflict{UUID: left.image, Kept: kept, Left: left.source})
	}
	return all
}

// hides says why a stored image is not among the list's images; Reason is "" for one that is. hides
// is the one rule for what clients are shown.
func (l *List) hides(r *record) Hidden {
	m := r.manifest
	h := Hidden{Source: r.source.name}
	switch {
	case !m.Active():
		h.Reason, h.Detail = m.State, "its state is "+m.State
	case !m.Servable():
		h.Reason, h.Detail = ReasonPrivate, "it is private, and the source is not configured with serve_private"
	case len(m.Files) == 0:
		h.Reason, h.Detail = ReasonNoFiles, "its manifest names no file"
	case m.Incomplete() != "":
		h.Reason, h.Detail = ReasonIncomplete, m.Incomplete()
	case m.Unusable() != "":
		h.Reason, h.Detail = ReasonUnusable, m.Unusable()
	case !r.listed && r.retired:
		h.Reason, h.Detail = ReasonRetired, "no source has it any more, and catalog.retired hides such images"
	case !r.listed:
		h.Reason, h.Detail = ReasonUnlisted, "no list shows it: it was found by its uuid"
	case l.broken[m.UUID] != "":
		h.Reason, h.Detail = ReasonBrokenChain, l.broken[m.UUID]
	}
	return h
}

// Shows tells that clients see the image id on the list.
func (l *List) Shows(id uuid.UUID) bool {
	r, ok := l.record(id)
	return ok && l.hides(&r).Reason == ""
}

// hiddenAt says why m, which s has, is not shown; its Reason is "" when it is.
func (l *List) hiddenAt(s *source, m *manifest.Manifest) Hidden {
	h := Hidden{Source: s.name}
	switch {
	case !s.mayServe(*m):
		h.Reason, h.Detail = ReasonPrivate, "it is private, and the source is not configured with serve_private"
		return h
	case s.needsChannel && len(m.Channels) == 0:
		h.Reason, h.Detail = ReasonNoChannel, "it is in none of the mirror's channels"
		return h
	case !s.takes(*m):
		h.Reason, h.Detail = ReasonFiltered, "include and exclude of the source leave it out"
		return h
	}
	if kept, ok := l.replaced[offer{m.UUID, s.name}]; ok {
		h.Reason, h.Detail = ReasonConflict, fmt.Sprintf("source %s has other files under this uuid, and comes first", kept)
		return h
	}
	r, ok := l.record(m.UUID)
	if !ok { // the source said so just now, and the list is about to follow
		return h
	}
	why := l.hides(&r)
	h.Reason, h.Detail = why.Reason, why.Detail
	return h
}

// countHidden counts, for each source, what its list has and is not shown.
func (l *List) countHidden(in inputs) {
	l.hidden = make(map[string]map[string]int, len(in.sources))
	for _, src := range in.sources {
		counts := make(map[string]int)
		for i := range src.images {
			if h := l.hiddenAt(src.source, &src.images[i]); h.Reason != "" {
				counts[h.Reason]++
			}
		}
		l.hidden[src.source.name] = counts
	}
}

// hiddenOf is what Status tells of s, by reason; the catalogue's state is held.
func (l *List) hiddenOf(s *source) map[string]int {
	counts := maps.Clone(l.hidden[s.name])
	if counts == nil {
		counts = make(map[string]int)
	}
	for reason, n := range map[string]int{ReasonRefused: s.list.Refusals.Refused, ReasonSkipped: s.list.Refusals.Skipped} {
		if n > 0 {
			counts[reason] = n
		}
	}
	return counts
}

// Hidden gives, in order of priority, why each source that has the image id does not show it;
// nothing for an image that is shown or not known. Of refused images the first hundred of each list
// are known. Hidden looks at every image of every list: for administration, not for requests.
func (c *Catalog) Hidden(id uuid.UUID) []Hidden {
	list := c.Current()
	if r, ok := list.record(id); ok && list.hides(&r).Reason == "" {
		return nil
	}
	var out []Hidden
	c.state.Lock()
	defer c.state.Unlock()
	for _, s := range c.sources {
		m, ok := s.has(id)
		h := Hidden{}
		if ok {
			h = c.looks.explain(list.hiddenAt(s, m), m)
		} else if f, refused := s.list.Refusals.Of(id); refused {
			h = Hidden{Source: s.name, Reason: ReasonRefused, Detail: f.Reason}
			if f.Skip {
				h.Reason = ReasonSkipped
			}
		}
		if h.Reason != "" {
			out = append(out, h)
		}
	}
	return out
}

// has gives what s said last of the image id, on its list or by uuid; state is held.
func (s *source) has(id uuid.UUID) (*manifest.Manifest, bool) {
	for i := range s.list.Images {
		if m := &s.list.Images[i]; m.UUID == id {
			if d, ok := s.details[id]; ok {
				m = &d.manifest
			}
			return m, true
		}
	}
	for _, of := range []map[uuid.UUID]given{s.unlisted, s.retired} {
		if u, ok := of[id]; ok {
			return &u.manifest, true
		}
	}
	return nil, false
}
