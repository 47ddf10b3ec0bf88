package manifest

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// Unpack gives the texts of a pack, in the memory of room if that is large enough, and the memory for the next call.
// It is called more than once for a pack, from several goroutines, and gives the same texts, or an error, each time.
type Unpack func(pack int, room []byte) (texts [][]byte, next []byte, err error)

// RestoreList reads manifests that have passed Parse or ReadList before, from n packs. An image for which leave is true
// is left out. Of several manifests with one uuid the first counts. Each text is Raw of such a manifest, byte for byte.
// The caller answers for the texts: RestoreList does not check the JSON again, and any other text may end or hang the
// process. The options apply as in ReadList, so that some manifests may be refused: these are among the faults. So is a
// pack that cannot be unpacked.
//
// The images that lists show come first, in the order of lists, and their V2 lies in list, which is BuildList of them.
// The other images follow in that order. Each text goes to its place as it is unpacked for the second time, so that no
// text is in memory twice.
func RestoreList(n int, unpack Unpack, leave func(uuid.UUID) bool, o ParseOptions) (images []Manifest, list []byte, faults []error) {
	const least = 16 // packs that are worth a goroutine
	each := max(least, (n+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	var shares []*share
	for from := 0; from < n; from += each {
		shares = append(shares, &share{from: from, to: min(from+each, n), unpack: unpack})
	}
	together := func(do func(*share)) {
		var workers sync.WaitGroup
		for _, s := range shares {
			workers.Go(func() { do(s) })
		}
		workers.Wait()
	}
	together(func(s *share) { s.read(leave, o) })
	for _, s := range shares {
		faults = append(faults, s.faults...)
	}
	to := arrange(shares)
	together(func(s *share) { s.fill(to) })
	return to.images, to.list, faults
}

// share is some of the packs, for one goroutine.
type share struct {
	from, to int
	unpack   Unpack
	images   [][]restored // in the order of the texts; in chunks, so that nothing is copied while they come
	faults   []error
}

// restored is one image without its texts.
type restored struct {
	Manifest        // v2 is its own, or nil: the text is
	pack, nth int32 // where the text is
	length    int32 // of the text

	at    int32 // in the result; -1: another image of that uuid is there
	v2At  int   // in the list, or for an image that is not on the list in rest
	rawAt int   // in rest, unless v2 is the text
}

const chunkRestored = 512

// read reads the manifests. Their texts are gone with the next pack.
func (s *share) read(leave func(uuid.UUID) bool, o ParseOptions) {
	p := parser{options: o, seen: make(map[string]string)}
	var room []byte
	for pack := s.from; pack < s.to; pack++ {
		texts, next, err := s.unpack(pack, room)
		if room = next; err != nil {
			s.faults = append(s.faults, err)
			continue
		}
		for nth, text := range texts {
			m, err := p.accepted(text)
			if err != nil {
				s.faults = append(s.faults, err)
				continue
			}
			if leave(m.UUID) {
				continue
			}
			if m.oneText() {
				m.v2 = nil
			}
			m.raw = nil
			if k := len(s.images); k == 0 || len(s.images[k-1]) == chunkRestored {
				s.images = append(s.images, make([]restored, 0, chunkRestored))
			}
			last := &s.images[len(s.images)-1]
			*last = append(*last, restored{Manifest: m, pack: int32(pack), nth: int32(nth), length: int32(len(text))})
		}
	}
}

// arrangement is the memory for a result.
type arrangement struct {
	images []Manifest
	shown  int    // of images: the first are on the list
	list   []byte // the whole list but for the texts
	rest   []byte // room for the other texts
}

// arrange gives each image its place.
func arrange(shares []*share) *arrangement {
	var all []*restored
	var shown, others []orderKey
	ids, ascend, last := make(map[uuid.UUID]bool), true, uuid.Nil
	each := func(do func(*restored)) {
		for _, s := range shares {
			for _, chunk := range s.images {
				for i := range chunk {
					do(&chunk[i])
				}
			}
		}
	}
	each(func(r *restored) {
		ascend = ascend && (len(all) == 0 || bytes.Compare(last[:], r.UUID[:]) < 0)
		last = r.UUID
		all = append(all, r)
	})
	for i, r := range all {
		if !ascend { // else there are no doubles
			if ids[r.UUID] {
				r.at = -1
				continue
			}
			ids[r.UUID] = true
		}
		key := r.orderKey()
		key.index = int32(i)
		if r.onLists() {
			shown = append(shown, key)
		} else {
			others = append(others, key)
		}
	}
	slices.SortFunc(shown, orderKey.compare)
	slices.SortFunc(others, orderKey.compare)
	to := &arrangement{images: make([]Manifest, len(shown)+len(others)), shown: len(shown)}
	list, rest := len("["), 0
	for i, k := range slices.Concat(shown, others) {
		r := all[k.index]
		r.at = int32(i)
		length := int(r.length)
		if r.v2 != nil {
			length = len(r.v2)
			r.rawAt = rest
			rest += int(r.length)
		}
		if i < len(shown) {
			r.v2At = list
			list += length + len(",\n")
		} else {
			r.v2At = rest
			rest += length
		}
	}
	if len(shown) > 0 {
		list -= len(",\n")
	}
	to.list, to.rest = make([]byte, list+len("]")), make([]byte, rest)
	to.list[0], to.list[list] = '[', ']'
	return to
}

// fill puts the images and their texts into their places.
func (s *share) fill(to *arrangement) {
	var room []byte
	var texts [][]byte
	pack := int32(-1)
	for _, chunk := range s.images {
		for i := range chunk {
			r := &chunk[i]
			if r.at < 0 {
				continue
			}
			if r.pack != pack {
				var err error
				if texts, room, err = s.unpack(int(r.pack), room); err != nil {
					panic(fmt.Sprintf("manifest: a pack cannot be unpacked again: %v", err)) // against the contract of Unpack
				}
				pack = r.pack
			}
			to.put(r, texts[r.nth])
		}
	}
}

// put puts one image and its texts into their places.
func (to *arrangement) put(r *restored, text []byte) {
	m := &to.images[r.at]
	v2, home := r.v2, to.rest
	if v2 == nil {
		v2 = text
	}
	if int(r.at) < to.shown {
		home = to.list
		if int(r.at) < to.shown-1 {
			copy(home[r.v2At+len(v2):], ",\n")
		}
	}
	*m = r.Manifest
	m.v2 = home[r.v2At : r.v2At+len(v2) : r.v2At+len(v2)]
	copy(m.v2, v2)
	m.raw = m.v2
	if r.v2 != nil {
		m.raw = to.rest[r.rawAt : r.rawAt+len(text) : r.rawAt+len(text)]
		copy(m.raw, text)
	}
}

// onLists tells that the image is one that lists show, as far as the image itself decides.
func (m *Manifest) onLists() bool {
	return m.Listable() && m.Incomplete() == "" && m.Unusable() == ""
}
