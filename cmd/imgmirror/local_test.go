package main

import (
	"testing"

	"imgmirror/config"
)

// A verb that opens the data folder itself evicts nothing of its own accord: not
// when it only looks, and least of all when it tells what eviction would remove.
func TestLocalEvictsNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	cfg.Prefetch = []config.Prefetch{{Match: []string{"name=sample-app"}}}
	m, stop := runMirror(t, cfg)
	m.prefetchAll(t.Context(), newPrefetched())
	had := len(m.store.Files())
	stop()
	if had == 0 {
		t.Fatal("nothing is cached")
	}
	cfg.Cache.MaxSize = 1
	var told int
	for range 3 {
		s, err := openLocal(t.Context(), cfg, needFiles, m.log)
		if err != nil {
			t.Fatal(err)
		}
		gone, err := s.Vacuum(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		told = len(gone)
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if told != had {
			t.Errorf("%d files would go, want %d", told, had)
		}
	}
	s, err := openLocal(t.Context(), cfg, needFiles, m.log)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Vacuum(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if len(gone) != told {
		t.Errorf("%d files went, %d were told", len(gone), told)
	}
}
