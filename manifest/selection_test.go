package manifest

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Next gives the selected places in runs as long as can be, in the query's order.
func TestSelection(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n, share := rng.IntN(300), rng.Float64()
		up, down := newSelection(n, false), newSelection(n, true)
		var want []int
		for i := range n {
			if rng.Float64() < share {
				up.add(i)
				down.add(i)
				want = append(want, i)
			}
		}
		if got := slices.Collect(up.All); !slices.Equal(got, want) || up.Len() != len(want) {
			t.Fatalf("%d of %d: %v, want %v", up.Len(), n, got, want)
		}
		last := -1
		for start, end := up.Next(-1, -1); start < end; start, end = up.Next(start, end) {
			if start <= last {
				t.Fatalf("run %d-%d touches the run before, which ends at %d", start, end, last)
			}
			last = end
		}
		slices.Reverse(want)
		if got := slices.Collect(down.All); !slices.Equal(got, want) {
			t.Fatalf("descending: %v, want %v", got, want)
		}
	}
	if start, end := (Selection{}).Next(-1, -1); start < end {
		t.Errorf("the zero Selection has %d-%d", start, end)
	}
}
