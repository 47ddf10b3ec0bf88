package catalog

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"imgmirror/manifest"
)

// fat is a source of large manifests. Each of its lists is another text, which
// the manifests lie in.
type fat struct {
	*fake
	channels bool // its manifests are not what clients get
	edition  atomic.Int32
	bytes    int // of a list, about
}

const fatImages = 100

func (f *fat) List(context.Context, manifest.Listing) (manifest.Listing, error) {
	var b strings.Builder
	b.WriteByte('[')
	for n := range fatImages {
		s := spec{n: n + 1, name: fmt.Sprintf("edition%d", f.edition.Load())}
		if f.channels {
			s.in = []string{"dev"}
		}
		text := string(s.JSON())
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s,"description":%q}`, strings.TrimSuffix(text, "}"), strings.Repeat("x", f.bytes/fatImages))
	}
	b.WriteByte(']')
	images, skipped, err := manifest.ParseList([]byte(b.String()), manifest.ParseOptions{})
	if err != nil || len(skipped) > 0 {
		f.t.Error(err, skipped)
	}
	return manifest.Listing{Kind: "imgapi", Images: images}, err
}

// Each manifest is in memory once, in the answer that lists it, and not as it came from its sources as well.
func TestListsShareTexts(t *testing.T) {
	const size = 1e6
	for name, x := range map[string]struct {
		channels bool
		most     float64 // of a list's bytes
	}{"as they came": {false, 1.6}, "rewritten": {true, 2.7}} {
		t.Run(name, func(t *testing.T) {
			a := &fat{fake: &fake{t: t, name: "a"}, bytes: size, channels: x.channels}
			b := &fat{fake: &fake{t: t, name: "b"}, bytes: size, channels: x.channels}
			before := heapMB()
			c := newCatalog(t, Options{Sources: []SourceOptions{{Source: a}, {Source: b}}, Registerer: nil})
			used := func(when string) {
				t.Helper()
				c.shareTexts()
				if mb := heapMB() - before; mb > x.most*size/1e6 {
					t.Errorf("%s: %.1f MB for a list of %.1f MB", when, mb, size/1e6)
				}
				if n := len(c.Current().Images()); n != fatImages {
					t.Errorf("%s: %d images", when, n)
				}
			}
			refresh(t, c)
			used("first")
			refresh(t, c)
			used("the same again")
			a.edition.Add(1)
			b.edition.Add(1)
			refresh(t, c)
			used("another")
			if name := entry(t, c, 7).Manifest.Name; name != "edition1" {
				t.Errorf("name %q", name)
			}
			c.Learn(manifest.FileID{Image: id(7)}, manifest.Facts{Size: 1007})
			used("learned")
		})
	}
}

// Sharing changes nothing of what a source said: its list is saved, and compared with the next, as it came.
func TestShareKeepsWhatSourcesSaid(t *testing.T) {
	x := new(memory)
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, in: []string{"dev"}}, {n: 2}, {n: 3, sum: "-", size: -1}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 2}, {n: 4}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: x})
	refresh(t, c)
	facts := manifest.Facts{Size: 5}
	facts.SHA1[0] = 1
	c.Learn(manifest.FileID{Image: id(3)}, facts)
	c.shareTexts()
	wantSame := func() {
		t.Helper()
		for _, s := range c.sources {
			for i, m := range s.list.Images {
				was := s.Source.(*fake).listed[i]
				if string(m.Raw()) != string(was.JSON()) {
					t.Errorf("%s: %s, want %s", s.name, m.Raw(), was.JSON())
				}
				want := parse(t, was, manifest.ParseOptions{})
				if string(m.V2()) != string(want.V2()) {
					t.Errorf("%s: %s, want %s", s.name, m.V2(), want.V2())
				}
			}
		}
	}
	wantSame()
	current, saves := c.Current(), x.saves
	refresh(t, c)
	if c.Current() != current || x.saves != saves {
		t.Error("the same lists were taken for others")
	}
	wantSame()
	if e := entry(t, c, 3); e.Manifest.Files[0].Size != 5 {
		t.Errorf("what was learned is gone: %+v", e.Manifest.Files)
	}
	if got := holders(entry(t, c, 2)); got != "a b" {
		t.Errorf("holders of 2: %s", got)
	}
}

// What gives memory back costs a garbage collection: once for what a list took, and not for each source that says
// the same again.
func TestGiveBackOnce(t *testing.T) {
	large := &fake{t: t, name: "a"}
	for n := range largeList {
		large.listed = append(large.listed, spec{n: n + 1})
	}
	c := newCatalog(t, Options{Sources: sourcesOf(large)})
	refresh(t, c)
	collections := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	runtime.GC()
	before := collections()
	garbage := make([]byte, littleGarbage)
	c.giveBack()
	if n := collections() - before; n != 1 {
		t.Errorf("%d collections after %d bytes", n, len(garbage))
	}
	runtime.KeepAlive(garbage)
	for range 5 {
		c.giveBack()
	}
	if n := collections() - before; n != 1 {
		t.Errorf("%d collections without anything to give back", n-1)
	}
}
