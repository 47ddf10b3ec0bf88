package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/config"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/mirror"
)

// Of the sample images: app is built on base, with one image between.
var (
	sampleBase = uuid.MustParse("5a3b1c2e-7d4f-4e8a-9b60-0c1d2e3f4a51")
	sampleApp  = uuid.MustParse("7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73")
)

const samples = 6 // sample images

// testConfig is a mirror on loopback without sources, in a folder of its own.
func testConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg := config.Defaults()
	cfg.Listen = "127.0.0.1:0"
	cfg.Admin.Listen = ""
	cfg.DataDir = t.TempDir()
	cfg.Sources = nil
	cfg.Cache.MinFree = 0
	return &cfg
}

// sampleSource is the folder of the sample images as a source.
func sampleSource(t *testing.T) config.Source {
	t.Helper()
	dir, err := filepath.Abs("demo")
	if err != nil {
		t.Fatal(err)
	}
	return config.Source{Name: "samples", URL: config.URL(dir), Kind: "directory", Refresh: config.Defaults().Sources[0].Refresh}
}

// runProcess runs a process until the test ends, or until stop is called.
func runProcess(t *testing.T, cfg *config.Config) (m *process, stop func()) {
	t.Helper()
	log, access, err := newLogs(t.Output(), cfg.Log.SlogLevel(), cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	endLog := keep(access)
	t.Cleanup(func() { endLog() })
	if m, err = newProcess(t.Context(), cfg, log, access); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	<-m.Started()
	return m, stop
}

// sampleFiles gives a sample image's manifest and file.
func sampleFiles(t *testing.T, id uuid.UUID) (text, file []byte) {
	t.Helper()
	dir := filepath.Join("demo", id.String())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == "manifest.json" {
			text = data
		} else {
			file = data
		}
	}
	return text, file
}

// bringSample brings an image and its origins to disk.
func bringSample(t *testing.T, m *process, id uuid.UUID) {
	t.Helper()
	e, err := m.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	m.Bring(t.Context(), m.Plan(t.Context(), []catalog.Entry{e}), cache.Client, func(_ int, turn mirror.Turn) {
		if turn.Err != nil {
			t.Error(turn.Err)
		}
	})
}

func listed(m *process) map[uuid.UUID]bool {
	all := make(map[uuid.UUID]bool)
	for _, image := range m.Current().Images() {
		all[image.UUID] = true
	}
	return all
}

// A data folder whose files are away makes the mirror unready, and doctor names it;
// a socket that was removed is made anew.
func TestDataFolderAway(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runProcess(t, cfg)
	until(t, "the mirror is ready", m.server.Ready)
	files := filepath.Join(cfg.DataDir, "files")
	if got := finding(m.diagnose(t.Context()), "data folder"); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("doctor: %q", got)
	}
	if err := os.Rename(files, files+".away"); err != nil {
		t.Fatal(err)
	}
	until(t, "the mirror is unready", func() bool { return !m.server.Ready() })
	if got := finding(m.diagnose(t.Context()), "data folder"); !strings.HasPrefix(got, "failed: ") || !strings.Contains(got, files) {
		t.Errorf("doctor: %q", got)
	}
	if err := os.Rename(files+".away", files); err != nil {
		t.Fatal(err)
	}
	until(t, "the mirror is ready again", m.server.Ready)
}

// until waits for what other goroutines bring about.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	limit := time.After(30 * time.Second)
	for !is() {
		select {
		case <-poll.C:
		case <-limit:
			t.Fatalf("it does not come about that %s", what)
		}
	}
}
