package browse

import "slices"

// Set is some of the rows of a table.
type Set []uint64

// NewSet is an empty set for a table of n rows.
func NewSet(n int) Set { return make(Set, (n+63)/64) }

// Add takes row i in.
func (s Set) Add(i int) { s[i/64] |= 1 << (i % 64) }

// Has tells whether row i is in the set. A nil set has every row.
func (s Set) Has(i int) bool { return s == nil || s[i/64]>>(i%64)&1 != 0 }

// Any tells whether a set that is not nil has a row.
func (s Set) Any() bool { return slices.ContainsFunc(s, func(word uint64) bool { return word != 0 }) }

// Join takes in all of other, a set of the same table.
func (s Set) Join(other Set) {
	for i, word := range other {
		s[i] |= word
	}
}

// meet keeps what is in other, too.
func (s Set) meet(other Set) {
	for i, word := range other {
		s[i] &= word
	}
}

// Without is what is in s, and not in other, of the first n rows of a table.
func (s Set) Without(other Set, n int) Set {
	out := NewSet(n)
	for i := range n {
		if s.Has(i) && !other.Has(i) {
			out.Add(i)
		}
	}
	return out
}
