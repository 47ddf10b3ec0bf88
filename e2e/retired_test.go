package e2e

import (
	"testing"

	"github.com/google/uuid"

	"imgmirror/proxy/upstream/upstreamtest"
)

// TestRetired: an image that its source has no more stays while it is cached, on the list or by uuid only, and one
// that is merely disabled there leaves the list either way.
func TestRetired(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"keep", "hide"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			stays, cached, uncached := newImage("stays", 1000), newImage("cached", 1000), newImage("uncached", 1000)
			disabled := newImage("disabled", 1000)
			src := newSource(t, stays, cached, uncached, disabled)
			m := startMirror(t, settings{"catalog.retired": policy}, from(src.URL(), settings{"refresh": "100ms"}))
			m.awaitList(4)
			for _, img := range []image{cached, disabled} {
				get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
			}
			m.awaitStored(2)

			for _, img := range []image{cached, uncached} {
				src.Remove(uuid.MustParse(img.uuid))
			}
			src.add(newImage("disabled", 1000, map[string]any{"state": "disabled", "disabled": true}))
			listed := []string{"stays-1.0.0"}
			if policy == "keep" {
				listed = append(listed, "cached-1.0.0")
			}
			wanted := func() {
				t.Helper()
				m.until("the list has shrunk", func() bool {
					return m.metric("imgmirror_catalog_images") == float64(len(listed)) && m.metric("imgmirror_catalog_retired_images") == 1
				})
				if policy == "keep" {
					get(t, m.url+"/images").has(t, cached.uuid)
				}
				get(t, m.url+"/images").has(t, stays.uuid)
				get(t, m.url+"/images/"+cached.uuid).has(t, `"state":"active"`)
				get(t, m.url+"/images/"+disabled.uuid).has(t, `"state":"disabled"`)
				get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
				get(t, m.url+"/images/"+uncached.uuid).wantError(t, 404, "ResourceNotFound")
			}
			wanted()
			m.restart()
			wanted()
			if src.requests(cached) != 1 {
				t.Errorf("the file was asked for %d times", src.requests(cached))
			}
		})
	}
}

// TestAiling: a source that fails again and again is asked less and less, says so, and is back by itself; other
// sources are there all the while.
func TestAiling(t *testing.T) {
	t.Parallel()
	img, other := newImage("image", 1000), newImage("other", 1000)
	src, well := newSource(t, img), newSource(t, other)
	m := startMirror(t, nil, from(src.URL(), settings{"name": "ill", "refresh": "1s"}), from(well.URL(), settings{"name": "well"}))
	m.awaitList(2)
	src.Inject(upstreamtest.Fault{Status: 500})
	ask := func() { get(t, m.url+"/images/"+uuid.NewString()).wantError(t, 503, "RemoteSourceError") }
	m.until("it is left in peace", func() bool {
		ask()
		return m.metric("imgmirror_upstream_breaker_open", `source="ill"`) == 1
	})
	before := src.Count("")
	for range 50 {
		ask()
	}
	if asked := src.Count("") - before; asked > 15 {
		t.Errorf("it was asked %d times for 50 clients", asked)
	}
	get(t, m.url+"/images/"+other.uuid+"/file").wantFile(t, other)
	if m.metric("imgmirror_upstream_breaker_open") != 1 {
		t.Error("the other source is ailing, too")
	}
	src.Heal()
	m.until("it is asked as usual again", func() bool { return m.metric("imgmirror_upstream_breaker_open") == 0 })
	get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
}
