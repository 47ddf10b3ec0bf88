package mirror

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// sampleDir has the sample images, a folder for each.
const sampleDir = "../../cmd/imgmirror/demo"

// Of the sample images: base <- web <- app is a chain.
var (
	sampleBase  = uuid.MustParse("5a3b1c2e-7d4f-4e8a-9b60-0c1d2e3f4a51")
	sampleWeb   = uuid.MustParse("6b4c2d3f-8e50-4f9b-8c71-1d2e3f4a5b62")
	sampleApp   = uuid.MustParse("7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73")
	samplePlain = uuid.MustParse("af806173-c294-43df-80b5-5b6c7d8e9fa6")
)

// testOptions are a mirror of those sources, in a folder of its own, with a pool that takes in
// whatever comes.
func testOptions(t *testing.T, sources ...Source) Options {
	t.Helper()
	return Options{
		Cache:   cache.Options{Dir: t.TempDir(), StallTimeout: time.Minute},
		Pools:   &fakePools{},
		Sources: Sources{List: sources},
		Rules:   Rules{FillSlots: 4},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// sampleSource is the folder of the sample images as a source.
func sampleSource(t *testing.T) Source {
	t.Helper()
	dir, err := filepath.Abs(sampleDir)
	if err != nil {
		t.Fatal(err)
	}
	return Source{Server: upstream.Options{Name: "samples", URL: dir, Kind: "directory"}, URL: dir, Refresh: time.Hour}
}

// newSource is an image server without images, and the server as a source.
func newSource(t *testing.T) (*upstreamtest.Server, Source) {
	t.Helper()
	s, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s, Source{
		Server: upstream.Options{Name: "source", URL: s.URL(), Kind: "imgapi", StallTimeout: time.Minute},
		URL:    s.URL(), Refresh: time.Hour,
	}
}

// newMirror makes a mirror which knows the lists of its sources, and does nothing of its own accord.
func newMirror(t *testing.T, o Options) *Mirror {
	t.Helper()
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// runMirror runs a mirror until the test ends, or until stop is called.
func runMirror(t *testing.T, o Options) (m *Mirror, stop func()) {
	t.Helper()
	o.Registry = nil // of an earlier run
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	<-m.Started()
	return m, stop
}

// sampleFiles gives a sample image's manifest and file.
func sampleFiles(t *testing.T, id uuid.UUID) (text, file []byte) {
	t.Helper()
	dir := filepath.Join(sampleDir, id.String())
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

// entryOf is an image of the catalogue.
func entryOf(t *testing.T, m *Mirror, id uuid.UUID) catalog.Entry {
	t.Helper()
	entry, ok := m.Current().Entry(id)
	if !ok {
		t.Fatalf("image %s is not in the catalogue", id)
	}
	return entry
}

// sumOf is the sha1 of an image's file.
func sumOf(t *testing.T, m *Mirror, id uuid.UUID) verify.Sum {
	t.Helper()
	return entryOf(t, m, id).Manifest.Files[0].SHA1
}

// cached tells whether an image of the catalogue has its file on disk.
func cached(t *testing.T, m *Mirror, id uuid.UUID) bool {
	t.Helper()
	blob, _ := blobOf(entryOf(t, m, id), 0)
	r, err := m.store.File(t.Context(), blob, nil) // one that a new index has yet to learn of counts
	if err != nil {
		return false
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return true
}

// fetchSample brings an image's file into the cache.
func fetchSample(t *testing.T, m *Mirror, id uuid.UUID) {
	t.Helper()
	if _, err := m.bringFile(t.Context(), entryOf(t, m, id), 0, cache.Client, cache.ByClient, nil); err != nil {
		t.Fatal(err)
	}
}

func listed(m *Mirror) map[uuid.UUID]bool {
	all := make(map[uuid.UUID]bool)
	for _, image := range m.Current().Images() {
		all[image.UUID] = true
	}
	return all
}

// filters are those of texts, all of which an image must match.
func filters(t *testing.T, texts ...string) []manifest.Filter {
	t.Helper()
	all, err := manifest.ParseFilters(texts)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// matching is the wish for the images that match all filters.
func matching(t *testing.T, texts ...string) Wanted {
	t.Helper()
	return Wanted{Filters: filters(t, texts...)}
}

// adjust puts the rules in force that change makes of those which are.
func adjust(m *Mirror, change func(*Rules)) {
	r := *m.rules.Load()
	change(&r)
	m.Adjust(r)
}

// pathOf is where a file of the cache is.
func pathOf(o Options, sum verify.Sum) string {
	return filepath.Join(o.Cache.Dir, "files", sum.String()[:2], sum.String())
}

// logText is the text of a log that several goroutines write.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are those of the log that have a text.
func (l *logText) lines(with string) (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, with) {
			all = append(all, line)
		}
	}
	return all
}

// logged makes o log to the result.
func logged(o *Options) *logText {
	l := new(logText)
	o.Logger = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// errPool is the answer of a pool that refuses an image.
var errPool = errors.New("refused")
