package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"

	"imgmirror/proxy/upstream/upstreamtest"
)

// TestSourceFaults: whatever a source does on the way to the right bytes,
// clients notice nothing but time.
func TestSourceFaults(t *testing.T) {
	t.Parallel()
	const size = 4_000_000
	type faults []upstreamtest.Fault
	var cuts, cutsFromStart faults
	for n := range 9 { // the n-th request gets to the (n+1)-th tenth
		cuts = append(cuts, upstreamtest.Fault{Skip: n, Times: 1, Cut: true, After: size / 10})
		cutsFromStart = append(cutsFromStart, upstreamtest.Fault{Skip: n, Times: 1, Cut: true, After: int64(n+1) * size / 10, IgnoreRange: true})
	}
	for _, tc := range []struct {
		name    string
		faults  faults
		resumes float64 // at least
		most    int64   // bytes the source may send in all; 0: not looked at
	}{
		{"cuts at every tenth", cuts, 9, size * 11 / 10},
		{"cuts at every tenth and ignores Range", append(cutsFromStart, upstreamtest.Fault{IgnoreRange: true}), 9, 0},
		{"ignores Range", faults{
			{Times: 1, Cut: true, After: size / 2, IgnoreRange: true},
			{IgnoreRange: true},
		}, 1, 0},
		{"stalls before the first byte", faults{{Times: 1, Stall: true}}, 0, size * 11 / 10},
		{"stalls in mid-file", faults{{Times: 1, Stall: true, After: size / 2}}, 1, size * 11 / 10},
		{"stalls three times", faults{{Times: 3, Stall: true, After: size / 4}}, 3, size * 11 / 10},
		{"stalls just before the end", faults{{Times: 1, Stall: true, After: size - 1}}, 1, size * 11 / 10},
		{"answers 500 twice", faults{{Times: 2, Status: http.StatusInternalServerError, Body: "<h1>no</h1>"}}, 0, size * 11 / 10},
		{"answers 500 twice in mid-file", faults{
			{Times: 1, Cut: true, After: size / 2},
			{Skip: 1, Times: 2, Status: http.StatusInternalServerError},
		}, 1, size * 11 / 10},
		{"drops the connection twice", faults{{Times: 2, Drop: true}}, 0, size * 11 / 10},
		{"sends no Content-Length", faults{{Chunked: true}}, 0, size * 11 / 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			img := newImage("faults: "+tc.name, size, map[string]any{"name": "faults"})
			src := newSource(t, img)
			for _, f := range tc.faults {
				f.Path = "/file"
				src.Inject(f)
			}
			m := startMirror(t, settings{"fill.stall_timeout": "1s"}, from(src.URL()))
			m.awaitList(1)
			wantClients(t, m, img)
			if got := m.metric("imgmirror_fill_resumes_total"); got < tc.resumes {
				t.Errorf("%v resumes counted, want %v at least", got, tc.resumes)
			}
			if got := src.sent(img); tc.most > 0 && got > tc.most {
				t.Errorf("the source sent %d bytes for %d", got, size)
			}
			if got := m.metric("imgmirror_verify_failures_total"); got != 0 {
				t.Errorf("%v verify failures", got)
			}
			get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img) // and now from disk
		})
	}
}

// wantClients has three clients download at once; all must get the file.
func wantClients(t *testing.T, m *mirror, img image) {
	t.Helper()
	var g errgroup.Group
	replies := make([]reply, 3)
	for i := range replies {
		g.Go(func() (err error) {
			replies[i], err = tryGet(m.url + "/images/" + img.uuid + "/file")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, r := range replies {
		r.wantFile(t, img)
	}
}

// TestSourceDies: of two sources one dies for good in mid-file, and the other
// one goes on where it stopped.
func TestSourceDies(t *testing.T) {
	t.Parallel()
	const size = 4_000_000
	img := newImage("dies", size)
	first, second := newSource(t, img), newSource(t, img)
	first.rate(2_000_000)
	m := startMirror(t, settings{"fill.stall_timeout": "1s"},
		from(first.URL(), settings{"name": "first"}), from(second.URL(), settings{"name": "second"}))
	m.until("both sources have answered", func() bool {
		return m.metric("imgmirror_upstream_up") == 2 && m.metric("imgmirror_catalog_images") == 1
	})

	resp, err := http.Get(m.url + "/images/" + img.uuid + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := io.CopyN(&body, resp.Body, size/2); err != nil {
		t.Fatal(err)
	}
	first.Stop()
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatalf("after %d of %d bytes: %v", body.Len(), size, err)
	}
	if !bytes.Equal(body.Bytes(), img.file) {
		t.Fatal("wrong bytes")
	}
	if got := second.sent(img); got == 0 || got > size*6/10 {
		t.Errorf("the second source sent %d bytes, want about the half of %d", got, size)
	}
	get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
}

// TestClientLeaves: a client that goes away does not end the fill, and does
// not harm the others.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	img := newImage("leaves", 3_000_000)
	src := newSource(t, img)
	src.rate(3_000_000)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	resp, err := http.Get(m.url + "/images/" + img.uuid + "/file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 100_000); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	m.awaitStored(1)
	if got := src.requests(img); got != 1 {
		t.Errorf("the source saw %d requests, want 1", got)
	}
	got := get(t, m.url+"/images/"+img.uuid+"/file")
	got.wantFile(t, img)
	if x := got.header.Get("X-Cache"); x != "HIT" {
		t.Errorf("X-Cache %q, want HIT", x)
	}
}

// TestRangesOfAFill: ranges of a file that is being filled come from the one
// fill, as soon as it has got there, but for the last byte: that comes when the
// file has been found right.
func TestRangesOfAFill(t *testing.T) {
	t.Parallel()
	const size = 6_000_000
	img := newImage("ranges", size)
	src := newSource(t, img)
	src.rate(2_000_000)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	var g errgroup.Group
	for _, r := range [][2]int{{0, size - 1}, {size / 2, size/2 + 999}, {size - 10, size - 1}} {
		value := fmt.Sprintf("bytes=%d-%d", r[0], r[1])
		g.Go(func() error {
			got, err := tryGet(m.url+"/images/"+img.uuid+"/file", "Range", value)
			if err != nil {
				return err
			}
			if got.status != http.StatusPartialContent || got.err != nil || !bytes.Equal(got.body, img.file[r[0]:r[1]+1]) {
				t.Errorf("%s: status %d, %d bytes, %v", value, got.status, len(got.body), got.err)
			}
			return nil
		})
	}
	g.Go(func() error {
		req, err := http.NewRequest(http.MethodGet, m.url+"/images/"+img.uuid+"/file", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Range", "bytes=0-99")
		resp, err := probe.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got := make([]byte, 100)
		if _, err := io.ReadFull(resp.Body, got[:1]); err != nil {
			return err
		}
		if sent := src.sent(img); sent == size {
			t.Error("the first byte comes once the source has sent all")
		}
		if _, err := io.ReadFull(resp.Body, got[1:]); err != nil {
			return err
		}
		if sent := src.sent(img); sent < size-64<<10 { // the source counts bytes after the bytes are sent
			t.Errorf("the last byte comes when the source has sent %d bytes", sent)
		}
		if !bytes.Equal(got, img.file[:100]) {
			t.Error("wrong bytes")
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := src.requests(img); got != 1 {
		t.Errorf("the source saw %d requests, want 1", got)
	}
}
