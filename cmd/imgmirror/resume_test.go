package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"imgmirror/config"
)

var samplePlain = uuid.MustParse("af806173-c294-43df-80b5-5b6c7d8e9fa6")

// A download that nobody waits for any more goes on where there is room for it,
// and takes nothing from anybody where there is none: it may be a prefetched one.
func TestResumeEvictsNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, stop := runMirror(t, cfg)
	fetchSample(t, m, sampleBase)
	size := m.store.Files()[0].Size
	sum := sumOf(t, m, samplePlain)
	stop()
	_, file := sampleFiles(t, samplePlain)
	have := len(file) / 2
	partial := filepath.Join(cfg.DataDir, "partial", sum.String())
	if err := os.WriteFile(partial, file[:have], 0o600); err != nil {
		t.Fatal(err)
	}
	resume := func(m *mirror) {
		t.Helper()
		for _, p := range m.store.Partials() {
			m.resumePartial(t.Context(), p)
		}
	}
	cfg.Cache.MaxSize = config.Size(size + int64(have) + 10)
	m, stop = runMirror(t, cfg)
	resume(m)
	stop()
	m, stop = runMirror(t, cfg)
	if !cached(t, m, sampleBase) {
		t.Error("a file has gone for a download that nobody waits for")
	}
	stop()
	if left, err := os.Stat(partial); err != nil || left.Size() != int64(have) {
		t.Errorf("what there was of it: %v, %v", left, err)
	}

	cfg.Cache.MaxSize = 0
	m, stop = runMirror(t, cfg)
	fetchSample(t, m, samplePlain) // joins, or goes on by itself
	if left := m.store.Partials(); len(left) != 0 {
		t.Errorf("left is %+v", left)
	}
	stop()
}
