package e2e

import (
	"testing"
)

// TestPrefetch: what a rule asks for is there before anyone asks, root first,
// and again after the list has changed.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	old, recent := newImage("pre-a", 200<<10, map[string]any{"published_at": "2026-01-01T00:00:00Z"}), newImage("pre-b", 200<<10)
	src := newSource(t, old, recent)
	m := startMirror(t, settings{"prefetch": []map[string]any{{"match": []string{"name=~pre-"}, "newest": 1}}},
		from(src.URL(), settings{"refresh": "100ms"}))
	m.awaitStored(1)
	if src.requests(old) != 0 || src.requests(recent) != 1 {
		t.Errorf("fetched: %d times the old one, %d times the recent one", src.requests(old), src.requests(recent))
	}
	newer := newImage("pre-c", 200<<10, map[string]any{"published_at": "2026-05-01T00:00:00Z"})
	src.add(newer)
	m.awaitStored(2)
	if src.requests(newer) != 1 || src.requests(old) != 0 {
		t.Errorf("fetched: %d times the newer one, %d times the old one", src.requests(newer), src.requests(old))
	}
}
