package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"

	"imgmirror/proxy/upstream/upstreamtest"
)

// lies are the ways in which a source can have wrong bytes.
var lies = []struct {
	name  string
	fault func(size int) upstreamtest.Fault
}{
	{"a bit flipped at the start", func(int) upstreamtest.Fault { return upstreamtest.Fault{Corrupt: true} }},
	{"a bit flipped at the end", func(size int) upstreamtest.Fault { return upstreamtest.Fault{Corrupt: true, At: int64(size - 1)} }},
	{"a byte less", func(int) upstreamtest.Fault { return upstreamtest.Fault{Grow: -1} }},
	{"a byte more", func(int) upstreamtest.Fault { return upstreamtest.Fault{Grow: 1} }},
	{"a byte less, of unknown length", func(int) upstreamtest.Fault { return upstreamtest.Fault{Grow: -1, Chunked: true} }},
	{"a byte more, of unknown length", func(int) upstreamtest.Fault { return upstreamtest.Fault{Grow: 1, Chunked: true} }},
}

// TestSourceLies: wrong bytes never make a complete body, are never published,
// and are counted; with a second, honest source the next request succeeds.
func TestSourceLies(t *testing.T) {
	t.Parallel()
	for _, lie := range lies {
		for _, size := range []int{1000, 64 << 10, 300_000} { // the first two are held back whole
			t.Run(fmt.Sprintf("%s, %d bytes", lie.name, size), func(t *testing.T) {
				t.Parallel()
				img := newImage(fmt.Sprintf("lies-%s-%d", lie.name, size), size, map[string]any{"name": "lies"})
				liar := newSource(t, img)
				fault := lie.fault(size)
				fault.Path = "/file"
				liar.Inject(fault)
				m := startMirror(t, settings{"fill.stall_timeout": "1s"}, from(liar.URL(), settings{"name": "liar"}))
				m.awaitList(1)
				for range 2 {
					wantNoBody(t, m, img)
				}
				if got := m.metric("imgmirror_verify_failures_total", `source="liar"`); got == 0 {
					t.Error("imgmirror_verify_failures_total has not counted")
				}
				if files := m.files(); len(files) != 0 {
					t.Errorf("published: %v", files)
				}

				// The same installation, and an honest source after the liar.
				m.stop()
				honest := newSource(t, img)
				m.config["sources"] = []map[string]any{from(liar.URL(), settings{"name": "liar"}), from(honest.URL(), settings{"name": "honest"})}
				m.start()
				m.until("the honest source has answered", func() bool {
					return m.metric("imgmirror_catalog_last_success_timestamp_seconds", `source="honest"`) > 0
				})
				first := get(t, m.url+"/images/"+img.uuid+"/file")
				if first.status == http.StatusOK && first.err == nil {
					first.wantFile(t, img) // nothing wrong had been given out yet
				}
				get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
				m.awaitStored(1)
				if files := m.files(); files[0] != img.sha1() {
					t.Errorf("published as %s, want %s", files[0], img.sha1())
				}
			})
		}
	}
}

// TestSourceNeverEnds: a source that always stops one byte before the end is
// given up, and the file is neither served whole nor published.
func TestSourceNeverEnds(t *testing.T) {
	t.Parallel()
	const size = 300_000
	img := newImage("never-ends", size)
	src := newSource(t, img)
	src.Inject(upstreamtest.Fault{Path: "/file", Cut: true, After: size - 1, IgnoreRange: true})
	m := startMirror(t, settings{"fill.stall_timeout": "1s"}, from(src.URL()))
	m.awaitList(1)
	wantNoBody(t, m, img)
	if files := m.files(); len(files) != 0 {
		t.Errorf("published: %v", files)
	}
}

// wantNoBody has four clients ask at once, whole and in part; none may get a
// complete body, and what comes before the end must be an error or short.
func wantNoBody(t *testing.T, m *mirror, img image) {
	t.Helper()
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			var header []string
			if i == 3 {
				header = []string{"Range", "bytes=0-"}
			}
			got, err := tryGet(m.url+"/images/"+img.uuid+"/file", header...)
			switch {
			case err != nil:
				// The connection was ended before a header: no body.
			case got.status >= 400:
				if got.status != http.StatusServiceUnavailable || !bytes.Contains(got.body, []byte("RemoteSourceError")) {
					t.Errorf("status %d, body %s", got.status, got.body)
				}
			case got.err == nil:
				t.Errorf("client %d: status %d and a complete body of %d bytes", i, got.status, len(got.body))
			case len(got.body) >= len(img.file):
				t.Errorf("client %d: %d bytes of %d, then %v", i, len(got.body), len(img.file), got.err)
			}
			return nil
		})
	}
	_ = g.Wait()
}
