package mirror

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/zfsimport"
)

// addImage gives a server image n, whose origin is image origin unless that is 0.
func addImage(t *testing.T, s *upstreamtest.Server, n, origin int) {
	t.Helper()
	file := upstreamtest.Bytes(uint64(n), 1000+n)
	extra := map[string]any{}
	if origin != 0 {
		extra["origin"] = upstreamtest.ID(origin)
	}
	if err := s.Add(upstreamtest.Manifest(upstreamtest.ID(n), fmt.Sprint(n), "1", extra, file), file); err != nil {
		t.Fatal(err)
	}
}

// A long chain comes whole, root first: by prefetch, by a fetch, and into the pool.
func TestLongChain(t *testing.T) {
	const length = 150
	server, source := newSource(t)
	var inOrder []string
	for n := 1; n <= length; n++ {
		addImage(t, server, n, n-1)
		inOrder = append(inOrder, fmt.Sprint(n))
	}
	want := strings.Join(inOrder, " ")
	top := upstreamtest.ID(length)

	o := testOptions(t, source)
	o.Rules.Prefetch = []Wanted{matching(t, "uuid="+top.String())}
	m := newMirror(t, o)
	if !m.prefetchAll(t.Context(), newPrefetched()) {
		t.Error("prefetch: not all could be had")
	}
	if n := len(m.Holdings(nil)); n != length {
		t.Errorf("%d images were prefetched", n)
	}

	m = newMirror(t, testOptions(t, source))
	only := entryOf(t, m, top)
	steps := m.Plan(t.Context(), []catalog.Entry{only})
	if got := stepNames(steps); got != want {
		t.Errorf("the order to fetch is %s", got)
	}
	var mu sync.Mutex
	ended := make([]bool, len(steps))
	m.Bring(t.Context(), steps, cache.Job, func(i int, turn Turn) {
		mu.Lock()
		defer mu.Unlock()
		if i > 0 && !ended[i-1] {
			t.Errorf("image %d is fetched before its origin", i+1)
		}
		if turn.Ended {
			ended[i] = true
			if turn.Err != nil || turn.Outcome != zfsimport.Done {
				t.Errorf("image %d: %s, %v", i+1, turn.Outcome, turn.Err)
			}
		}
	})
	if n := len(m.Holdings(nil)); n != length {
		t.Errorf("%d images were fetched", n)
	}

	steps, err := m.PlanInstall(t.Context(), []catalog.Entry{only}, Target{})
	if got := stepNames(steps); got != want || err != nil {
		t.Errorf("%v; the order to install is %s", err, got)
	}
	if err := m.Install(t.Context(), steps, Target{}, func(int, Turn) {}); err != nil {
		t.Error(err)
	}
	if got, want := m.pools.(*fakePools).took(), "recover, install "+strings.Join(inOrder, ", install "); got != want {
		t.Errorf("the pool was asked %s", got)
	}
}

// Rings, and chains of more images than there may be, are refused by the name of their image: nothing
// of them is fetched, and other images are not kept back. A chain of manifest.MaxChain is none of these.
func TestBrokenChains(t *testing.T) {
	const long, ring, fine = manifest.MaxChain + 1, 1001, 2001
	server, source := newSource(t)
	for n := 1; n <= long; n++ {
		addImage(t, server, n, n-1)
	}
	for n := range 3 {
		addImage(t, server, ring+n, ring+(n+1)%3)
	}
	addImage(t, server, fine, 0)
	o := testOptions(t, source)
	log := logged(&o)
	m := newMirror(t, o)

	longest := entryOf(t, m, upstreamtest.ID(long-1))
	if chain, err := m.Chain(t.Context(), longest); err != nil || len(chain) != manifest.MaxChain {
		t.Errorf("a chain of %d: %d images, %v", manifest.MaxChain, len(chain), err)
	}
	for what, n := range map[string]int{"a chain that is too long": long, "a ring": ring} {
		id := upstreamtest.ID(n)
		e := entryOf(t, m, id)
		refused := func(by string, err error) {
			t.Helper()
			if !errors.Is(err, manifest.ErrChain) || !strings.Contains(err.Error(), "image "+id.String()) {
				t.Errorf("%s, by %s: %v", what, by, err)
			}
		}
		both := []catalog.Entry{e, entryOf(t, m, upstreamtest.ID(fine))}

		_, err := m.Chain(t.Context(), e)
		refused("Chain", err)
		_, err = m.WithOrigins(t.Context(), both)
		refused("WithOrigins", err)
		steps := m.Plan(t.Context(), both)
		installs, err := m.PlanInstall(t.Context(), both, Target{})
		if err != nil {
			t.Error(err)
		}
		for by, steps := range map[string][]Step{"Plan": steps, "PlanInstall": installs} {
			if got, want := stepNames(steps), fmt.Sprint(n, " ", fine); got != want {
				t.Fatalf("%s, by %s: the steps are %s, want %s", what, by, got, want)
			}
			refused(by, steps[0].Err)
			if steps[1].Err != nil {
				t.Errorf("%s, by %s: of another image: %v", what, by, steps[1].Err)
			}
		}

		adjust(m, func(r *Rules) {
			r.Prefetch = []Wanted{matching(t, "uuid="+id.String()), matching(t, fmt.Sprint("name=", fine))}
		})
		if m.prefetchAll(t.Context(), newPrefetched()) {
			t.Errorf("%s: all was prefetched", what)
		}
		lines := log.lines("an image cannot be prefetched")
		if !strings.Contains(strings.Join(lines, ""), "uuid="+id.String()) {
			t.Errorf("%s, by prefetch: %q", what, lines)
		}
	}
	if held := m.Holdings(nil); len(held) != 1 || held[0].ID != upstreamtest.ID(fine) {
		t.Errorf("prefetched are %+v", held)
	}
	var mu sync.Mutex
	ended := make(map[uuid.UUID]error)
	steps := m.Plan(t.Context(), []catalog.Entry{entryOf(t, m, upstreamtest.ID(long)), entryOf(t, m, upstreamtest.ID(ring))})
	m.Bring(t.Context(), steps, cache.Job, func(i int, turn Turn) {
		mu.Lock()
		defer mu.Unlock()
		ended[steps[i].Entry.Manifest.UUID] = turn.Err
	})
	if n := len(m.Holdings(nil)); n != 1 || len(ended) != 0 {
		t.Errorf("%d images are on disk; told of %v", n, ended)
	}
}
