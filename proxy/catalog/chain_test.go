package catalog

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Origins that no list shows are fetched to the root, from the source of the child, and kept over restarts.
func TestOriginsAreFetched(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
	b := &fake{t: t, name: "b",
		listed: []spec{{n: 2, origin: 12}, {n: 3, origin: 13}},
		hidden: []spec{{n: 12, state: "disabled", origin: 13}, {n: 13, origin: 14, state: "unactivated"}, {n: 14}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: x})
	refresh(t, c)
	wantShown(t, c, 1, 2, 3)
	check := func(c *Catalog) {
		t.Helper()
		for n, state := range map[int]string{12: "disabled", 13: "unactivated", 14: "active"} {
			if e := entry(t, c, n); e.Listed || e.Source != "b" || e.Manifest.State != state {
				t.Errorf("image %d: %+v", n, e)
			}
		}
	}
	check(c)
	refresh(t, c)
	for _, n := range []int{12, 13, 14} {
		if b.asked(n) != 1 || a.asked(n) != 0 {
			t.Errorf("image %d: asked b %d and a %d times", n, b.asked(n), a.asked(n))
		}
	}
	a.set(func(f *fake) { f.err = errDown })
	b.set(func(f *fake) { f.err = errDown })
	c = restarted(t, c, Options{Sources: sourcesOf(a, b), Index: x})
	check(c)
	if x.overlaps != 0 {
		t.Errorf("%d calls of the index while another was under way", x.overlaps)
	}
}

// An origin that the child's source lacks is taken from another one, in order; what a source does not have is
// remembered for an hour.
func TestOriginFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a"}
		b := &fake{t: t, name: "b", listed: []spec{{n: 2, origin: 12}, {n: 3, origin: 13}}}
		d := &fake{t: t, name: "d", hidden: []spec{{n: 12}}}
		log := new(lines)
		c := newCatalog(t, Options{Sources: sourcesOf(a, b, d), Logger: log.logger()})
		refresh(t, c)
		if e := entry(t, c, 12); e.Source != "d" {
			t.Errorf("%+v", e)
		}
		counts := func(want int) {
			t.Helper()
			for _, f := range []*fake{a, b, d} {
				if n := f.asked(13); n != want {
					t.Errorf("%s was asked %d times, want %d", f.name, n, want)
				}
			}
		}
		counts(1)
		time.Sleep(59 * time.Minute)
		refresh(t, c)
		counts(1)
		time.Sleep(time.Minute)
		refresh(t, c)
		counts(2)
		wantShown(t, c, 2, 3) // broken, but listed
		if n := log.count("chain of origins is broken", id(3).String(), "origin "+id(13).String()+" of image "+id(3).String()+" was not found"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if got := testutil.ToFloat64(c.metrics.broken); got != 1 {
			t.Errorf("%v broken chains", got)
		}
		d.set(func(f *fake) { f.hidden = append(f.hidden, spec{n: 13}) })
		time.Sleep(time.Hour)
		refresh(t, c)
		entry(t, c, 13)
		if got := testutil.ToFloat64(c.metrics.broken); got != 0 {
			t.Errorf("%v broken chains", got)
		}
	})
}

// Broken chains are hidden when that is wanted, and when they are known to be broken.
func TestHideBrokenChains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, origin: 12}, {n: 3, origin: 2}}}
		b := &fake{t: t, name: "b"}
		c := newCatalog(t, Options{Sources: sourcesOf(a, b), HideBrokenChains: true})
		later := func(change func(f *fake), want ...int) {
			t.Helper()
			b.set(change)
			time.Sleep(time.Hour)
			err := c.Refresh(t.Context())
			if (err != nil) != (b.err != nil) {
				t.Error(err)
			}
			wantShown(t, c, want...)
		}
		later(func(f *fake) { f.getErr = errDown }, 1, 2, 3)                                 // cannot tell
		later(func(f *fake) { f.getErr = fmt.Errorf("403: %w", fs.ErrPermission) }, 1, 2, 3) // refuses
		later(func(f *fake) { f.getErr = nil }, 1)                                           // known
		later(func(f *fake) { f.err = errDown }, 1)                                          // the last known state
		later(func(f *fake) { f.err = nil; f.hidden = []spec{{n: 12, private: true}} }, 1)   // nobody may have it
		later(func(f *fake) { f.hidden = nil; f.listed = []spec{{n: 12}} }, 1, 2, 3, 12)     // there it is
		later(func(f *fake) { f.listed = nil }, 1, 2, 3)                                     // an ancestor stays …
		entry(t, c, 12)
		later(func(f *fake) { f.listed = []spec{{n: 12, private: true}} }, 1) // … unless it has become private
		wantAbsent(t, c, 12)
	})
}

// A cycle and a chain of more than maxDepth origins are broken; one of maxDepth is not.
func TestEndlessChains(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 2}, {n: 2, origin: 3}, {n: 3, origin: 1}, {n: 4, origin: 4}, {n: 500}}}
	for n := 501; n <= 501+maxDepth; n++ {
		a.listed = append(a.listed, spec{n: n, origin: n - 1})
	}
	c := newCatalog(t, Options{Sources: sourcesOf(a), HideBrokenChains: true})
	refresh(t, c)
	if got := shown(c); len(got) != maxDepth+1 || got[0] != 500 || got[maxDepth] != 500+maxDepth {
		t.Errorf("listed: %v", got)
	}
	if n := testutil.ToFloat64(c.metrics.broken); n != 5 {
		t.Errorf("%v broken chains", n)
	}
	if len(a.gets) != 0 {
		t.Errorf("asked for %v", a.gets)
	}
}

// An endless chain that shows itself one origin at a time is followed maxDepth steps or so for each refresh, not forever.
func TestEndlessUnlistedChain(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 2}}}
	for n := 2; n < 2*maxDepth; n++ {
		a.hidden = append(a.hidden, spec{n: n, origin: n + 1})
	}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	if n := len(a.gets); n < maxDepth || n > maxDepth+10 {
		t.Errorf("asked for %d", n)
	}
	if n := testutil.ToFloat64(c.metrics.broken); n != 1 {
		t.Errorf("%v broken chains", n)
	}
	wantShown(t, c, 1)
}

// The source of a child is asked for the origin even if another source lists it: only if they agree the
// origin may come from there.
func TestOriginOfAnotherSourceMustAgree(t *testing.T) {
	other := strings.Repeat("c", 40)
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 11}, {n: 2, origin: 12}, {n: 3, origin: 13}},
		hidden: []spec{{n: 11}, {n: 12, sum: other}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 11}, {n: 12}, {n: 13}}}
	log := new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Logger: log.logger()})
	refresh(t, c)
	for n, want := range map[int]string{11: "a b", 12: "a", 13: "b"} {
		if e := entry(t, c, n); holders(e) != want {
			t.Errorf("image %d is held by %s, want %s", n, holders(e), want)
		}
		if a.asked(n) != 1 || b.asked(n) != 0 {
			t.Errorf("image %d: asked %d and %d times", n, a.asked(n), b.asked(n))
		}
	}
	if got := entry(t, c, 12).Manifest.Files[0].SHA1.String(); got != other {
		t.Errorf("image 12 has sum %s", got)
	}
	if log.count("different files", id(12).String()) != 1 {
		t.Error("the conflict is not logged")
	}
}

// A walk asks a source that refuses some of many origins for all of them, each once.
func TestWalkAsksOnce(t *testing.T) {
	a := &fake{t: t, name: "a", getErr: fmt.Errorf("403: %w", fs.ErrPermission)}
	for n := 1; n <= 200; n++ {
		a.listed = append(a.listed, spec{n: n, origin: n + 1000})
	}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	if n := len(a.gets); n != 200 {
		t.Errorf("asked %d times", n)
	}
}

// No more than 8 are asked at the same time, and a source that hangs is given up.
func TestWalkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a"}
		running, most := 0, 0
		a.gate = func(ctx context.Context) error {
			a.mu.Lock()
			running++
			most = max(most, running)
			a.mu.Unlock()
			time.Sleep(time.Second)
			a.mu.Lock()
			running--
			a.mu.Unlock()
			return nil
		}
		for n := 1; n <= 80; n++ {
			a.listed = append(a.listed, spec{n: n, origin: n + 1000})
			a.hidden = append(a.hidden, spec{n: n + 1000})
		}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		start := time.Now()
		refresh(t, c)
		if d := time.Since(start); d != 10*time.Second || most != 8 {
			t.Errorf("took %v, at most %d at a time", d, most)
		}
		entry(t, c, 1080)

		a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 100, origin: 1100}); f.gate = hang })
		start = time.Now()
		refresh(t, c)
		if d := time.Since(start); d != askDeadline {
			t.Errorf("took %v", d)
		}
	})
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// An image that leaves its list while others are built on it stays reachable; one that nobody needs goes.
func TestVanished(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, origin: 1}, {n: 3, origin: 2}, {n: 4}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 5, origin: 3}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: x})
	refresh(t, c)
	a.set(func(f *fake) { f.listed = []spec{} })
	refresh(t, c)
	check := func() {
		t.Helper()
		wantShown(t, c, 5)
		for _, n := range []int{1, 2, 3} {
			if e := entry(t, c, n); e.Listed {
				t.Errorf("image %d is listed", n)
			}
		}
		wantAbsent(t, c, 4)
	}
	check()
	c = restarted(t, c, Options{Sources: sourcesOf(a, b), Index: x})
	check()

	b.set(func(f *fake) { f.listed = []spec{} })
	refresh(t, c)
	if got := shown(c); len(got) != 0 {
		t.Errorf("listed: %v", got)
	}
}

// Unlisted manifests are asked for again once a day: they follow their source, and go when it drops them and
// no image is built on them.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 11}}, hidden: []spec{{n: 11}, {n: 12}, {n: 13}}}
		x := new(memory)
		c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
		refresh(t, c)
		for _, n := range []int{12, 13} {
			if _, err := c.Get(t.Context(), id(n)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(23 * time.Hour)
		refresh(t, c)
		if n := len(a.gets); n != 3 {
			t.Errorf("asked %d times", n)
		}
		a.set(func(f *fake) { f.hidden = []spec{{n: 13, state: "disabled"}}; f.getErr = errDown })
		time.Sleep(time.Hour)
		refresh(t, c)
		for _, n := range []int{11, 12, 13} { // cannot tell: nothing changes
			entry(t, c, n)
		}
		a.set(func(f *fake) { f.getErr = nil })
		refresh(t, c)
		entry(t, c, 11) // gone there, but needed here
		wantAbsent(t, c, 12)
		if e := entry(t, c, 13); e.Manifest.State != "disabled" {
			t.Errorf("%+v", e)
		}
		asked := len(a.gets)
		refresh(t, c)
		if n := len(a.gets) - asked; n != 0 {
			t.Errorf("asked %d times more", n)
		}
		var saved []int
		for _, m := range x.saved("a").Unlisted {
			saved = append(saved, number(m.UUID))
		}
		slices.Sort(saved)
		if !slices.Equal(saved, []int{11, 13}) {
			t.Errorf("saved: %v", saved)
		}

		a.set(func(f *fake) { f.hidden = []spec{{n: 11, private: true}} })
		time.Sleep(24 * time.Hour)
		refresh(t, c)
		wantAbsent(t, c, 11)
	})
}
