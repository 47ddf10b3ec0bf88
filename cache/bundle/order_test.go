package bundle

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// ordered shuffles the indexes again and again and gives the one order that Order makes of them, by the last
// digit of the ids.
func ordered(t *testing.T, indexes ...Index) string {
	t.Helper()
	var first string
	for range 30 {
		rand.Shuffle(len(indexes), func(i, j int) { indexes[i], indexes[j] = indexes[j], indexes[i] })
		Order(indexes)
		var got string
		for _, x := range indexes {
			got += string('0' + rune(x.ID[15]))
		}
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("order %s, and %s from another beginning", got, first)
		}
	}
	return first
}

// TestOrder: a delta comes behind what it leaves out, whatever the clocks and the ids say.
func TestOrder(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	held := func(n, version int) Held { return Held{UUID: id(n), Files: []verify.Sum{{byte(n), byte(version)}}} }
	index := func(n int, created time.Time, brings, leavesOut []Held) Index {
		x := Index{ID: uuid.UUID{15: byte(n)}, Created: created, Requires: leavesOut}
		for _, h := range brings {
			x.Images = append(x.Images, Image{UUID: h.UUID, Files: []File{{SHA1: h.Files[0]}}})
		}
		return x
	}
	list := func(h ...Held) []Held { return h }
	f := func(want string, indexes ...Index) {
		t.Helper()
		if got := ordered(t, indexes...); got != want {
			t.Errorf("order %s, want %s", got, want)
		}
	}
	full := index(9, noon, list(held(1, 0), held(2, 0)), nil)
	f("91", full, index(1, noon, list(held(3, 0)), list(held(1, 0), held(2, 0))))                                                  // within one second
	f("91", full, index(1, noon.Add(-time.Hour), list(held(3, 0)), list(held(1, 0))))                                              // a clock set back
	second := index(5, noon.Add(-time.Hour), list(held(3, 0)), list(held(1, 0), held(2, 0)))                                       // of a chain
	third := index(1, noon.Add(-2*time.Hour), list(held(4, 0)), list(held(1, 0), held(3, 0)))                                      // of a chain
	f("951", full, second, third)                                                                                                  // every step is older
	f("129", full, index(1, noon.Add(-2*time.Hour), list(held(7, 0)), nil), index(2, noon.Add(-time.Hour), list(held(8, 0)), nil)) // unrelated: the clock
	f("129", full, index(2, noon, list(held(8, 0)), nil), index(1, noon, list(held(7, 0)), nil))                                   // then the id
	f("19", full, index(1, noon.Add(-time.Hour), list(held(3, 0)), list(held(1, 7))))                                              // leaves out another version
	f("491", full, index(4, noon.Add(-time.Hour), list(held(1, 0)), nil), index(1, noon.Add(-2*time.Hour), list(held(3, 0)), list(held(1, 0), held(2, 0))))
	// Deltas that need each other end the search, and none is lost.
	f("12", index(1, noon, list(held(1, 0)), list(held(2, 0))), index(2, noon, list(held(2, 0)), list(held(1, 0))))
}
