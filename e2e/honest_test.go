package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"imgmirror/proxy/admin"
)

// TestNumbersAreOfClients: what a mirror prefetches, gives to another mirror and exports moves none of the
// numbers of clients. What these have counted outlives a kill of the mirror, but for a minute.
func TestNumbersAreOfClients(t *testing.T) {
	t.Parallel()
	ahead, asked := newImage("ahead", 300_000), newImage("asked", 200_000)
	src := newSource(t, ahead, asked)
	first := startMirror(t, settings{"prefetch": []map[string]any{{"match": []string{"name=ahead"}}}}, from(src.URL()))
	first.awaitStored(1)
	second := startMirror(t, nil, from(first.url))
	second.awaitList(2)
	get(t, second.url+"/images/"+ahead.uuid+"/file").wantFile(t, ahead)
	get(t, second.url+"/images/"+asked.uuid+"/file").wantFile(t, asked)
	first.awaitStored(2)
	if out := first.verb("bundle", "export", "-q", "name=ahead", "-o", filepath.Join(t.TempDir(), "bundle.tar")); out.code != 0 {
		t.Fatalf("export: %s", out.stderr)
	}
	for by, requests := range map[string]float64{"prefetch": 1, "peer": 2, "bundle": 1} {
		first.until("requests of "+by+" are counted", func() bool {
			return first.metric("imgmirror_cache_internal_requests_total", `by="`+by+`"`) == requests
		})
	}
	for _, name := range []string{"imgmirror_cache_requests_total", "imgmirror_cache_served_bytes_total", "imgmirror_saved_bytes_total"} {
		if n := first.metric(name); n != 0 {
			t.Errorf("%s is %v, and no client has asked", name, n)
		}
	}
	if n := second.metric("imgmirror_cache_requests_total", `result="miss"`); n != 2 {
		t.Errorf("the second mirror has counted %v misses of its client", n)
	}

	get(t, first.url+"/images/"+ahead.uuid+"/file").wantFile(t, ahead)
	saved := func() bool { return first.status(t).Traffic.Saved == 300_000 }
	first.until("the hit is counted", saved)
	first.stop()
	first.start()
	if !saved() {
		t.Errorf("after a stop: %+v", first.status(t).Traffic)
	}
	first.kill()
	first.start()
	if !saved() {
		t.Errorf("after a kill: %+v", first.status(t).Traffic)
	}
}

// status is what the verb tells.
func (m *mirror) status(t *testing.T) (st admin.Status) {
	t.Helper()
	out := m.verb("status", "-j")
	out.want(t)
	if err := json.Unmarshal([]byte(out.stdout), &st); err != nil {
		t.Fatalf("%v in %q", err, out.stdout)
	}
	return st
}
