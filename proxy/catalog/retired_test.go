package catalog

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// disk knows which images are cached.
type disk struct {
	mu  sync.Mutex
	has []uuid.UUID
}

func (d *disk) set(numbers ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.has = nil
	for _, n := range numbers {
		d.has = append(d.has, id(n))
	}
}

func (d *disk) cached(m manifest.Manifest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.has, m.UUID)
}

// Images that their source has no more stay as long as they are cached: listed, or reachable by uuid only.
func TestRetired(t *testing.T) {
	for _, hide := range []bool{false, true} {
		name := map[bool]string{false: "keep", true: "hide"}[hide]
		t.Run(name, func(t *testing.T) {
			a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, origin: 3}, {n: 3}, {n: 4}, {n: 5}, {n: 6}}}
			b := &fake{t: t, name: "b"}
			x, d := new(memory), new(disk)
			d.set(1, 2, 5, 6)
			o := Options{Sources: sourcesOf(a, b), Index: x, Cached: d.cached, HideRetired: hide}
			c := newCatalog(t, o)
			refresh(t, c)
			wantShown(t, c, 1, 2, 3, 4, 5, 6)

			// 2, 4 and 5 go for good, 3 goes too, on which 2 is built; 6 is disabled.
			a.set(func(f *fake) { f.listed, f.hidden = []spec{{n: 1}}, []spec{{n: 6, state: "disabled"}} })
			refresh(t, c)
			for range 2 {
				if hide {
					wantShown(t, c, 1)
				} else {
					wantShown(t, c, 1, 2, 5)
				}
				for _, n := range []int{2, 5} {
					if e := entry(t, c, n); !e.Retired || e.Listed == hide || e.Source != "a" {
						t.Errorf("image %d: %+v", n, e)
					}
				}
				if e := entry(t, c, 3); e.Retired || e.Listed {
					t.Errorf("the origin: %+v", e)
				}
				if e := entry(t, c, 6); e.Retired || e.Listed || e.Manifest.State != "disabled" {
					t.Errorf("the disabled: %+v", e)
				}
				if e := entry(t, c, 1); e.Retired {
					t.Errorf("%+v", e)
				}
				wantAbsent(t, c, 4)
				offline := o
				offline.Offline = true
				c = restarted(t, c, offline)
			}

			// Another source has one of them: so much the better. With other bytes, too.
			c = restarted(t, c, o)
			b.set(func(f *fake) { f.listed = []spec{{n: 5, sum: "00000000000000000000000000000000000000aa"}} })
			refresh(t, c)
			if e := entry(t, c, 5); e.Retired || !e.Listed || e.Source != "b" {
				t.Errorf("%+v", e)
			}
			b.set(func(f *fake) { f.listed = []spec{{n: 9}} })
			refresh(t, c)
			if e := entry(t, c, 5); !e.Retired {
				t.Errorf("%+v", e)
			}

			// What is evicted is gone, unless it is needed; what comes back is an image like any other.
			d.set(1, 2)
			refresh(t, c)
			wantAbsent(t, c, 5)
			entry(t, c, 2)
			a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 2, origin: 3}) })
			refresh(t, c)
			if e := entry(t, c, 2); e.Retired || !e.Listed {
				t.Errorf("%+v", e)
			}
			if n := len(x.saved("a").Retired); n != 0 {
				t.Errorf("%d retired are saved", n)
			}
		})
	}
}

// A retired image that others are built on stays when its file goes, and is not listed then.
func TestRetiredOriginEvicted(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 2}, {n: 2}}}
	d := new(disk)
	d.set(2)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Cached: d.cached})
	refresh(t, c)
	a.set(func(f *fake) { f.listed = []spec{{n: 1, origin: 2}} })
	refresh(t, c)
	wantShown(t, c, 1, 2)
	d.set()
	refresh(t, c)
	wantShown(t, c, 1)
	if e := entry(t, c, 2); e.Retired || e.Listed {
		t.Errorf("%+v", e)
	}
}

// Without a word on what is cached nothing is kept, nor what a source withdraws.
func TestNotRetired(t *testing.T) {
	d := new(disk)
	d.set(2)
	for _, o := range []Options{{}, {Cached: d.cached}} {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}}}
		o.Sources = sourcesOf(a)
		o.Sources[0].Withdraws = true
		if o.Cached == nil {
			o.Sources[0].Withdraws = false
		}
		c := newCatalog(t, o)
		refresh(t, c)
		a.set(func(f *fake) { f.listed = []spec{{n: 1}} })
		refresh(t, c)
		wantShown(t, c, 1)
		wantAbsent(t, c, 2)
	}
}
