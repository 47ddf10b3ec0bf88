package mirror

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache"
	"imgmirror/proxy/history"
	"imgmirror/proxy/upstream/upstreamtest"
)

// conflicting gives two sources that have other files of image 1.
func conflicting(t *testing.T) (servers []*upstreamtest.Server, sources []Source) {
	t.Helper()
	for n, name := range []string{"first", "second"} {
		server, source := newSource(t)
		source.Server.Name = name
		file := upstreamtest.Bytes(uint64(n), 50_000)
		if err := server.Add(upstreamtest.Manifest(upstreamtest.ID(1), "image", "1.0", nil, file), file); err != nil {
			t.Fatal(err)
		}
		servers, sources = append(servers, server), append(sources, source)
	}
	return servers, sources
}

// rows are events as kind:source, sorted.
func rows(all []history.Event) string {
	var out []string
	for _, e := range all {
		out = append(out, e.Kind+":"+e.Source)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// A conflict, and a source that goes down or comes back, is told of once; what is known at a start is
// not told of again.
func TestWatch(t *testing.T) {
	servers, sources := conflicting(t)
	o := testOptions(t, sources...)
	m := newMirror(t, o)
	want := func(m *Mirror, what string) {
		t.Helper()
		if got := rows(m.look(time.Now())); got != what {
			t.Errorf("news are %q, want %q", got, what)
		}
	}
	want(m, "conflict:second")
	want(m, "")
	servers[1].Inject(upstreamtest.Fault{Path: "/images", Status: 404})
	_ = m.Refresh(t.Context()) // one source fails
	want(m, "source_down:second")
	servers[1].Heal()
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(m, "source_up:second")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	o.Registry = nil
	m = newMirror(t, o)
	want(m, "")
}

// A bound that refuses is told of once a minute, with the number of its refusals.
func TestWatchCountsRefusals(t *testing.T) {
	o := testOptions(t)
	o.Registry = prometheus.NewRegistry()
	m := newMirror(t, o)
	used := prometheus.NewGauge(prometheus.GaugeOpts{Name: "imgmirror_admin_connections", Help: "."})
	limit := prometheus.NewGauge(prometheus.GaugeOpts{Name: "imgmirror_admin_connections_limit", Help: "."})
	refused := prometheus.NewCounter(prometheus.CounterOpts{Name: "imgmirror_admin_connections_refused_total", Help: "."})
	o.Registry.MustRegister(used, limit, refused)
	limit.Set(2)
	refused.Add(7)
	now := time.Now()
	if got := m.look(now); len(got) != 0 {
		t.Errorf("%+v, within the first minute", got)
	}
	got := m.look(now.Add(2 * refusalsEvery))
	if len(got) != 1 || got[0].Kind != history.KindRefused || got[0].Count != 7 || got[0].Text != "refused: connections of operators" {
		t.Errorf("news are %+v", got)
	}
	if got := m.look(now.Add(4 * refusalsEvery)); len(got) != 0 {
		t.Errorf("%+v, of nothing new", got)
	}
}

// Many new conflicts are a few rows.
func TestManyConflicts(t *testing.T) {
	servers, sources := conflicting(t)
	for n, server := range servers {
		for i := 2; i < 3*maxNews; i++ {
			file := []byte(fmt.Sprint(n, i))
			if err := server.Add(upstreamtest.Manifest(upstreamtest.ID(i), "image", "1.0", nil, file), file); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := newMirror(t, testOptions(t, sources...))
	total := 0
	all := m.look(time.Now())
	for _, e := range all {
		total += max(e.Count, 1)
	}
	if len(all) != maxNews+1 || total != 3*maxNews-1 {
		t.Errorf("%d rows for %d conflicts", len(all), total)
	}
}

// What happens to files is remembered, with the image and the source.
func TestFileEvents(t *testing.T) {
	server, source := newSource(t)
	file := upstreamtest.Bytes(1, 50_000)
	id := upstreamtest.ID(1)
	if err := server.Add(upstreamtest.Manifest(id, "image", "1.0", nil, file), file); err != nil {
		t.Fatal(err)
	}
	m := newMirror(t, testOptions(t, source))
	server.Inject(upstreamtest.Fault{Path: "/file", Corrupt: true})
	if _, err := m.bringFile(t.Context(), entryOf(t, m, id), 0, cache.Client, cache.ByClient, nil); err == nil {
		t.Fatal("wrong bytes were taken")
	}
	server.Heal()
	if _, err := m.bringFile(t.Context(), entryOf(t, m, id), 0, cache.Job, cache.ByFetch, nil); err != nil {
		t.Fatal(err)
	}
	got := m.history.Of(id.String())
	if rows(got) != "brought:source wrong_bytes:source" || !strings.HasPrefix(got[0].Text, "image 1.0, 50 kB") || got[0].Private {
		t.Errorf("events are %+v", got)
	}
	if _, err := m.store.Remove(t.Context(), sumOf(t, m, id)); err != nil {
		t.Fatal(err)
	}
	if got := m.history.Of(id.String()); len(got) != 3 || got[0].Kind != history.KindDeleted || got[0].Text != "image 1.0, 50 kB" {
		t.Errorf("after the removal the events are %+v", got)
	}
}
