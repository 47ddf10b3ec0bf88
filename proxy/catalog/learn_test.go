package catalog

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// What was learned of a file is in its manifest from then on: after refreshes and restarts, in all sources.
func TestLearn(t *testing.T) {
	bare := []spec{{n: 1, sum: "-", size: -1}, {n: 2}, {n: 3, sum: "-", size: 500}}
	a := &fake{t: t, name: "a", listed: bare, hidden: []spec{{n: 9, sum: "-"}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	refresh(t, c)
	sum := verify.Sum{1: 0xab}
	facts := manifest.Facts{SHA1: sum, Size: 777, Compression: "gzip"}
	file := func(n int) manifest.FileID { return manifest.FileID{Image: id(n)} }

	l := c.Current()
	_, etag := whole(l).JSON(false)
	c.Learn(file(2), facts) // states it all
	c.Learn(file(3), facts) // states another size
	c.Learn(file(4), facts) // unknown
	c.Learn(manifest.FileID{Image: id(1), Index: 1}, facts)
	c.Learn(manifest.FileID{Image: id(1), Index: -1}, facts)
	if c.Current() != l || len(x.facts) != 0 {
		t.Errorf("learned something: %v", x.facts)
	}

	c.Learn(file(1), facts)
	check := func() {
		t.Helper()
		e := entry(t, c, 1)
		if f := e.Manifest.Files[0]; f.SHA1 != sum || f.Size != 777 || e.Holders[0].Manifest.Files[0].SHA1 != sum {
			t.Errorf("%+v", f)
		}
		if body, other := whole(c.Current()).JSON(false); !bytes.Contains(body, []byte(sum.String())) || other == etag {
			t.Error("the list lacks the sum")
		}
		if e, _, ok := c.Current().BySum(sum, 777); !ok || e.Manifest.UUID != id(1) {
			t.Error("not found by its sum")
		}
	}
	check()
	l = c.Current()
	c.Learn(file(1), facts)
	refresh(t, c)
	if c.Current() != l {
		t.Error("swapped without need")
	}
	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 5}) })
	refresh(t, c)
	check()

	if _, err := c.Get(t.Context(), id(9)); err != nil {
		t.Fatal(err)
	}
	c.tasks.Wait() // what was found is saved after the answer
	c.Learn(file(9), manifest.Facts{SHA1: verify.Sum{9}, Size: 1009, Compression: "gzip"})
	c = restarted(t, c, Options{Sources: sourcesOf(a), Index: x})
	check()
	if f := entry(t, c, 9).Manifest.Files[0]; f.SHA1 != (verify.Sum{9}) {
		t.Errorf("%+v", f)
	}

	a.set(func(f *fake) { f.listed = []spec{{n: 1, sum: fmt.Sprintf("%040x", 4242)}} })
	refresh(t, c)
	if f := entry(t, c, 1).Manifest.Files[0]; f.SHA1 == sum || f.Size == 777 {
		t.Errorf("old facts override what the source states: %+v", f)
	}
}

// Found by uuid while facts of it are known already.
func TestFactsOfLookup(t *testing.T) {
	sum := verify.Sum{7}
	x := &memory{facts: map[manifest.FileID]manifest.Facts{{Image: id(1)}: {SHA1: sum, Size: 1001, Compression: "gzip"}}}
	a := &fake{t: t, name: "a", hidden: []spec{{n: 1, sum: "-"}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	e, err := c.Get(t.Context(), id(1))
	if err != nil || e.Manifest.Files[0].SHA1 != sum {
		t.Errorf("%+v, %v", e.Manifest.Files, err)
	}
}

// Readers see whole lists only, whatever goes on.
func TestConcurrentUse(t *testing.T) {
	a := &fake{t: t, name: "a"}
	b := &fake{t: t, name: "b"}
	for n := 1; n <= 50; n++ {
		a.listed = append(a.listed, spec{n: n, origin: n + 1000, sum: "-"})
		a.hidden = append(a.hidden, spec{n: n + 1000})
		b.hidden = append(b.hidden, spec{n: n + 2000, origin: n + 3000}, spec{n: n + 3000})
	}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: x, OnChange: func(*List) {}})
	ctx, cancel := context.WithCancel(t.Context())
	var running, writers, readers sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	<-c.Ready()
	for n := 1; n <= 50; n++ {
		writers.Go(func() {
			if _, err := c.Get(ctx, id(n+2000)); err != nil {
				t.Error(err)
			}
			c.Learn(manifest.FileID{Image: id(n)}, manifest.Facts{SHA1: verify.Sum{byte(n)}, Size: int64(1000 + n)})
		})
	}
	for range 5 {
		writers.Go(func() {
			a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 100 + len(f.listed)}) })
			refresh(t, c)
		})
	}
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l := c.Current()
				for _, m := range l.Images() {
					if e, ok := l.Entry(m.UUID); !ok || !e.Listed || len(e.Holders) == 0 {
						t.Errorf("image %s: %+v", m.UUID, e)
					}
				}
				whole(l).JSON(false)
				whole(l).Reply(false, Gzip)
				c.Status()
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	for n := 1; n <= 50; n++ {
		entry(t, c, n+1000)
		entry(t, c, n+2000)
		if e := entry(t, c, n); e.Manifest.Files[0].SHA1 != (verify.Sum{byte(n)}) {
			t.Errorf("image %d: %+v", n, e.Manifest.Files)
		}
	}
	cancel()
	running.Wait()
	for n := 1; n <= 5; n++ {
		entry(t, c, 149+n)
	}
	if x.overlaps != 0 {
		t.Errorf("%d calls of the index while another was under way", x.overlaps)
	}
}

// Any graph of origins is built in bounded time, and lists what it should.
func FuzzChains(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, true)
	f.Add([]byte{1, 2, 0}, true)
	f.Add([]byte{0, 200, 1, 9}, false)
	f.Fuzz(func(t *testing.T, origins []byte, hide bool) {
		a := &fake{t: t, name: "a"}
		have := make(map[int]int)
		for i, o := range origins {
			if i == 200 {
				break
			}
			a.listed = append(a.listed, spec{n: i + 1, origin: int(o)})
			have[i+1] = int(o)
		}
		c := newCatalog(t, Options{Sources: sourcesOf(a), HideBrokenChains: hide})
		refresh(t, c)
		for n := range have {
			whole := true
			for depth, at := 0, have[n]; at != 0; depth, at = depth+1, have[at] {
				if _, ok := have[at]; !ok || depth == maxDepth {
					whole = false
					break
				}
			}
			at := -1
			for i, m := range c.Current().Images() {
				if m.UUID == id(n) {
					at = i
				}
			}
			if (at >= 0) != (whole || !hide) {
				t.Errorf("image %d: whole %v, at %d", n, whole, at)
			}
		}
	})
}

// big is a list of n images, a tenth of them incremental.
func big(t testing.TB, n int) manifest.Listing {
	var text bytes.Buffer
	text.WriteByte('[')
	pad := bytes.Repeat([]byte("x"), 1100) // makes a manifest about as long as real ones
	for i := range n {
		if i > 0 {
			text.WriteByte(',')
		}
		u := uuid.UUID{0: 1, 12: byte(i >> 24), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		fmt.Fprintf(&text, `{"v":2,"uuid":%q,"name":"image-%d","version":"1.0","type":"zone-dataset","os":"smartos","state":"active",`+
			`"disabled":false,"public":true,"owner":%q,"published_at":"2024-01-01T%02d:%02d:%02dZ","description":%q,`,
			u, i, uuid.Nil, i/3600%24, i/60%60, i%60, pad)
		if i%10 == 9 {
			u[15]--
			fmt.Fprintf(&text, `"origin":%q,`, u)
		}
		fmt.Fprintf(&text, `"files":[{"sha1":"%040x","size":%d,"compression":"gzip"}]}`, i, i+1)
	}
	text.WriteByte(']')
	images, skipped, err := manifest.ParseList(text.Bytes(), manifest.ParseOptions{})
	if err != nil || len(skipped) > 0 {
		t.Fatal(err, skipped)
	}
	return manifest.Listing{Source: "a", Images: images}
}

// BenchmarkBuild is the time from inputs to a list with its body; MB is what that list and the inputs hold.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := &fake{t: b, name: "a"}
			c := newCatalog(b, Options{Sources: sourcesOf(a)})
			c.sources[0].list = big(b, n)
			for b.Loop() {
				c.stale = true
				c.rebuild()
			}
			if got := len(c.Current().Images()); got != n {
				b.Fatalf("%d images", got)
			}
			b.ReportMetric(heapMB(), "MB-live")
			runtime.KeepAlive(c)
		})
	}
}

// BenchmarkUnlisted is the time that a search by uuid costs a big list.
func BenchmarkUnlisted(b *testing.B) {
	a := &fake{t: b, name: "a"}
	c := newCatalog(b, Options{Sources: sourcesOf(a)})
	c.sources[0].list = big(b, 100_000)
	c.stale = true
	c.rebuild()
	m := parse(b, spec{n: 1}, manifest.ParseOptions{})
	for i := 0; b.Loop(); i++ {
		m.UUID = uuid.UUID{0: 2, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		c.note([]answer{{source: c.sources[0], id: m.UUID, manifest: m}})
		c.rebuild()
		if i%500 == 499 {
			next := *c.Current()
			next.extra = nil
			c.current.Store(&next)
		}
	}
}
