package manifest

import "math/bits"

// Selection is the images of a slice that a Query selects, in the query's order: a bit for each
// image of the slice. The zero Selection has no image. A Selection may be read concurrently.
type Selection struct {
	bits  []uint64
	count int
	desc  bool // the last of the slice comes first
}

// newSelection is the empty Selection of a slice of n images.
func newSelection(n int, desc bool) Selection {
	return Selection{bits: make([]uint64, (n+63)/64), desc: desc}
}

func (s *Selection) add(i int) {
	s.bits[i/64] |= 1 << (i % 64)
	s.count++
}

// Len is the number of images.
func (s Selection) Len() int { return s.count }

// Size is the memory that s takes, in bytes.
func (s Selection) Size() int { return 8 * len(s.bits) }

// All gives the places of the images in the slice, in the query's order.
func (s Selection) All(yield func(i int) bool) {
	for start, end := s.Next(-1, -1); start < end; start, end = s.Next(start, end) {
		for i := start; i < end; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// Next gives the run of neighbouring places, from start up to but without end, that follows the run
// start, end in the query's order. The run -1, -1 stands before the first run, and an empty run
// comes after the last one. The order of a run is ascending: in a descending query each run has one
// place.
func (s Selection) Next(start, end int) (nextStart, nextEnd int) {
	if s.desc {
		if start < 0 {
			start = 64 * len(s.bits)
		}
		if i := s.before(start); i >= 0 {
			return i, i + 1
		}
		return 0, 0
	}
	start = s.find(max(end, 0), 0)
	return start, s.find(start, ^uint64(0))
}

// find gives the first place at or after i whose bit is not that of unwanted, which is 0 or ^0; the
// number of bits if there is none.
func (s Selection) find(i int, unwanted uint64) int {
	for ; i < 64*len(s.bits); i = (i/64 + 1) * 64 {
		if word := (s.bits[i/64] ^ unwanted) >> (i % 64); word != 0 {
			return i + bits.TrailingZeros64(word)
		}
	}
	return 64 * len(s.bits)
}

// before gives the last place with a bit that is before i; -1 if there is none.
func (s Selection) before(i int) int {
	for ; i > 0; i = (i - 1) / 64 * 64 {
		word := s.bits[(i-1)/64] << (63 - (i-1)%64)
		if word != 0 {
			return i - 1 - bits.LeadingZeros64(word)
		}
	}
	return -1
}
