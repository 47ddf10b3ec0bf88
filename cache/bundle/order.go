package bundle

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// Order sorts indexes into an order in which their bundles can be imported: a delta comes after the bundles that
// bring what the delta leaves out. The content decides, not the clock: a delta may be as old as its base to the
// second, or older where a clock was set back. Among bundles that need nothing of each other the older one comes
// first, then the smaller id. Deltas that need each other keep that order too; the import refuses the first.
func Order(indexes []Index) {
	slices.SortStableFunc(indexes, func(a, b Index) int {
		return cmp.Or(a.Created.Compare(b.Created), bytes.Compare(a.ID[:], b.ID[:]))
	})
	var placed []Index
	here := make(map[uuid.UUID][]verify.Sum) // the images of the placed bundles
	waiting := slices.Clone(indexes)
	for len(waiting) > 0 {
		missing := missingFrom(waiting, here)
		next := max(0, slices.IndexFunc(waiting, func(x Index) bool { return !needs(x, missing) }))
		for _, m := range waiting[next].Images {
			here[m.UUID] = m.Held().Files
		}
		placed = append(placed, waiting[next])
		waiting = slices.Delete(waiting, next, next+1)
	}
	copy(indexes, placed)
}

// missingFrom gives the images that a waiting bundle brings and no placed one has brought.
func missingFrom(waiting []Index, here map[uuid.UUID][]verify.Sum) map[uuid.UUID][]verify.Sum {
	missing := make(map[uuid.UUID][]verify.Sum)
	for _, x := range waiting {
		for _, m := range x.Images {
			if files := m.Held().Files; !slices.Equal(here[m.UUID], files) {
				missing[m.UUID] = files
			}
		}
	}
	return missing
}

// needs tells that x leaves out one of the images.
func needs(x Index, images map[uuid.UUID][]verify.Sum) bool {
	return slices.ContainsFunc(x.Requires, func(h Held) bool {
		files, ok := images[h.UUID]
		return ok && slices.Equal(files, h.Files)
	})
}
