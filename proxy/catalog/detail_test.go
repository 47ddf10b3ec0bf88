package catalog

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// What a list does not tell of an image is asked for by uuid, once, and kept over refreshes and restarts, until the list
// tells something else of it.
func TestDetail(t *testing.T) {
	a := &fake{t: t, name: "a", head: heads(map[int]string{3: gzipHead})}
	a.listed = []spec{{n: 1}, {n: 2, noFiles: true}, {n: 3, noFiles: true}, {n: 4, noFiles: true, state: "creating"}, {n: 5, noFiles: true}, {n: 6, noFiles: true}}
	a.told = []spec{{n: 2, origin: 9}, {n: 3, size: -1, undated: true}, {n: 5, state: "disabled"}, {n: 6, private: true}}
	a.hidden = []spec{{n: 9}}
	x := new(memory)
	asked := func(want string) {
		t.Helper()
		var got []string
		for n := range 10 {
			if times := a.asked(n); times > 0 {
				got = append(got, fmt.Sprintf("%d:%d", n, times))
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("asked for by uuid, and how often: %s, want %s", got, want)
		}
	}
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	check := func() {
		t.Helper()
		wantListed(t, c, 1, 2, 3)
		if m := entry(t, c, 2).Manifest; m.Origin != id(9) || len(m.Files) != 1 {
			t.Errorf("image 2: %s", m.V2())
		}
		if m := entry(t, c, 3).Manifest; m.Files[0].Size != 1003 || m.Published.Second() != 3 {
			t.Errorf("image 3: %s", m.V2())
		}
		if got, want := c.Status()[0].Hidden, map[string]int{ReasonCreating: 1, ReasonDisabled: 1, ReasonPrivate: 1}; !maps.Equal(got, want) {
			t.Errorf("hidden are %v, want %v", got, want)
		}
		if got := c.Status()[0].Images; got != 6 {
			t.Errorf("%d images, want 6", got)
		}
	}
	refresh(t, c)
	check()
	if e, ok := c.Current().Entry(id(6)); ok {
		t.Errorf("a private image is served: %s", e.Manifest.V2())
	}
	refresh(t, c)
	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 7, state: "disabled"}) })
	refresh(t, c)
	a.set(func(f *fake) { f.listed = f.listed[:6] })
	refresh(t, c)
	check()
	asked("2:1 3:1 5:1 6:1 9:1")

	a.set(func(f *fake) { f.err = errDown })
	c = restarted(t, c, Options{Sources: sourcesOf(a), Index: x})
	check()
	a.set(func(f *fake) { f.err = nil })
	refresh(t, c)
	check()
	asked("2:1 3:1 5:1 6:1 9:1")

	// Another entry is another question.
	a.set(func(f *fake) { f.listed[1].name, f.told[0].name = "renamed", "renamed" })
	refresh(t, c)
	if m := entry(t, c, 2).Manifest; m.Name != "renamed" {
		t.Errorf("image 2: %s", m.V2())
	}
	asked("2:2 3:1 5:1 6:1 9:1")
	a.set(func(f *fake) { f.listed = f.listed[:1] })
	refresh(t, c)
	wantListed(t, c, 1)
	if got := c.Hidden(id(2)); len(got) > 0 {
		t.Errorf("what has left the list is still known: %v", got)
	}
}

// An image of which its source tells no more by uuid either is not asked for at each refresh, and why it is not listed is
// said; a source that could not be asked is asked again.
func TestDetailInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2, noFiles: true}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		refresh(t, c)
		refresh(t, c)
		if got := hiddenWhy(c, 2); got != "no_files: its manifest names no file (source a tells none by uuid either)" {
			t.Errorf("image 2 is hidden for %q", got)
		}
		if got := a.asked(2); got != 1 {
			t.Errorf("asked %d times, want 1", got)
		}
		time.Sleep(lookMemory)
		a.set(func(f *fake) { f.getErr = errDown })
		refresh(t, c)
		if _, err := c.Get(t.Context(), id(2)); !errors.Is(err, verify.ErrUnavailable) { // which is not that it has no files
			t.Errorf("by uuid, while the source cannot tell: %v", err)
		}
		time.Sleep(unsureLook)
		a.set(func(f *fake) { f.getErr, f.told = nil, []spec{{n: 2}} })
		if e, err := c.Get(t.Context(), id(2)); err != nil || len(e.Manifest.Files) != 1 { // whoever asks need not wait for a refresh
			t.Errorf("by uuid: %v, %s", err, e.Manifest.V2())
		}
		wantListed(t, c, 1, 2)
		if got := a.asked(2); got != 3 {
			t.Errorf("asked %d times, want 3", got)
		}
	})
}

// An entry that tells nothing of files does not hide what another source tells.
func TestDetailOfAnotherSource(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, noFiles: true}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 1}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a, b)})
	refresh(t, c)
	wantListed(t, c, 1)
	if e := entry(t, c, 1); e.Source != "b" {
		t.Errorf("served by %s", e.Source)
	}
}
