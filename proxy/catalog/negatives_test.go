package catalog

import (
	"fmt"
	"io/fs"
	"net/netip"
	"testing"
	"time"
)

// The memory of searches in vain is bounded; an address that fills it loses its own oldest.
func TestNegatives(t *testing.T) {
	n := newNegatives()
	now := time.Now()
	put := func(a account, number int) {
		n.put(a, negative{wanted: wanted{id: id(number)}, err: fs.ErrNotExist, until: now.Add(negativeMemory)})
	}
	has := func(number int) bool { return n.get(wanted{id: id(number)}, now) != nil }
	few := account{netip.MustParseAddr(bystander)}
	for i := range 100 {
		put(few, i)
	}
	many := account{netip.MustParseAddr(flooder)}
	for i := range 3 * maxNegatives {
		put(many, 1000+i)
	}
	if len(n.entries) != maxNegatives {
		t.Errorf("%d are remembered, want %d", len(n.entries), maxNegatives)
	}
	for i := range 100 {
		if !has(i) {
			t.Fatalf("the memory of another address is gone: %d", i)
		}
	}
	if last := 1000 + 3*maxNegatives - 1; has(1000) || !has(last) || !has(last-maxNegatives/2) {
		t.Error("not the oldest were forgotten")
	}
	for i := range maxNegatives { // as many addresses
		put(account{netip.MustParseAddr(fmt.Sprintf("10.9.%d.%d", i>>8, i&255))}, 100_000+i)
	}
	if len(n.entries) != maxNegatives || len(n.of) > maxNegatives {
		t.Errorf("%d are remembered of %d addresses", len(n.entries), len(n.of))
	}
	now = now.Add(negativeMemory)
	for w := range n.entries {
		if n.get(w, now) != nil {
			t.Fatal("a memory outlives its time")
		}
	}
	if len(n.entries) != 0 || len(n.of) != 0 {
		t.Errorf("left behind: %d of %d addresses", len(n.entries), len(n.of))
	}
}
