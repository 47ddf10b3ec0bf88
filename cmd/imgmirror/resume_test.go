package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

// TestResumeNotOffline: a mirror that is configured never to ask a source leaves unfinished downloads as they are.
func TestResumeNotOffline(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, stop := runMirror(t, cfg) // saves the list
	sum := sumOf(t, m, samplePlain)
	stop()
	_, file := sampleFiles(t, samplePlain)
	partial := filepath.Join(cfg.DataDir, "partial", sum.String())
	if err := os.WriteFile(partial, file[:len(file)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, offline := range []bool{true, false} { // the second completes the download
		want := !offline
		cfg.Offline = offline
		var log bytes.Buffer // read when the mirror has ended
		m, err := newMirror(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.run(ctx) }()
		<-m.catalog.Ready()
		m.resume <- struct{}{} // the second token goes in when the loop has been round since the first
		m.resume <- struct{}{}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "an unfinished download"); got != want {
			t.Errorf("offline %v: the download was gone on with: %v\n%s", offline, got, log.String())
		}
	}
}
