package mirror

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"imgmirror/cache"
	"imgmirror/manifest"
)

// watchedStore has nothing, as far as prefetch is told, and notes what it is asked for.
type watchedStore struct {
	Store
	mu    sync.Mutex
	asked []string // names of images
}

func (s *watchedStore) Peek(cache.Blob) (cache.Info, bool) { return cache.Info{}, false }

func (s *watchedStore) File(ctx context.Context, b cache.Blob, sources []cache.Source) (*cache.Reader, error) {
	s.mu.Lock()
	s.asked = append(s.asked, b.Manifest.Name)
	s.mu.Unlock()
	return s.Store.File(ctx, b, sources)
}

// Origins come before what is built on them, rule by rule, of each rule the newest first, and
// nothing twice.
func TestPrefetchOrder(t *testing.T) {
	m := newMirror(t, testOptions(t, sampleSource(t)))
	f := func(want string, rules ...Wanted) {
		t.Helper()
		adjust(m, func(r *Rules) { r.Prefetch = rules })
		store := &watchedStore{Store: m.store}
		m.Files = Files{store}
		if !m.prefetchAll(t.Context(), newPrefetched()) {
			t.Error("not all could be had")
		}
		if got := fmt.Sprint(store.asked); got != want {
			t.Errorf("brought are %s, want %s", got, want)
		}
	}
	app := matching(t, "name=sample-app")
	some := matching(t, "name=~sample", "name!=sample-app")
	some.Newest = 2
	f("[]")
	f("[sample-base sample-web sample-app]", app)
	f("[sample-base sample-web sample-app]", app, app, matching(t, "name=sample-web"))
	f(newest(m.Current().Images(), 2), some)
}

func TestPrefetch(t *testing.T) {
	m := newMirror(t, testOptions(t, sampleSource(t)))
	adjust(m, func(r *Rules) { r.Prefetch = []Wanted{matching(t, "name=sample-app")} })
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
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	size := m.store.Files()[0].Size
	stop()
	o.Rules.MaxSize, o.Rules.Prefetch = size+10, []Wanted{matching(t, "name=~sample")}
	for range 2 {
		m, stop = runMirror(t, o)
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
