package mirror

import (
	"io"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
)

// requestsOf sums the counters of that name, those with by as their label if there is one.
func requestsOf(t *testing.T, reg prometheus.Gatherer, name, by string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if by == "" || label.GetName() == "by" && label.GetValue() == by {
					n += m.GetCounter().GetValue()
				}
			}
		}
		return n
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// Requests, misses and hits, count the clients alone: what the mirror reads for other reasons has
// counters of its own.
func TestClientsAreCountedAlone(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	o.Rules.Prefetch = []Wanted{matching(t, "name=sample-app")}
	m := newMirror(t, o)
	entry := func(id uuid.UUID) catalog.Entry { return entryOf(t, m, id) }
	read := func(r io.ReadCloser, err error) error {
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return err
	}
	for _, reader := range []struct {
		by    string
		reads bool // bytes are given out
		do    func() error
	}{
		{"fetch", false, func() error {
			var failed error
			m.Bring(t.Context(), m.Plan(t.Context(), []catalog.Entry{entry(samplePlain)}), cache.Job, func(_ int, turn Turn) {
				if turn.Err != nil {
					failed = turn.Err
				}
			})
			return failed
		}},
		{"prefetch", false, func() error { m.prefetchAll(t.Context(), newPrefetched()); return nil }},
		{"install", true, func() error { return read(m.openImage(t.Context(), entry(sampleApp).Manifest)) }},
		{"bundle", true, func() error { return read(m.Read(t.Context(), sumOf(t, m, sampleApp))) }},
		{"heal", false, func() error {
			if _, err := m.store.Remove(t.Context(), sumOf(t, m, sampleApp)); err != nil {
				return err
			}
			return m.heal(t.Context(), entry(sampleApp).Manifest.Files[0].SHA1, entry(sampleApp).Manifest.Files[0].Size)
		}},
		{"peer", true, func() error {
			return read(m.Open(t.Context(), entry(sampleWeb), 0, cache.Client, cache.ByPeer))
		}},
	} {
		if err := reader.do(); err != nil {
			t.Fatalf("%s: %v", reader.by, err)
		}
		for _, name := range []string{"imgmirror_cache_requests_total", "imgmirror_cache_served_bytes_total"} {
			if n := requestsOf(t, m.registry, name, ""); n != 0 {
				t.Errorf("after %s: %s is %v for clients", reader.by, name, n)
			}
		}
		if n := requestsOf(t, m.registry, "imgmirror_cache_internal_requests_total", reader.by); n == 0 {
			t.Errorf("no request is counted for %s", reader.by)
		}
		if n := requestsOf(t, m.registry, "imgmirror_cache_internal_served_bytes_total", reader.by); (n > 0) != reader.reads {
			t.Errorf("%v bytes are counted for %s", n, reader.by)
		}
	}

	if err := read(m.Open(t.Context(), entry(samplePlain), 0, cache.Client, cache.ByClient)); err != nil {
		t.Fatal(err)
	}
	size := entry(samplePlain).Manifest.Files[0].Size
	got := m.store.Traffic()
	if hit := got.Clients[cache.Hit]; hit.Requests != 1 || hit.Bytes != size {
		t.Errorf("a client's hit is counted as %+v, and the file has %d bytes", got.Clients, size)
	}
	if got.Brought == 0 || got.Fetched < got.Brought {
		t.Errorf("%d bytes were brought, %d fetched", got.Brought, got.Fetched)
	}
}
