package e2e

import (
	"bytes"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestDark: with every source down and after a restart the list, the manifests
// and the cached files are as before; an uncached file is a 503 within 3 s; an
// unknown uuid is a 404 as long as sources can be asked.
func TestDark(t *testing.T) {
	t.Parallel()
	cached, uncached := newImage("cached", 300_000), newImage("uncached", 300_000)
	origin := newImage("hidden-origin", 1000, map[string]any{"state": "disabled", "disabled": true})
	child := newImage("child", 1000, map[string]any{"origin": origin.uuid})
	src, other := newSource(t, cached, uncached, origin, child), newSource(t, cached)
	m := startMirror(t, nil, from(src.URL()), from(other.URL()))
	m.awaitList(3)
	m.until("both sources have answered", func() bool { return m.metric("imgmirror_upstream_up") == 2 })

	get(t, m.url+"/images/"+unknownID).wantError(t, 404, "ResourceNotFound")
	paths := []string{
		"/images", "/images?os=smartos", "/datasets", "/images/" + cached.uuid, "/images/" + uncached.uuid, "/datasets/" + cached.uuid,
		"/images/" + cached.uuid + "/file", "/images/" + child.uuid, "/images/" + origin.uuid, "/images/" + origin.uuid + "/file",
	}
	before := map[string]reply{}
	for _, path := range paths {
		before[path] = get(t, m.url+path)
		if before[path].status != 200 || before[path].err != nil {
			t.Fatalf("GET %s: status %d, %v", path, before[path].status, before[path].err)
		}
	}
	m.awaitStored(2)

	src.Stop()
	other.Stop()
	compare := func(when string) {
		t.Helper()
		unknown := newImage("unknown "+when, 1).uuid // not one that was found missing before
		for _, path := range paths {
			got := get(t, m.url+path)
			if got.status != 200 || got.err != nil || !bytes.Equal(got.body, before[path].body) {
				t.Errorf("%s: GET %s: status %d, %d bytes, %v; before: %d bytes", when, path, got.status, len(got.body), got.err, len(before[path].body))
			}
			if tag := got.header.Get("ETag"); tag != before[path].header.Get("ETag") {
				t.Errorf("%s: GET %s: ETag %s, before: %s", when, path, tag, before[path].header.Get("ETag"))
			}
		}
		start := time.Now()
		get(t, m.url+"/images/"+uncached.uuid+"/file").wantError(t, 503, "RemoteSourceError")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: the 503 took %v", when, took)
		}
		start = time.Now()
		get(t, m.url+"/images/"+unknown).wantError(t, 503, "RemoteSourceError")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: the 503 of an unknown image took %v", when, took)
		}
		get(t, m.url+"/ping").has(t, `"imgapi":true`)
	}
	compare("sources down")
	m.restart() // ready although nobody answers
	compare("after a restart")
	m.kill()
	m.start()
	compare("after kill -9")

	// The index lost: what is on disk is still listed, shown and served.
	m.stop()
	if err := os.RemoveAll(m.data("index")); err != nil {
		t.Fatal(err)
	}
	m.start()
	for _, path := range []string{"/images/" + cached.uuid, "/images/" + cached.uuid + "/file", "/images/" + origin.uuid + "/file"} {
		got := get(t, m.url+path)
		if got.status != 200 || !bytes.Equal(got.body, before[path].body) {
			t.Errorf("index lost: GET %s: status %d, %d bytes", path, got.status, len(got.body))
		}
	}
	get(t, m.url+"/images").has(t, cached.uuid)
}

// has fails the test unless the body contains text.
func (r reply) has(t testing.TB, text string) {
	t.Helper()
	if r.status != 200 || !bytes.Contains(r.body, []byte(text)) {
		t.Errorf("status %d, body without %s: %s", r.status, text, tail(string(r.body), 300))
	}
}

// TestDarkSlowly: sources that accept and say nothing are no better than ones
// that are down: the 503 still comes in time where nothing is known of the
// image, and nothing that is cached waits for them.
func TestDarkSlowly(t *testing.T) {
	t.Parallel()
	cached := newImage("cached", 100_000)
	src := newSource(t, cached)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
	m.awaitStored(1)
	src.hang()
	m.restart()
	start := time.Now()
	get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
	get(t, m.url+"/images").has(t, cached.uuid)
	if took := time.Since(start); took > time.Second {
		t.Errorf("what is cached took %v", took)
	}
	start = time.Now()
	get(t, m.url+"/images/"+unknownID).wantError(t, 503, "RemoteSourceError")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the 503 took %v", took)
	}
}

// TestUnreachableAsNotFound: with on_unreachable: notfound the node's client
// goes on to its next source.
func TestUnreachableAsNotFound(t *testing.T) {
	t.Parallel()
	img := newImage("uncached", 100_000)
	src := newSource(t, img)
	m := startMirror(t, settings{"cache.on_unreachable": "notfound"}, from(src.URL()))
	m.awaitList(1)
	src.Stop()
	get(t, m.url+"/images/"+unknownID).wantError(t, 404, "ResourceNotFound")
	get(t, m.url+"/images/"+img.uuid+"/file").wantError(t, 404, "ResourceNotFound")
}

// TestOffline: a mirror told to be offline asks nobody and serves what it has.
func TestOffline(t *testing.T) {
	t.Parallel()
	cached, uncached := newImage("cached", 100_000), newImage("uncached", 1000)
	src := newSource(t, cached, uncached)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(2)
	get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
	m.awaitStored(1)
	m.stop()
	asked := src.Count("")
	m.set(settings{"offline": true})
	m.start()
	get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
	get(t, m.url+"/images").has(t, uncached.uuid)
	if got := get(t, m.url+"/images/"+uncached.uuid+"/file"); got.status != http.StatusServiceUnavailable {
		t.Errorf("an uncached file: status %d, want 503", got.status)
	}
	if got := src.Count(""); got != asked {
		t.Errorf("the source was asked %d times", got-asked)
	}
}

// TestDiskFull: without room for more the uncached is a 503 StorageIsDown, at
// once and without asking the source, and hits go on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	cached, uncached := newImage("cached", 100_000), newImage("uncached", 100_000)
	src := newSource(t, cached, uncached)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(2)
	get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
	m.awaitStored(1)
	for _, full := range []settings{
		{"cache.min_free": "1000PB"}, // what all of the cache could give up would not be enough
		{"cache.min_free": "1MB", "cache.max_size": "150KB", "cache.pins": []string{"uuid=" + cached.uuid}},
	} {
		m.stop()
		m.set(full)
		m.start()
		for range 2 {
			get(t, m.url+"/images/"+uncached.uuid+"/file").wantError(t, 503, "StorageIsDown")
			get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
		}
	}
	if got := src.requests(uncached); got != 0 {
		t.Errorf("the source was asked %d times for a file that has no room", got)
	}
	m.stop()
	m.set(settings{"cache.max_size": "", "cache.pins": []string{}})
	m.start()
	get(t, m.url+"/images/"+uncached.uuid+"/file").wantFile(t, uncached)
}
