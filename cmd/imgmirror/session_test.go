package main

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"imgmirror/config"
	"imgmirror/proxy/upstream/upstreamtest"
)

// A verb that opens the data folder itself evicts nothing of its own accord: not
// when it only looks, and least of all when it tells what eviction would remove.
func TestLocalEvictsNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	cfg.Prefetch = []config.Prefetch{{Match: []string{"name=sample-app"}}}
	m, stop := runProcess(t, cfg)
	bringSample(t, m, sampleApp)
	had := len(m.Holdings(nil))
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

// A verb goes by lists that were saved lately; only one that is about the sources
// themselves asks them again.
func TestLocalAsksForOldLists(t *testing.T) {
	src, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	file := upstreamtest.Bytes(1, 3000)
	if err := src.Add(upstreamtest.Manifest(upstreamtest.ID(1), "base", "1.0", nil, file), file); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Sources = []config.Source{{Name: "s", URL: config.URL(src.URL()), Kind: "imgapi", Refresh: time.Hour}}
	for i, n := range []need{needStore, needLists, needFiles, needStore, needAnswers} {
		s, err := openLocal(t.Context(), cfg, n, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		images, err := s.Images(t.Context())
		if err := errors.Join(err, s.close()); err != nil || len(images) != 1 {
			t.Errorf("call %d: %d images, %v", i, len(images), err)
		}
		want := 1
		if n == needAnswers {
			want = 2
		}
		if got := src.Count("/images"); got != want {
			t.Errorf("call %d: the source has been asked for %d lists, want %d", i, got, want)
		}
	}
}
