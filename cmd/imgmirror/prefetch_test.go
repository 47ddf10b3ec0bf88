package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/verify"
)

func TestPrefetch(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, _ := runMirror(t, cfg)
	list := m.catalog.Current()

	names := func(rules ...config.Prefetch) string {
		t.Helper()
		r, err := prefetchRules(&config.Config{Prefetch: rules})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range prefetchWanted(list, r) {
			all = append(all, e.Manifest.Name)
		}
		return fmt.Sprint(all)
	}
	app := config.Prefetch{Match: []string{"name=sample-app"}}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("wanted are %s, want %s", got, want)
		}
	}
	want(names(), "[]")
	want(names(app), "[sample-base sample-web sample-app]")
	want(names(app, app, config.Prefetch{Match: []string{"name=sample-web"}}), "[sample-base sample-web sample-app]")
	want(names(config.Prefetch{Match: []string{"name=~sample", "name!=sample-app"}, Newest: 2}), newest(list.Images(), 2))

	// A rule that a reload brings.
	next := *m.cfg.Load()
	next.Prefetch = []config.Prefetch{app}
	m.cfg.Store(&next)
	p := newPrefetched()
	if !m.prefetchAll(t.Context(), p) {
		t.Fatal("not all could be had")
	}
	if !cached(t, m, sampleBase) || !cached(t, m, sampleWeb) || !cached(t, m, sampleApp) || len(m.store.Files()) != 3 {
		t.Errorf("cached are %v", m.store.Files())
	}

	// What is taken away stays away.
	if _, err := m.store.Remove(t.Context(), sumOf(t, m, sampleApp)); err != nil {
		t.Fatal(err)
	}
	m.prefetchAll(t.Context(), p)
	if cached(t, m, sampleApp) {
		t.Error("a file that was removed has been brought again")
	}
}

// Rules that ask for more than there is room for take nothing from anybody, also
// after a restart.
func TestPrefetchEvictsNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, stop := runMirror(t, cfg)
	fetchSample(t, m, sampleBase)
	size := m.store.Files()[0].Size
	stop()
	cfg.Cache.MaxSize = config.Size(size + 10)
	cfg.Prefetch = []config.Prefetch{{Match: []string{"name=~sample"}}}
	for range 2 {
		m, stop = runMirror(t, cfg)
		if m.prefetchAll(t.Context(), newPrefetched()) {
			t.Error("all could be had")
		}
		if !cached(t, m, sampleBase) || len(m.store.Files()) != 1 {
			t.Errorf("cached are %v", m.store.Files())
		}
		stop()
	}
}

// newest are the n newest but sample-app, origins first, as fmt prints them.
func newest(images []manifest.Manifest, n int) string {
	var all []string
	for _, image := range slices.Backward(images) {
		if image.Name != "sample-app" && !image.HasOrigin() && len(all) < n {
			all = append(all, image.Name)
		}
	}
	return fmt.Sprint(all)
}

// sumOf is the sha1 of an image's file.
func sumOf(t *testing.T, m *mirror, id uuid.UUID) verify.Sum {
	t.Helper()
	entry, ok := m.catalog.Current().Entry(id)
	if !ok {
		t.Fatalf("image %s is not in the catalogue", id)
	}
	return entry.Manifest.Files[0].SHA1
}
