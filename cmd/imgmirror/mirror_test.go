package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy"
)

// Of the sample images: base <- web <- app is a chain.
var (
	sampleBase = uuid.MustParse("5a3b1c2e-7d4f-4e8a-9b60-0c1d2e3f4a51")
	sampleWeb  = uuid.MustParse("6b4c2d3f-8e50-4f9b-8c71-1d2e3f4a5b62")
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

// runMirror runs a mirror until the test ends, or until stop is called.
func runMirror(t *testing.T, cfg *config.Config) (m *mirror, stop func()) {
	t.Helper()
	log, err := newLogger(t.Output(), cfg.Log.SlogLevel(), "text")
	if err != nil {
		t.Fatal(err)
	}
	if m, err = newMirror(t.Context(), cfg, log); err != nil {
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
	<-m.catalog.Ready()
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

// cached tells whether an image of the catalogue has its file on disk.
func cached(t *testing.T, m *mirror, id uuid.UUID) bool {
	t.Helper()
	entry, ok := m.catalog.Current().Entry(id)
	if !ok {
		t.Fatalf("image %s is not in the catalogue", id)
	}
	blob, _ := proxy.BlobOf(entry, 0)
	r, err := m.store.File(t.Context(), blob, nil) // one that a new index has yet to learn of counts
	if err != nil {
		return false
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return true
}

func listed(m *mirror) map[uuid.UUID]bool {
	all := make(map[uuid.UUID]bool)
	for _, image := range m.catalog.Current().Images() {
		all[image.UUID] = true
	}
	return all
}

// Published images outlive restarts and the loss of the index; unpublished ones
// leave nothing behind.
func TestPublishedImagesSurvive(t *testing.T) {
	for _, offline := range []bool{false, true} {
		cfg := testConfig(t)
		cfg.Offline = offline
		m, stop := runMirror(t, cfg)
		for _, id := range []uuid.UUID{sampleBase, sampleWeb} {
			text, file := sampleFiles(t, id)
			if _, err := m.own.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
				t.Fatal(err)
			}
		}
		check := func(when string) {
			t.Helper()
			if got := listed(m); len(got) != 2 || !got[sampleBase] || !got[sampleWeb] {
				t.Errorf("%s: listed are %v", when, got)
			}
			if !cached(t, m, sampleBase) || !cached(t, m, sampleWeb) {
				t.Errorf("%s: a file is missing", when)
			}
			entry, _ := m.catalog.Current().Entry(sampleBase)
			text, _ := sampleFiles(t, sampleBase)
			want, err := manifest.Parse(text, manifest.ParseOptions{})
			if err != nil || !bytes.Equal(entry.Manifest.V2(), want.V2()) {
				t.Errorf("%s: the manifest is %s", when, entry.Manifest.V2())
			}
		}
		check("at once")
		stop()
		m, stop = runMirror(t, cfg)
		check("after a restart")
		stop()
		if err := os.RemoveAll(filepath.Join(cfg.DataDir, "index")); err != nil {
			t.Fatal(err)
		}
		m, stop = runMirror(t, cfg)
		check("after the loss of the index")

		for _, id := range []uuid.UUID{sampleWeb, sampleBase} {
			if _, err := m.own.Unpublish(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if got := listed(m); len(got) != 0 {
			t.Errorf("listed after all were unpublished: %v", got)
		}
		if got := m.store.Files(); len(got) != 0 {
			t.Errorf("files after all were unpublished: %v", got)
		}
		stop()
		if err := os.RemoveAll(filepath.Join(cfg.DataDir, "index")); err != nil {
			t.Fatal(err)
		}
		m, stop = runMirror(t, cfg)
		if got := listed(m); len(got) != 0 {
			t.Errorf("unpublished images came back: %v", got)
		}
		stop()
	}
}

// A wrong upload leaves nothing behind and does not stand in the way of a right one.
func TestPublishWrongFile(t *testing.T) {
	m, _ := runMirror(t, testConfig(t))
	text, file := sampleFiles(t, sampleBase)
	wrong := bytes.Clone(file)
	wrong[len(wrong)-1] ^= 1
	for name, data := range map[string][]byte{
		"one bit": wrong, "short": file[:len(file)/2], "long": append(bytes.Clone(file), 0), "nothing": nil,
	} {
		if _, err := m.own.Publish(t.Context(), text, bytes.NewReader(data)); err == nil {
			t.Errorf("%s: published", name)
		}
		if n, parts := len(m.store.Files()), m.store.Partials(); n != 0 || len(parts) != 0 {
			t.Errorf("%s: left %d files, partial %v", name, n, parts)
		}
	}
	if _, err := m.own.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
		t.Error(err)
	}
}

// The file of an unpublished image stays if another image has the same.
func TestUnpublishSharedFile(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runMirror(t, cfg)
	text, file := sampleFiles(t, sampleBase)
	twin := bytes.ReplaceAll(text, []byte(sampleBase.String()), []byte(sampleApp.String()))
	for _, text := range [][]byte{text, twin} {
		if _, err := m.own.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.own.Unpublish(t.Context(), sampleBase); err != nil {
		t.Fatal(err)
	}
	if !cached(t, m, sampleApp) {
		t.Error("the other image has lost its file")
	}
	// What is on disk, from which a lost index is made anew, tells of the other only.
	for id, want := range map[uuid.UUID]bool{sampleBase: false, sampleApp: true} {
		_, err := os.Stat(filepath.Join(cfg.DataDir, "manifests", id.String()+".json"))
		if (err == nil) != want {
			t.Errorf("copy of the manifest of %s: %v", id, err)
		}
	}
	for _, f := range m.store.Files() {
		if slices.Contains(f.Images, sampleBase) {
			t.Errorf("file %s still belongs to what was unpublished", f.Sum)
		}
	}
}

// An upload that stalls is told so, leaves nothing behind, and can be sent again.
func TestPublishStalls(t *testing.T) {
	cfg := testConfig(t)
	cfg.Fill.StallTimeout = 50 * time.Millisecond
	m, _ := runMirror(t, cfg)
	text, file := sampleFiles(t, sampleBase)
	wait := readerFunc(func([]byte) (int, error) {
		for len(m.store.Fills()) > 0 {
			runtime.Gosched()
		}
		return 0, io.EOF
	})
	half := file[:len(file)/2]
	_, err := m.own.Publish(t.Context(), text, io.MultiReader(bytes.NewReader(half), wait, bytes.NewReader(file[len(half):])))
	if err == nil || !strings.Contains(err.Error(), "no byte for 50ms") {
		t.Errorf("stalled: %v", err)
	}
	if parts := m.store.Partials(); len(parts) != 0 {
		t.Errorf("left behind: %v", parts)
	}
	if _, err := m.own.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A data folder whose files are away makes the mirror unready, and doctor names it;
// a socket that was removed is made anew.
func TestDataFolderAway(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runMirror(t, cfg)
	until(t, "the mirror is ready", m.server.Ready)
	files := filepath.Join(cfg.DataDir, "files")
	if got := found(m.dataFolder())["data folder"]; !strings.HasPrefix(got, "ok: ") {
		t.Errorf("doctor: %q", got)
	}
	if err := os.Rename(files, files+".away"); err != nil {
		t.Fatal(err)
	}
	until(t, "the mirror is unready", func() bool { return !m.server.Ready() })
	if got := found(m.dataFolder())["data folder"]; !strings.HasPrefix(got, "failed: ") || !strings.Contains(got, files) {
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
