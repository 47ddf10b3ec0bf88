package catalog

import (
	"testing"
	"time"
)

// TestDatesAreKept: an image whose source gives no date keeps the one of the first answer that it came in, over later
// answers and restarts, and with it the list its ETag; other files under its uuid are another image.
func TestDatesAreKept(t *testing.T) {
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	index := &memory{}
	f := &fake{t: t, name: "source", answered: day, listed: []spec{{n: 1, undated: true}, {n: 2}}, hidden: []spec{{n: 3, undated: true}}}
	c := newCatalog(t, Options{Sources: sourcesOf(f), Index: index})
	refresh(t, c)
	if _, err := c.Get(t.Context(), id(3)); err != nil {
		t.Fatal(err)
	}
	check := func(when string, n int, want time.Time) {
		t.Helper()
		if e := entry(t, c, n); !e.Manifest.Published.Equal(want) {
			t.Errorf("%s: image %d is of %v, want %v", when, n, e.Manifest.Published, want)
		}
	}
	_, etag := whole(c.Current()).JSON(false)
	saves := index.saves
	same := func(when string) {
		t.Helper()
		check(when, 1, day)
		check(when, 3, day)
		if _, now := whole(c.Current()).JSON(false); now != etag {
			t.Errorf("%s: the list has another ETag", when)
		}
	}
	same("at first")
	f.set(func(f *fake) { f.answered = day.AddDate(0, 1, 0) })
	refresh(t, c)
	same("after a refresh")
	if index.saves != saves {
		t.Error("the same list was saved again")
	}
	f.set(func(f *fake) { f.answered = time.Time{} })
	refresh(t, c)
	same("when an answer has no date")
	c = restarted(t, c, Options{Sources: sourcesOf(f), Index: index})
	same("after a restart")
	f.set(func(f *fake) { f.answered = day.AddDate(0, 2, 0) })
	refresh(t, c)
	same("after a restart and a refresh")
	a := c.ask(t.Context(), c.sources[0], id(3))
	if a.err != nil || !a.manifest.Published.Equal(day) {
		t.Errorf("asked again: %v, %v", a.manifest.Published, a.err)
	}

	f.set(func(f *fake) {
		f.listed = []spec{{n: 1, undated: true, sum: "0123456789012345678901234567890123456789"}}
	})
	refresh(t, c)
	check("another file", 1, f.answered)
}
