package catalog

import (
	"testing"
	"testing/synctest"
	"time"
)

// A process that ends soon goes by the saved lists while they are young, and by
// those only that are of the same server.
func TestRefreshDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 2, origin: 1}}, hidden: []spec{{n: 1}}}
		own := &fake{t: t, name: "own", listed: []spec{{n: 3}}}
		index := new(memory)
		url := "http://a"
		due := func() *Catalog {
			t.Helper()
			c := newCatalog(t, Options{Index: index, Sources: []SourceOptions{
				{Source: a, URL: url, Refresh: 30 * time.Minute}, {Source: own, Refresh: 24 * time.Hour, Withdraws: true},
			}})
			if err := c.RefreshDue(t.Context()); err != nil {
				t.Fatal(err)
			}
			return c
		}
		wantLists := func(when string, want int) {
			t.Helper()
			if got := len(a.lists); got != want {
				t.Errorf("%s: asked for %d lists, want %d", when, got, want)
			}
		}
		c := due()
		wantLists("at first", 1)
		entry(t, c, 1)
		gets := len(a.gets)
		a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 4}) })
		own.set(func(f *fake) { f.listed = append(f.listed, spec{n: 5}) })
		time.Sleep(29 * time.Minute)
		c = due()
		wantLists("before the interval is over", 1)
		if len(a.gets) != gets {
			t.Error("its source was asked for images")
		}
		entry(t, c, 1)
		entry(t, c, 5) // of one that costs nothing to ask
		wantAbsent(t, c, 4)

		time.Sleep(time.Minute)
		entry(t, due(), 4)
		wantLists("afterwards", 2)
		time.Sleep(20 * time.Minute)
		due()
		wantLists("young again", 2)
		url = "http://other"
		due()
		wantLists("another server of that name", 3)

		// The same list again counts as young from then on, also in the next process.
		for want := 4; want < 6; want++ {
			time.Sleep(30 * time.Minute)
			due()
			due()
			wantLists("confirmed", want)
		}
		saved := index.saved("a").Fetched
		if age := time.Since(saved); age != 0 {
			t.Errorf("what is saved is of %s ago", age)
		}
	})
}
