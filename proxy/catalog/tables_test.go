package catalog

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog/browse"
)

// rowsOf is a table as text: "image source reason", a line for each row.
func rowsOf(t *browse.Table) string {
	var all []string
	for i := range t.Len() {
		r := t.Row(i)
		all = append(all, strings.TrimSpace(fmt.Sprintf("%d %s %s", r.Image.UUID[15], r.Source, r.Reason)))
	}
	return strings.Join(all, "\n")
}

func TestTable(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 2}, {n: 1}, {n: 4, state: "disabled"}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 1}, {n: 3}}, hidden: []spec{{n: 5}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a, b)})
	refresh(t, c)
	table := c.Current().Table()
	if got, want := rowsOf(table), "1 a\n2 a\n3 b"; got != want {
		t.Errorf("rows\n%s\nwant\n%s", got, want)
	}
	if _, err := c.Get(t.Context(), id(5)); err != nil {
		t.Fatal(err)
	}
	if c.Current().Table() != table {
		t.Error("an image that no list shows made the table anew")
	}
	a.set(func(a *fake) { a.listed = a.listed[1:] })
	refresh(t, c)
	if got, want := rowsOf(c.Current().Table()), "1 a\n3 b"; got != want {
		t.Errorf("rows\n%s\nwant\n%s", got, want)
	}
}

// TestHiddenTable: a row for each image that a source has and that is not shown, and each row tells why.
func TestHiddenTable(t *testing.T) {
	only, err := manifest.ParseFilter("name!=image9")
	if err != nil {
		t.Fatal(err)
	}
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, state: "disabled"}, {n: 6, private: true}, {n: 9}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 1, sum: strings.Repeat("f", 40)}, {n: 2}, {n: 11}}, hidden: []spec{{n: 12}}}
	b.refused = refusals(t, `{"v":2,"uuid":"`+id(20).String()+`","name":"x","version":true,"type":"zvol","os":"smartos"}`)
	sources := sourcesOf(a, b)
	sources[0].Include = []manifest.Filter{only}
	c := newCatalog(t, Options{Sources: sources})
	refresh(t, c)
	if _, err := c.Get(t.Context(), id(12)); err != nil {
		t.Fatal(err)
	}
	table := c.HiddenTable()
	// The refused image has no date.
	want := "20 b refused\n1 b conflict\n2 a disabled\n2 b disabled\n6 a private\n9 a filtered\n12 b unlisted"
	if got := rowsOf(table.Table); got != want {
		t.Fatalf("rows\n%s\nwant\n%s", got, want)
	}
	for i := range table.Len() {
		h := table.Why(i)
		if row := table.Row(i); h.Source != row.Source || h.Reason != row.Reason || h.Detail == "" {
			t.Errorf("row %d, %+v: %+v", i, row, h)
		}
	}
	if h := table.Why(0); !strings.Contains(h.Detail, "version") {
		t.Errorf("the refused image: %q", h.Detail)
	}
	if c.HiddenTable() != table {
		t.Error("the table was made anew for the same list")
	}
	a.set(func(a *fake) { a.listed = a.listed[2:] })
	refresh(t, c)
	if got, want := rowsOf(c.HiddenTable().Table), "20 b refused\n6 a private\n9 a filtered\n12 b unlisted"; got != want {
		t.Errorf("rows\n%s\nwant\n%s", got, want)
	}
}

// A table of hidden images keeps no list in memory that is not served any more.
func TestHiddenTableGoesWithItsList(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, state: "disabled"}, {n: 2}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	c.HiddenTable()
	if c.hidden.Load() == nil {
		t.Fatal("the table is not kept")
	}
	a.set(func(a *fake) { a.listed = append(a.listed, spec{n: 3}) })
	refresh(t, c)
	if c.hidden.Load() != nil {
		t.Error("the table outlives its list")
	}
	c.HiddenTable()
	c.shareTexts()
	if c.hidden.Load() != nil {
		t.Error("the table keeps the texts of a source's former list")
	}
}

func TestOffers(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 3, size: -1}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 1, sum: strings.Repeat("f", 40), size: 7}, {n: 3}}}
	d := &fake{t: t, name: "d", listed: []spec{{n: 1}}, hidden: []spec{{n: 5}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a, b, d)})
	refresh(t, c)
	if _, err := c.Get(t.Context(), id(5)); err != nil {
		t.Fatal(err)
	}
	facts := manifest.Facts{Size: 1003}
	facts.SHA1[len(facts.SHA1)-1] = 3
	c.Learn(manifest.FileID{Image: id(3)}, facts)
	f := func(n int, want string) {
		t.Helper()
		var all []string
		for _, o := range c.Offers(id(n)) {
			file := o.Manifest.Files[0]
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %d %v %v %s", o.Source, file.SHA1.String()[:2], file.Size, o.Listed, o.Holds, o.Hidden.Reason)))
		}
		if got := strings.Join(all, "\n"); got != want {
			t.Errorf("offers of %d:\n%s\nwant\n%s", n, got, want)
		}
	}
	f(1, "a 00 1001 true true\nb ff 7 true false conflict\nd 00 1001 true true")
	f(3, "a 00 1003 true true\nb 00 1003 true true")
	f(5, "d 00 1005 false true unlisted")
	f(7, "")
}

// Tables are made for whoever asks while lists change.
func TestTablesWhileListsChange(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, state: "disabled"}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	over := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				listed, hidden := c.Current().Table().Len(), c.HiddenTable().Len()
				if listed == 0 || hidden != 1 || len(c.Offers(id(2))) != 1 {
					t.Errorf("%d listed images, %d hidden ones", listed, hidden)
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	for n := range 50 {
		a.set(func(a *fake) { a.listed = append(slices.Clip(a.listed), spec{n: 3 + n}) })
		refresh(t, c)
		c.shareTexts()
	}
	close(over)
	readers.Wait()
	if n := c.Current().Table().Len(); n != 51 {
		t.Errorf("%d rows", n)
	}
}

// A new list comes with its tables while people look at tables, and without them an hour later.
func TestTablesAheadOfNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, state: "disabled"}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		defer run(t, c)()
		synctest.Wait()
		next := func(n int) (made bool) {
			a.set(func(a *fake) { a.listed = append(slices.Clip(a.listed), spec{n: n}) })
			refresh(t, c)
			synctest.Wait()
			return c.hidden.Load() != nil
		}
		if next(3) {
			t.Error("tables are made without a question for one")
		}
		c.Current().Table()
		if !next(4) || !next(5) {
			t.Error("the list has changed, and the next query has to make the tables")
		}
		if rows := c.Current().Table().Len(); rows != 4 {
			t.Errorf("%d rows", rows)
		}
		time.Sleep(browseMemory)
		if next(6) {
			t.Error("tables are made an hour after the last question")
		}
	})
}

// A new list comes with the encodings that clients have asked for within an hour, and with no others. A validator
// alone makes no encoding.
func TestEncodingsAheadOfNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1, in: []string{"release"}}, {n: 2, in: []string{"dev"}}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a), Channels: twoChannels})
		defer run(t, c)()
		synctest.Wait()
		view := func() *View {
			v, ok := c.Current().View(c.Current().DefaultChannel())
			if !ok {
				t.Fatal("there is no default view")
			}
			return v
		}
		n := 2
		next := func() string {
			n++
			a.set(func(a *fake) { a.listed = append(slices.Clip(a.listed), spec{n: n, in: []string{"release"}}) })
			refresh(t, c)
			synctest.Wait()
			var made []string
			for _, named := range []bool{false, true} {
				for e, name := range []string{"", "gzip", "zstd"} {
					if Encoding(e) != Identity && view().body(named).replies[e].Body != nil {
						made = append(made, fmt.Sprintf("%s %v", name, named))
					}
				}
			}
			return strings.Join(made, ", ")
		}
		if made := next(); made != "" {
			t.Errorf("made without demand: %s", made)
		}
		tag := view().ETag(false, Gzip)
		if view().body(false).replies[Gzip].Body != nil {
			t.Error("a validator has the list compressed")
		}
		if view().Reply(false, Gzip).ETag != tag || view().Reply(true, Zstd).ETag == view().ETag(true, Identity) {
			t.Error("validators differ from those of their replies")
		}
		view().Reply(false, Identity)
		for range 2 {
			if made := next(); made != "gzip false, zstd true" {
				t.Errorf("made ahead: %q", made)
			}
		}
		if got := view().Reply(false, Gzip).Body; !bytes.Equal(gunzip(t, got), view().body(false).json) {
			t.Errorf("%d bytes of another list", len(got))
		}
		time.Sleep(demandMemory / 2)
		view().ETag(false, Gzip) // of a client that has the list
		next()
		time.Sleep(demandMemory/2 + 1)
		if made := next(); made != "gzip false" {
			t.Errorf("made an hour after the last question for zstd: %q", made)
		}
		time.Sleep(demandMemory)
		if made := next(); made != "" {
			t.Errorf("made an hour after the last question: %s", made)
		}
	})
}

func gunzip(t *testing.T, text []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}
