package catalog

import (
	"errors"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// numbers gathers what r has, as name{label values}: value, without what is zero.
func numbers(t testing.TB, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, family := range families {
		name, _ := strings.CutPrefix(family.GetName(), "imgmirror_")
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v != 0 {
				out[name+"{"+strings.Join(labels, ",")+"}"] = v
			}
		}
	}
	return out
}

// TestMetrics: each number of the catalogue counts what its help says, and nothing else.
func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	index := &memory{}
	cached := func(manifest.Manifest) bool { return true }
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, state: "disabled"}, {n: 3, origin: 99}, {n: 4}}, hidden: []spec{{n: 5}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 1, sum: strings.Repeat("f", 40)}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: index, Registerer: r, Cached: cached})
	fixed := map[string]float64{
		"catalog_refresh_interval_seconds{a}": 600, "catalog_refresh_interval_seconds{b}": 600,
		"catalog_lookups_in_flight_limit{}": 128, "catalog_lookups_waiting_limit{}": 1024, "catalog_documents_limit{}": keptDocuments,
	}
	want := maps.Clone(fixed)
	check := func(when string) {
		t.Helper()
		if got := numbers(t, r); !maps.Equal(got, want) {
			t.Errorf("%s:\n%v, want\n%v", when, got, want)
		}
	}
	at := func(s string) float64 {
		for _, st := range c.Status() {
			if st.Name == s {
				return float64(st.LastSuccess.UnixMilli()) / 1000
			}
		}
		return 0
	}
	check("at first")

	refresh(t, c)
	want = map[string]float64{
		"catalog_hidden_images{disabled}": 1, "catalog_hidden_images{conflict}": 1,
		"catalog_images{}": 3, "catalog_conflicts{}": 1, "catalog_broken_chains{}": 1,
		"catalog_refreshes_total{changed,a}": 1, "catalog_refreshes_total{changed,b}": 1,
	}
	maps.Copy(want, fixed)
	success := func() {
		want["catalog_last_success_timestamp_seconds{a}"], want["catalog_last_success_timestamp_seconds{b}"] = at("a"), at("b")
	}
	success()
	check("after the first lists")

	a.set(func(f *fake) { f.listed = f.listed[:3] })
	refresh(t, c) // 4 is retired
	want["catalog_retired_images{}"], want["catalog_refreshes_total{changed,a}"], want["catalog_refreshes_total{unchanged,b}"] = 1, 2, 1
	success()
	check("when an image has left")

	b.set(func(f *fake) { f.err = errDown })
	if err := c.Refresh(t.Context()); err == nil {
		t.Fatal("no error")
	}
	want["catalog_refreshes_total{unchanged,a}"], want["catalog_refreshes_total{failed,b}"] = 1, 1
	success()
	check("when a source fails")
	if _, err := c.Get(t.Context(), id(50)); !errors.Is(err, verify.ErrUnavailable) {
		t.Fatal(err)
	}
	want["catalog_lookups_total{unavailable}"] = 1
	check("when it cannot be told")

	b.set(func(f *fake) { f.err = nil })
	if _, err := c.Get(t.Context(), id(51)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), id(5)); err != nil {
		t.Fatal(err)
	}
	for numbers(t, r)["catalog_searches{}"] != 0 { // a lookup lands after its answer
		time.Sleep(time.Millisecond) // no event tells
	}
	want["catalog_lookups_total{absent}"], want["catalog_lookups_total{found}"] = 1, 1
	check("after lookups")

	r = prometheus.NewRegistry()
	c = restarted(t, c, Options{Sources: sourcesOf(a, b), Index: index, Registerer: r, Cached: cached, Offline: true})
	want = map[string]float64{
		"catalog_hidden_images{disabled}": 1, "catalog_hidden_images{conflict}": 1,
		"catalog_images{}": 3, "catalog_conflicts{}": 1, "catalog_retired_images{}": 1,
		"catalog_lookups_in_flight_limit{}": 128, "catalog_lookups_waiting_limit{}": 1024, "catalog_documents_limit{}": keptDocuments,
	}
	success()
	check("after a restart") // that no source has origin 99 is not known any more

	// Each reason is there from the start.
	r = prometheus.NewRegistry()
	newCatalog(t, Options{Sources: sourcesOf(a), Registerer: r})
	if n, err := testutil.GatherAndCount(r, "imgmirror_catalog_hidden_images"); err != nil || n != 16 {
		t.Errorf("%d reasons, %v", n, err)
	}
}

// TestRetakeSaves: when Retake returns nil, the list is the one being served and is saved, even if nothing but its age is
// new to it; a list that cannot be saved is an error.
func TestRetakeSaves(t *testing.T) {
	index := &memory{}
	f := &fake{t: t, name: "own", listed: []spec{{n: 1}}}
	c := newCatalog(t, Options{Sources: sourcesOf(f), Index: index, Offline: true})
	if err := c.Retake(t.Context(), "own"); err != nil {
		t.Fatal(err)
	}
	wantShown(t, c, 1)
	f.set(func(f *fake) { f.listed = append(f.listed, spec{n: 2}) })
	if err := c.Retake(t.Context(), "own"); err != nil {
		t.Fatal(err)
	}
	wantShown(t, c, 1, 2)
	if n := len(index.saved("own").Images); n != 2 {
		t.Errorf("%d images are saved", n)
	}
	index.set(nil)
	if err := c.Retake(t.Context(), "own"); err != nil {
		t.Fatal(err)
	}
	if n := len(index.saved("own").Images); n != 2 {
		t.Errorf("%d images are saved of a list that had been lost", n)
	}
	full := errors.New("disk full")
	index.set(full)
	if err := c.Retake(t.Context(), "own"); !errors.Is(err, full) {
		t.Errorf("a list that could not be saved: %v", err)
	}
	if err := c.Retake(t.Context(), "nobody"); err == nil {
		t.Error("a source that is not there was retaken")
	}
}
