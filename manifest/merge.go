package manifest

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Listing is what one source said, and when. The value that is saved across restarts.
type Listing struct {
	Source       string // its configured name
	Kind         string // imgapi, dsapi, static, directory: as found
	Images       []Manifest
	Unlisted     []Manifest // fetched by uuid: origins that the list does not show (spec 7)
	Retired      []Manifest // were in Images and are at the source no more; Merge does not look at them
	Details      []Manifest // fetched by uuid: of Images of which the list does not tell enough; Merge does not look at them
	Refusals     Refusals   // what the list has beside Images
	ETag         string     // validators of the list, for the next conditional request
	LastModified string
	Fetched      time.Time              // when the source last confirmed it
	From         string                 // what the source was then; another one may list other images
	Mirror       string                 // the id of the mirror that the source is, "" when it is none; not saved
	Ways         map[uuid.UUID][]string // the mirrors that each image came through, Mirror first; nil when the source is none; not saved
	Trouble      string                 // what the source could not read, so that some Images may be those of the list before; not saved
}

// Merged is one image after the merge, with every source that holds the same bytes. Its manifests are those of
// the listings, not copies.
type Merged struct {
	Manifest *Manifest
	Listed   bool     // some source of these bytes lists it (else it is reachable by uuid only)
	Source   string   // where Manifest came from
	Holders  []Holder // sources with the same uuid and the same sums and sizes; the first is Source, the others follow in configured order
}

// Holder is a source that holds an image, with that source's own manifest (its paths and urls differ).
type Holder struct {
	Source   string
	Manifest *Manifest
}

// Conflict is a uuid for which a later source has other bytes: it is left out for that source (A35).
type Conflict struct {
	UUID       uuid.UUID
	Kept, Left string // source names
}

// Merge merges listings given in configured order: the first source that has a uuid wins the whole
// manifest, but for an origin that only a later one with equal sha1 knows (spec 7, dsapid), and but for one that
// is disabled there and listed by a later one with equal sha1, and but for an active one of which the first tells no
// files: its list may tell less than there is. Equal sha1 with another size is no equal: one of both
// sources tells of a file that does not exist. Where a file has no sha1,
// sources are not interchangeable, and only the first is a holder. Images that are not Servable are left out, so
// that they hide nobody's. The result is ordered by (Published, UUID) ascending, a missing date first.
func Merge(ls []Listing) ([]Merged, []Conflict) {
	total, largest := 0, 0
	for i := range ls {
		n := len(ls[i].Images) + len(ls[i].Unlisted)
		total, largest = total+n, max(largest, n)
	}
	g := merge{at: make(map[uuid.UUID]int32, largest), candidates: make([]candidate, 0, total), listings: ls}
	for i := range ls {
		for j := range ls[i].Images {
			g.add(int32(i), &ls[i].Images[j], true)
		}
		for j := range ls[i].Unlisted {
			g.add(int32(i), &ls[i].Unlisted[j], false)
		}
	}
	return g.result(), g.conflicts
}

// merge is a merge under way. It handles manifests by pointer: lists are long.
type merge struct {
	listings   []Listing
	at         map[uuid.UUID]int32 // into groups
	groups     []group
	candidates []candidate
	conflicts  []Conflict
}

// group is the sources that hold one image: a chain of candidates in configured order.
type group struct {
	head, tail int32 // into candidates
	best       int32 // whose manifest is shown
	listed     bool
}

type candidate struct {
	manifest *Manifest
	source   int32 // into listings
	next     int32 // in the same group; -1: none
}

func (g *merge) add(source int32, m *Manifest, listed bool) {
	if !m.Servable() {
		return
	}
	c := int32(len(g.candidates))
	at, known := g.at[m.UUID]
	if !known {
		g.at[m.UUID] = int32(len(g.groups))
		g.groups = append(g.groups, group{head: c, tail: c, best: c, listed: listed})
		g.candidates = append(g.candidates, candidate{m, source, -1})
		return
	}

	gr := &g.groups[at]
	best := g.candidates[gr.best]
	if len(best.manifest.Files) == 0 && best.manifest.Active() && len(m.Files) > 0 {
		g.candidates = append(g.candidates, candidate{m, source, -1})
		gr.head, gr.tail, gr.best, gr.listed = c, c, c, gr.listed || listed
		return
	}
	if !sameBytes(best.manifest.Files, m.Files) {
		if otherBytes(best.manifest.Files, m.Files) && best.source != source {
			g.conflicts = append(g.conflicts, Conflict{m.UUID, g.listings[best.source].Source, g.listings[source].Source})
		}
		return
	}
	firstListed := listed && !gr.listed
	gr.listed = gr.listed || listed
	if g.candidates[gr.tail].source == source {
		return // the same uuid twice in one source: its first word counts
	}
	g.candidates = append(g.candidates, candidate{m, source, -1})
	g.candidates[gr.tail].next = c
	gr.tail = c
	switch {
	case m.HasOrigin() != best.manifest.HasOrigin():
		if m.HasOrigin() {
			gr.best = c
		}
	case firstListed && !best.manifest.Active():
		// Disabled where it was asked for by uuid, offered elsewhere: those who list images must find it.
		gr.best = c
	}
}

func (g *merge) result() []Merged {
	keys := make([]orderKey, len(g.groups))
	for i, gr := range g.groups {
		keys[i] = g.candidates[gr.best].manifest.orderKey()
		keys[i].index = int32(i)
	}
	slices.SortFunc(keys, orderKey.compare)

	out := make([]Merged, len(keys))
	holders := make([]Holder, 0, len(g.candidates)) // one array, cut up
	for i, k := range keys {
		gr := g.groups[k.index]
		begin := len(holders)
		holders = append(holders, g.holder(gr.best))
		for c := gr.head; c >= 0; c = g.candidates[c].next {
			if c != gr.best {
				holders = append(holders, g.holder(c))
			}
		}
		mine := holders[begin:len(holders):len(holders)]
		out[i] = Merged{Manifest: mine[0].Manifest, Listed: gr.listed, Source: mine[0].Source, Holders: mine}
	}
	return out
}

func (g *merge) holder(c int32) Holder {
	return Holder{Source: g.listings[g.candidates[c].source].Source, Manifest: g.candidates[c].manifest}
}

// SameFiles tells that two manifests are known to be of the same files: each has a sha1, the same in both, and no sizes
// speak against it.
func SameFiles(a, b Manifest) bool { return sameBytes(a.Files, b.Files) }

// sameBytes tells that both name the same sha1 for each file, that there is one, and that no sizes speak against it.
func sameBytes(a, b []File) bool {
	return len(a) > 0 && slices.EqualFunc(a, b, func(x, y File) bool {
		return x.SHA1 == y.SHA1 && !x.SHA1.IsZero() && !otherSize(x, y)
	})
}

// otherSize tells that both name a size, and not the same.
func otherSize(x, y File) bool { return x.Size > 0 && y.Size > 0 && x.Size != y.Size }

// otherBytes tells that the two are known to differ, not merely not known to be the same.
func otherBytes(a, b []File) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	for i := range min(len(a), len(b)) {
		if a[i].SHA1 != b[i].SHA1 && !a[i].SHA1.IsZero() && !b[i].SHA1.IsZero() || otherSize(a[i], b[i]) {
			return true
		}
	}
	return len(a) != len(b)
}

// orderKey is an image's place in the total order (Published, UUID).
type orderKey struct {
	milli int64
	id    uuid.UUID
	index int32
}

func (m *Manifest) orderKey() orderKey {
	return orderKey{milli: milli(m.Published), id: m.UUID}
}

// milli gives t for comparisons; no date is before all dates.
func milli(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return t.UnixMilli()
}

func (k orderKey) compare(other orderKey) int {
	if k.milli != other.milli {
		return cmp.Compare(k.milli, other.milli)
	}
	return bytes.Compare(k.id[:], other.id[:])
}
