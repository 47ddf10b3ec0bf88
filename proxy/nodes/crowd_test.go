package nodes

import (
	"math"
	"testing"
	"time"
)

// One IPv6 network takes no more than half of the room from the others, and all of the room that is free.
func TestCrowd(t *testing.T) {
	const room = 8
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{Keep: time.Hour, Max: room})
	for _, n := range []int{0, 2, 4} { // of IPv4
		j.take(fetch(n, 1, "hit"))
	}
	for n := range 100 {
		j.take(fetch(2*n+1, 1, "hit"))
	}
	if got, _ := j.List(Query{Sort: "last"}); len(got) != room {
		t.Errorf("%d nodes", len(got))
	}
	for _, n := range []int{0, 2, 4, 199, 197, 195, 193, 191} {
		if _, _, known := j.Node(address(n)); !known {
			t.Errorf("node %d is gone", n)
		}
	}
	j.take(fetch(6, 1, "hit"))
	j.take(fetch(8, 1, "hit"))
	wantNodes(t, j, Query{Image: imageID(1), Sort: "address"}, room, 2, 4, 6, 8, 193, 195, 197, 199) // half is left to the crowd: then age counts alone
	j.flush(math.MaxInt)
	j = newJournal(t, notes, Limits{Keep: time.Hour, Max: 5})
	if used, _, _ := j.Room(); used != 5 {
		t.Errorf("%d nodes after a start with a lower limit", used)
	}
	if n, err := j.ForgetAll(); n != 5 || err != nil || len(j.networks) != 0 {
		t.Errorf("%d forgotten, %v, %d networks are left", n, err, len(j.networks))
	}
	one := newJournal(t, new(fakeNotes), Limits{Keep: time.Hour, Max: 1})
	one.take(fetch(1, 1, "hit"))
	one.take(fetch(3, 1, "hit"))
	wantNodes(t, one, Query{}, 1, 3)
}
