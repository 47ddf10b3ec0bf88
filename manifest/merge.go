package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
)

// ErrNotModified is matched when a source's list is the same as the one before.
var ErrNotModified = errors.New("not modified")

// Listing is the list of one source, with its time; the value that is saved across restarts.
type Listing struct {
	Source       string // the configured name
	Kind         string // imgapi, dsapi, static, directory: as found
	Images       []Manifest
	Text         []byte     // BuildList of the first of Images, which lie in the text; nil: they lie elsewhere; not saved
	Unlisted     []Manifest // fetched by uuid: origins that the list does not show (spec 7)
	Retired      []Manifest // formerly in Images, gone from the source; Merge ignores them
	Details      []Manifest // fetched by uuid, for Images about which the list says too little; Merge ignores them
	Refusals     Refusals   // the entries of the list that are not in Images
	ETag         string     // validators of the list, for the next conditional request
	LastModified string
	Fetched      time.Time              // when the source last confirmed the list
	From         string                 // the address and settings of the source then; another source may list other images
	Mirror       string                 // the id of the mirror that the source is, "" for a source that is no mirror; not saved
	Ways         map[uuid.UUID][]string // the mirrors that each image came through, Mirror first; nil for a source that is no mirror; not saved
	Trouble      string                 // parts of the source that could not be read, so that some Images may be of the list before; not saved
}

// Merged is one image after the merge, with every source that holds the same bytes. Its manifests
// are the manifests of the listings, not copies.
type Merged struct {
	Manifest *Manifest
	Listed   bool     // a source of these bytes lists the image (else clients reach the image by uuid only)
	Source   string   // the source of Manifest
	Holders  []Holder // sources with the same uuid and the same sums and sizes; the first is Source, the others follow in configured order
}

// Holder is a source that holds an image, with the source's own manifest (paths and urls differ).
type Holder struct {
	Source   string
	Manifest *Manifest
}

// Conflict is a uuid for which a later source has other bytes. The later source's image is left out
// (A35).
type Conflict struct {
	UUID       uuid.UUID
	Kept, Left string // source names
}

// Merge merges listings in configured order: the first source that has a uuid wins the whole
// manifest, with three exceptions. A later source with equal sha1 gives an origin that the first
// does not know (spec 7, dsapid). A later source with equal sha1 that lists an image wins over a
// first source where the image is disabled. A later source wins where the first tells no files of
// an active image: a list may tell less than there is.
// Equal sha1 with another size is not equal: one of the two sources tells of a file that does not
// exist. Sources of a file without sha1 are not interchangeable, and only the first is a holder.
// Images that are not Servable are left out, and hide no image of another source. The result is
// ordered by (Published, UUID) ascending, a missing date first.
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

// merge is a merge under way. Manifests are handled by pointer: lists are long.
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
	best       int32 // the candidate with the manifest that is shown
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
		return // the same uuid twice in one source: the first counts
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
		// Disabled at the source that was asked by uuid, offered by another: lists must show the image.
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

// SameFiles tells that two manifests have the same files, as far as is known: each file has a sha1,
// the same in both, and sizes do not differ.
func SameFiles(a, b Manifest) bool { return sameBytes(a.Files, b.Files) }

// sameBytes tells that both name the same sha1 for each file, at least one, and that sizes do not
// differ.
func sameBytes(a, b []File) bool {
	return len(a) > 0 && slices.EqualFunc(a, b, func(x, y File) bool {
		return x.SHA1 == y.SHA1 && !x.SHA1.IsZero() && !otherSize(x, y)
	})
}

// otherSize tells that both name a size, and the sizes differ.
func otherSize(x, y File) bool { return x.Size > 0 && y.Size > 0 && x.Size != y.Size }

// otherBytes tells that the two are known to differ. Without sums nothing is known.
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
