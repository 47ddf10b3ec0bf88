package e2e

import (
	"strings"
	"testing"

	"imgmirror/proxy/upstream/upstreamtest"
)

// ranges are the ranges that the source was asked for, of img.
func (s *source) ranges(img image) (all []string) {
	for _, r := range s.Requests() {
		if strings.HasSuffix(r.Path, filePath(img)) {
			all = append(all, r.Header.Get("Range"))
		}
	}
	return all
}

// With fill.streams a file comes in ranges, from all sources, for all clients; a kill -9 in the middle costs
// no more than what was ahead in memory.
func TestStreams(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	img := newImage("streams", size)
	one, two := newSource(t, img), newSource(t, img)
	one.rate(8 << 20)
	two.rate(256 << 10) // far below what a busy machine gives to the fast one
	m := startMirror(t, settings{"fill.streams": 3}, from(one.URL()), from(two.URL()))
	m.until("both sources have told their lists", func() bool { return strings.Count(m.log(), "images=1 before=0") == 2 })
	go func() { _, _ = tryGet(m.url + "/images/" + img.uuid + "/file") }()
	m.until("half of it has come", func() bool { return one.sent(img)+two.sent(img) > size/2 })
	m.kill()
	m.start()
	wantClients(t, m, img)
	m.awaitStored(1)
	for _, src := range []*source{one, two} {
		asked := src.ranges(img)
		if len(asked) < 3 {
			t.Errorf("a source was asked for %v", asked)
		}
		for _, r := range asked {
			if strings.HasSuffix(r, "-") || r == "" {
				t.Errorf("a source was asked for %q", r)
			}
		}
	}
	if slow, fast := two.sent(img), one.sent(img); slow == 0 || slow*2 > fast {
		t.Errorf("the slow source has sent %d bytes, the fast one %d", slow, fast)
	}
	if got := m.metric("imgmirror_verify_failures_total"); got != 0 {
		t.Errorf("%v verify failures", got)
	}
	if got := m.metric("imgmirror_fill_range_bytes"); got != 0 {
		t.Errorf("%v bytes are booked when no download is under way", got)
	}
}

// One request is for all where fill.streams is not set, and where a source ignores ranges.
func TestStreamsOfOneRequest(t *testing.T) {
	t.Parallel()
	const size = 12 << 20
	for name, test := range map[string]struct {
		set   settings
		fault upstreamtest.Fault
		asked string
	}{
		"the default":       {nil, upstreamtest.Fault{}, ""},
		"ignores the range": {settings{"fill.streams": 4}, upstreamtest.Fault{IgnoreRange: true}, "bytes=0-1048575"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := newImage("one request: "+name, size, map[string]any{"name": "one"})
			src := newSource(t, img)
			src.Inject(test.fault)
			m := startMirror(t, test.set, from(src.URL()))
			m.awaitList(1)
			wantClients(t, m, img)
			if asked := src.ranges(img); len(asked) != 1 || asked[0] != test.asked {
				t.Errorf("asked for %q, want one request for %q", asked, test.asked)
			}
		})
	}
}

// Of a mirror that still fetches the file, all is asked for in one request: a range's last byte would
// come at the very end. Of a mirror that has the file, ranges are.
func TestStreamsOfAMirror(t *testing.T) {
	t.Parallel()
	const size = 12 << 20
	cold, warm := newImage("cold", size), newImage("warm", size)
	src := newSource(t, cold, warm)
	inner := startMirror(t, nil, from(src.URL()))
	inner.awaitList(2)
	get(t, inner.url+"/images/"+warm.uuid+"/file").wantFile(t, warm)
	src.rate(6 << 20)
	outer := startMirror(t, settings{"fill.streams": 4}, from(inner.url))
	outer.awaitList(2)
	wantClients(t, outer, cold)
	wantClients(t, outer, warm)
	if n := outer.metric("imgmirror_fill_resumes_total"); n != 0 {
		t.Errorf("%v downloads were resumed", n)
	}
	if n := src.requests(cold); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
	// One request for the first range: the answer tells that the file is on its way. One request for the whole file.
	if n := strings.Count(inner.log(), cold.uuid+"/file"); n != 2 {
		t.Errorf("the inner mirror was asked for the file that it fetches %d times", n)
	}
	if n := strings.Count(inner.log(), warm.uuid+"/file"); n < 4 {
		t.Errorf("the inner mirror was asked for the file that it has %d times", n)
	}
}
