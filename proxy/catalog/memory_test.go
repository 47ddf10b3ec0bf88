package catalog

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// The list of one source is in memory once, as it is served, until the two differ.
func TestShareTheList(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}, {n: 3}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	inPlace := func(when string, want bool) {
		t.Helper()
		c.shareTexts()
		if got := sameSlice(c.sources[0].list.Images, c.Current().images); got != want {
			t.Errorf("%s: in memory once: %v", when, got)
		}
		if c.Current().shares.copied != nil {
			t.Errorf("%s: the list as it came stays in memory", when)
		}
		if n := len(c.sources[0].list.Images); n != len(a.listed) {
			t.Fatalf("%s: %d images are left of %d", when, n, len(a.listed))
		}
		for i, m := range c.sources[0].list.Images {
			if string(m.Raw()) != string(a.listed[i].JSON()) {
				t.Errorf("%s: %s, want %s", when, m.Raw(), a.listed[i].JSON())
			}
		}
	}
	refresh(t, c)
	inPlace("first", true)
	a.listed = append(a.listed, spec{n: 4})
	refresh(t, c)
	inPlace("another", true)
	a.listed = append(a.listed, spec{n: 5, state: "disabled"})
	refresh(t, c)
	inPlace("with an image that is not shown", false)
	a.listed = append(a.listed, spec{n: 6, size: -1})
	refresh(t, c)
	c.Learn(manifest.FileID{Image: id(6)}, manifest.Facts{Size: 5, SHA1: entry(t, c, 6).Manifest.Files[0].SHA1})
	inPlace("learned", false)
	if e := entry(t, c, 6); e.Manifest.Files[0].Size != 5 {
		t.Errorf("what was learned is gone: %+v", e.Manifest.Files)
	}
}

// What a list was copied from leaves memory also where the source has details, and where the source's list was shared
// with the list before while the copy was made.
func TestCopiedIsFreed(t *testing.T) {
	free := func(c *Catalog, when string) {
		t.Helper()
		c.shareTexts()
		if n := len(c.Current().shares.copied); n > 0 {
			t.Errorf("%s: %d images as they came stay in memory", when, n)
		}
	}
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, noFiles: true}, {n: 3}}}
	a.told = []spec{{n: 2}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	wantListed(t, c, 1, 2, 3)
	free(c, "details")

	a = &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}, {n: 3}}}
	b := &fake{t: t, name: "b", listed: a.listed}
	c = newCatalog(t, Options{Sources: sourcesOf(a, b)})
	if err := c.Retake(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	c.building.Lock() // as rebuildLocked, with a shareTexts in between
	c.state.Lock()
	in := c.inputs()
	c.state.Unlock()
	before := c.Current()
	c.shareTexts()
	next := c.build(in, before)
	next.setViews(before)
	c.swap(next)
	c.building.Unlock()
	free(c, "a share during the build")
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

// laidOut is an index with a list of one source, as the index of the cache gives it.
type laidOut struct {
	noIndex
	list manifest.Listing
}

func (x laidOut) Listings() ([]manifest.Listing, error) { return []manifest.Listing{x.list}, nil }

// A saved list that lies in memory as clients get it is served as it lies: neither texts nor images are in memory
// twice. Where another list has to be made, it is made of copies.
func TestSavedListInPlace(t *testing.T) {
	var images []manifest.Manifest
	for n := range 5 {
		images = append(images, parse(t, spec{n: n + 1, in: []string{"dev"}}, manifest.ParseOptions{}))
	}
	hidden := parse(t, spec{n: 9, state: "disabled"}, manifest.ParseOptions{})
	text := manifest.PackList(images, nil)
	for name, x := range map[string]struct {
		saved   []manifest.Manifest
		text    []byte
		other   []spec // of a source before
		inPlace bool
		shown   int
	}{
		"the list alone":          {images, text, nil, true, 5},
		"a hidden image behind":   {append(slices.Clip(images), hidden), text, nil, true, 5},
		"a hidden image in front": {append([]manifest.Manifest{hidden}, images...), text, nil, false, 5},
		"another text":            {images, bytes.Clone(text), nil, false, 5},
		"no text":                 {images, nil, nil, false, 5},
		"another source":          {images, text, []spec{{n: 3, name: "x"}, {n: 7}}, false, 6},
		"as many, one of another": {images, text, []spec{{n: 3, name: "x"}}, false, 5},
	} {
		t.Run(name, func(t *testing.T) {
			other := &fake{t: t, name: "other", listed: x.other}
			index := laidOut{list: manifest.Listing{Source: "a", Kind: "imgapi", Images: x.saved, Text: x.text, Fetched: time.Now()}}
			c := newCatalog(t, Options{Sources: sourcesOf(other, &fake{t: t, name: "a"}), Index: index})
			if x.other != nil {
				if err := c.Retake(t.Context(), "other"); err != nil {
					t.Fatal(err)
				}
			}
			l := c.Current()
			if got := &l.Images()[0] == &x.saved[0]; got != x.inPlace {
				t.Errorf("in place: %v", got)
			}
			if len(l.Images()) != x.shown || !manifest.LieIn(l.text, l.Images()) {
				t.Errorf("%d images in %s", len(l.Images()), l.text)
			}
			if !manifest.LieIn(text, images) {
				t.Error("what the source said has been written to")
			}
		})
	}
}
