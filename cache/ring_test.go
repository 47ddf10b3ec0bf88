package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/manifest"
)

// onTop makes m an image on top of origin, whatever it was before.
func (m *sample) onTop(t *testing.T, origin *sample) {
	t.Helper()
	raw := fmt.Sprintf(`{"v":2,"uuid":%q,"owner":"352971aa-31ba-496c-9ade-a379feaecd52","name":"n","version":"1","origin":%q,"state":"active",
"disabled":false,"public":true,"published_at":"2012-05-02T15:15:24Z","type":"zone-dataset","os":"smartos",
"files":[{"sha1":%q,"size":%d,"compression":"none"}]}`, m.id, origin.id, m.sum(), len(m.data))
	parsed, err := manifest.Parse([]byte(raw), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.blob.Manifest = parsed
}

// Images that stand on top of each other in a ring go, after all others.
func TestRingGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		all := samples(t, 5, 1000)
		all[0].onTop(t, all[1])
		all[1].onTop(t, all[2])
		all[2].onTop(t, all[0])
		all[4].onTop(t, all[3])
		for _, m := range all {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		s.SetLimits(2000, 0)
		if _, err := s.Vacuum(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		// The chain first, then of the ring the least recently used (0 was needed for 2), then what stood under it.
		wantPresent(t, s, "0", all...)
		s.SetLimits(0, 0)
		all[1].store(t, s)
		all[2].store(t, s)
		if err := s.Pin(all[1].id); err != nil {
			t.Fatal(err)
		}
		s.SetLimits(1000, 0)
		if gone, err := s.Vacuum(t.Context(), false); err != nil || len(gone) != 0 {
			t.Errorf("of a ring with a pinned image went %v, %v", gone, err)
		}
	})
}

// An image with the very file of its origin goes with it, once nothing stands on
// top of it.
func TestSharedWithOriginGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		all := samples(t, 3, 1000)
		origin, child, top := all[0], all[1], all[2]
		child.data, child.src, child.blob.Want = origin.data, origin.src, origin.blob.Want
		child.onTop(t, origin)
		top.onTop(t, child)
		origin.store(t, s)
		wantData(t, s, child.blob, child.data, Hit)
		time.Sleep(time.Second)
		top.store(t, s)
		s.SetLimits(1500, 0)
		if _, err := s.Vacuum(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		wantPresent(t, s, "0 1", all...)
		s.SetLimits(100, 0)
		if _, err := s.Vacuum(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		wantPresent(t, s, "", all...)
	})
}

// Several rings go one after the other, the one that was used least recently first, and a ring with a pinned image
// stays.
func TestRingsGoInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		all := samples(t, 8, 1000)
		for i := range all {
			all[i].onTop(t, all[i^1])
		}
		for _, m := range all {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		if err := s.Pin(all[2].id); err != nil {
			t.Fatal(err)
		}
		s.SetLimits(1, 0)
		plan, err := s.Vacuum(t.Context(), true)
		if err != nil || len(plan) != 6 {
			t.Errorf("%d files would go, %v", len(plan), err)
		}
		gone, err := s.Vacuum(t.Context(), false)
		if err != nil || len(gone) != 6 {
			t.Fatalf("%d files went, %v", len(gone), err)
		}
		for i, e := range gone {
			ring := []int{0, 0, 2, 2, 3, 3}[i]
			if e.Sum != all[2*ring].sum() && e.Sum != all[2*ring+1].sum() {
				t.Errorf("%d. went %s, and not an image of ring %d", i, e.Sum, ring)
			}
		}
		wantPresent(t, s, "2 3", all...)
		wantConsistent(t, s)
	})
}
