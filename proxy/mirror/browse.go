package mirror

import (
	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/catalog/browse"
	"imgmirror/proxy/own"
)

// The states by which images can be asked for: States.
const (
	StateListed   = "listed"   // clients see the image in lists
	StateCached   = "cached"   // and all its files are on disk
	StateUncached = "uncached" // or they are not
	StatePinned   = "pinned"   // and it is kept from eviction
	StateRetired  = "retired"  // no source has it any more
	StateHidden   = "hidden"   // a source has the image, and clients are not shown it
	StateUnlisted = "unlisted" // hidden, because no list shows it: it was found by its uuid
)

// States are the states by which images can be asked for.
var States = []string{StateListed, StateCached, StateUncached, StatePinned, StateRetired, StateHidden, StateUnlisted}

// Values of Seen.Cached.
const (
	CachedNone  = "none"
	CachedPart  = "part"  // some of its bytes are on disk
	CachedWhole = "whole" // all its files are on disk, verified
)

// Seen is a row of a Browsed: an image of the list, or a hidden image of one source.
type Seen struct {
	Image   *manifest.Manifest // never changed; zero but for the uuid: a refused image
	Source  string
	Sources int    // that hold its files
	Cached  string // CachedNone, CachedPart, CachedWhole
	Have    int64  // bytes on disk
	Pinned  bool
	Listed  bool // clients see an image with that uuid in lists
	Retired bool
	Hidden  *catalog.Hidden // why clients are not shown this; nil: they are
}

// Browsed is a page of the catalogue as people look at it. Facets are those of browse.Result; the
// facet "reason" is of hidden images, the facets but "state" and "reason" are of the state that was
// asked for.
type Browsed struct {
	Total  int
	Rows   []Seen
	Facets map[string]map[string]int
}

// Browse finds images of the catalogue. q.State is one of States, "" stands for StateListed; with
// q.Reason it is StateHidden. q.States is ignored.
func (m *Mirror) Browse(q browse.Query) Browsed {
	g := m.now.Load()
	list := g.Current()
	listed, hidden := list.Table(), g.HiddenTable()
	if q.State == StateRetired && hidden.Retired().Any() {
		q.State, q.Reason = StateHidden, catalog.ReasonRetired
	}
	if q.State == StateUnlisted {
		q.State, q.Reason = StateHidden, catalog.ReasonUnlisted
	}
	if q.Reason != "" {
		q.State = StateHidden
	}

	ofListed, ofHidden := q, q
	ofListed.Reason = ""
	ofHidden.State, ofHidden.States = "", nil
	ofListed.States = m.statesOf(listed)
	of := listed
	if q.State == StateHidden {
		of, ofListed.State, ofListed.Limit = hidden.Table, "", 0
	} else {
		ofHidden.Limit = 0
	}
	inList, inHidden := listed.Find(ofListed), hidden.Find(ofHidden)
	found := inList
	if q.State == StateHidden {
		found = inHidden
	}
	states, reasons := inList.Facets["state"], inHidden.Facets["reason"]
	states[StateUnlisted] = reasons[catalog.ReasonUnlisted]
	states[StateRetired] += reasons[catalog.ReasonRetired]
	states[StateHidden] = 0
	for _, n := range reasons {
		states[StateHidden] += n
	}
	found.Facets["state"], found.Facets["reason"] = states, reasons

	out := Browsed{Total: found.Total, Facets: found.Facets, Rows: make([]Seen, len(found.Rows))}
	filling := make(map[uuid.UUID]int64)
	for _, f := range m.store.Fills() {
		filling[f.Image] += f.Have
	}
	for n, i := range found.Rows {
		row := of.Row(i)
		s := Seen{Image: row.Image, Source: row.Source, Retired: row.Retired, Pinned: m.Kept(row.Image.UUID)}
		if q.State == StateHidden {
			h := hidden.Why(i)
			s.Hidden, s.Sources, s.Listed = &h, 1, list.Shows(row.Image.UUID)
		} else {
			s.Listed = true
			if e, ok := list.Entry(row.Image.UUID); ok {
				s.Sources = len(e.Holders)
			}
		}
		s.Cached, s.Have = m.onDisk(row.Image, filling[row.Image.UUID])
		out.Rows[n] = s
	}
	return out
}

// statesOf gives the rows in each state of listed images. Sorting by state follows this order.
func (m *Mirror) statesOf(t *browse.Table) []browse.State {
	cached := t.Note(StateCached, m.store.Changes(), func() browse.Set {
		rows := browse.NewSet(t.Len())
		for i := range t.Len() {
			if m.whole(t.Image(i)) {
				rows.Add(i)
			}
		}
		return rows
	})
	return []browse.State{
		{Name: StatePinned, Rows: m.pinnedOf(t)},
		{Name: StateCached, Rows: cached},
		{Name: StateRetired, Rows: t.Retired()},
		{Name: StateUncached, Rows: browse.Set(nil).Without(cached, t.Len())},
		{Name: StateListed},
	}
}

// pinnedOf gives the rows of the images for which Kept holds.
func (m *Mirror) pinnedOf(t *browse.Table) browse.Set {
	if m.store.AllPinned() {
		return nil
	}
	rows := browse.NewSet(t.Len())
	add := func(id uuid.UUID) {
		for _, i := range t.Rows(id) {
			rows.Add(int(i))
		}
	}
	for id := range m.store.Pinned() {
		add(id)
	}
	rules := m.rules.Load()
	rows.Join(t.Note(StatePinned, rules, func() browse.Set { // the list changes with the mirror's own images
		kept := browse.NewSet(t.Len())
		for _, f := range rules.Pins {
			kept.Join(t.Match(f))
		}
		for _, source := range []*own.Source{m.published, m.imported} {
			for _, image := range source.Images() {
				if source == m.published || m.keepsImported(image.UUID) {
					for _, i := range t.Rows(image.UUID) {
						kept.Add(int(i))
					}
				}
			}
		}
		return kept
	}))
	return rows
}

// whole is Cached without the making of an Entry and its sources.
func (m *Mirror) whole(image *manifest.Manifest) bool {
	for i := range image.Files {
		if _, ok := m.Store.Peek(wanted(image, i)); !ok {
			return false
		}
	}
	return len(image.Files) > 0
}

// onDisk tells how much of an image is on disk; filling is what a download under way has.
func (m *Mirror) onDisk(image *manifest.Manifest, filling int64) (cached string, have int64) {
	whole := len(image.Files) > 0
	for i := range image.Files {
		blob := wanted(image, i)
		if info, ok := m.Store.Peek(blob); ok {
			have += info.Digests.Size
			continue
		}
		whole = false
		have += m.store.Unfinished(blob)
	}
	switch have += filling; {
	case whole:
		return CachedWhole, have - filling
	case have > 0:
		return CachedPart, have
	}
	return CachedNone, 0
}

// wanted is the blob of file index of an image, as far as Peek and Unfinished need it.
func wanted(image *manifest.Manifest, index int) cache.Blob {
	b := cache.Blob{Want: bytesOf(&image.Files[index])}
	if b.Want.SHA1.IsZero() {
		b.Key = keyOf(image, index)
	}
	return b
}

// Offers gives an image as each source has it: see catalog.Catalog.Offers.
func (m *Mirror) Offers(id uuid.UUID) []catalog.Offer { return m.now.Load().Offers(id) }

// FileState is what is known of one file of an image.
type FileState struct {
	cache.File       // zero: the file is not on disk
	Stored     bool  // the file is on disk, verified
	Have       int64 // bytes on disk
}

// FilesOf tells of each file of an image what is on disk.
func (m *Mirror) FilesOf(image manifest.Manifest) []FileState {
	out := make([]FileState, len(image.Files))
	fills := m.store.Fills()
	for i := range out {
		blob := wanted(&image, i)
		if info, ok := m.Store.Peek(blob); ok {
			out[i].File, out[i].Stored = m.store.Describe(info.Digests.SHA1)
			out[i].Have = info.Digests.Size
			continue
		}
		out[i].Have = m.store.Unfinished(blob)
		for _, f := range fills {
			if f.Image == image.UUID && (len(out) == 1 || f.Sum == blob.Want.SHA1) {
				out[i].Have = max(out[i].Have, f.Have)
			}
		}
	}
	return out
}
