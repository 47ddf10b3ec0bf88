package upstream

import (
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
)

func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	return testutil.ToFloat64(c)
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry, []string{"a", "b"})
	if n, err := testutil.GatherAndCount(registry, "imgmirror_upstream_requests_total"); err != nil || n != 2*len(codes) {
		t.Errorf("%d series of requests from the start, %v", n, err)
	}

	data := upstreamtest.Bytes(1, 100_000)
	s := newServer(t, upstreamtest.Options{})
	add(t, s, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data), data)
	c := newClient(t, Options{Name: "a", URL: s.URL(), Kind: kindIMGAPI, Metrics: metrics})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	read(t, c, l.Images[0], 0)
	s.Inject(upstreamtest.Fault{Path: "/file", IgnoreRange: true, Times: 1})
	st, err := c.File(t.Context(), l.Images[0], 0, 90_000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(st); err != nil || len(got) != 10_000 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	st.Close()

	m := metrics.source("a")
	sent := float64(s.Bytes(""))
	if got := value(t, m.received); got != sent || sent < 200_000 {
		t.Errorf("%v bytes received, %v were sent", got, sent)
	}
	if got := value(t, m.requests.WithLabelValues("200")); got != 3 {
		t.Errorf("%v answers with 200", got)
	}
	if value(t, m.up) != 1 || value(t, metrics.source("b").up) != 0 {
		t.Error("up is wrong")
	}

	s.Inject(upstreamtest.Fault{Status: 418, Times: 1})
	c.Get(t.Context(), upstreamtest.ID(1)) // refused
	if value(t, m.requests.WithLabelValues("4xx")) != 1 || value(t, m.up) != 1 {
		t.Error("418 is not counted as 4xx, or as a source that is down")
	}
	s.Stop()
	if _, err := c.Get(t.Context(), upstreamtest.ID(1)); err == nil {
		t.Error("a stopped server answers")
	}
	if value(t, m.requests.WithLabelValues("error")) != 1 || value(t, m.up) != 0 {
		t.Error("no answer is not counted as an error, or as a source that is up")
	}
	for _, odd := range []int{0, 99, 600, 999} {
		m.answered(odd)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	families, _ := registry.Gather()
	for _, f := range families {
		if f.GetName() == "imgmirror_upstream_requests_total" && len(f.GetMetric()) != 2*len(codes) {
			t.Errorf("%d series of requests: labels are not bounded", len(f.GetMetric()))
		}
		if !strings.HasPrefix(f.GetName(), "imgmirror_upstream_") {
			t.Errorf("metric %s", f.GetName())
		}
	}
}

func TestMetricsThatNobodySees(t *testing.T) {
	NewMetrics(nil, []string{"a"})
	NewMetrics(nil, []string{"a"}) // twice is no conflict
}
