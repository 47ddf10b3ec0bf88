package catalog

import (
	"fmt"
	"strings"
	"testing"

	"imgmirror/manifest"
)

// hiddenAt is Status().Hidden of one source, as text.
func hiddenAt(t testing.TB, c *Catalog, source string) string {
	t.Helper()
	for _, s := range c.Status() {
		if s.Name == source {
			return fmt.Sprint(s.Hidden) // fmt sorts the keys
		}
	}
	t.Fatalf("no source %q", source)
	return ""
}

// why is Hidden of image n as text: "source: reason, …".
func why(c *Catalog, n int) string {
	var all []string
	for _, h := range c.Hidden(id(n)) {
		if h.Detail == "" {
			h.Reason += " without a detail"
		}
		all = append(all, h.Source+": "+h.Reason)
	}
	return strings.Join(all, ", ")
}

// refusals are of the texts, as ingestion says them.
func refusals(t testing.TB, texts ...string) []error {
	t.Helper()
	var all []error
	for _, text := range texts {
		_, err := manifest.Parse([]byte(text), manifest.ParseOptions{})
		if err == nil {
			t.Fatalf("%s is taken", text)
		}
		all = append(all, err)
	}
	return all
}

// TestHidden: whatever a source offers and clients are not shown is counted by reason, and explained by uuid.
func TestHidden(t *testing.T) {
	only, err := manifest.ParseFilter("name!=image9")
	if err != nil {
		t.Fatal(err)
	}
	first := &fake{t: t, name: "first", listed: []spec{
		{n: 1}, {n: 2, state: "disabled"}, {n: 3, state: "unactivated"}, {n: 4, state: "creating"}, {n: 5, state: "failed"},
		{n: 6, private: true}, {n: 7, acl: id(100).String(), private: true}, {n: 8, noFiles: true}, {n: 9}, {n: 10, origin: 99},
	}}
	second := &fake{t: t, name: "second", listed: []spec{{n: 1, sum: strings.Repeat("f", 40)}, {n: 2}, {n: 11}}, hidden: []spec{{n: 12, state: "disabled"}, {n: 13}}}
	second.refused = refusals(t, `{"v":2,"uuid":"`+id(20).String()+`","name":"x","version":true,"type":"zvol","os":"smartos"}`,
		`{"v":2,"name":"no uuid"}`, `{"uuid":"`+id(21).String()+`","name":"x","version":"1","type":"vmimage","os":"smartos"}`)
	sources := sourcesOf(first, second)
	sources[0].Include = []manifest.Filter{only}
	c := newCatalog(t, Options{Sources: sources, HideBrokenChains: true})
	refresh(t, c)
	for _, n := range []int{12, 13} {
		if _, err := c.Get(t.Context(), id(n)); err != nil {
			t.Fatal(err)
		}
	}

	wantShown(t, c, 1, 11)
	if got, want := hiddenAt(t, c, "first"),
		"map[broken_chain:1 creating:1 disabled:1 failed:1 filtered:1 no_files:1 private:2 unactivated:1]"; got != want {
		t.Errorf("first hides %s, want %s", got, want)
	}
	if got, want := hiddenAt(t, c, "second"), "map[conflict:1 disabled:1 refused:2 skipped:1]"; got != want {
		t.Errorf("second hides %s, want %s", got, want)
	}
	for n, want := range map[int]string{
		1: "", 2: "first: disabled, second: disabled", 3: "first: unactivated", 6: "first: private", 8: "first: no_files", 9: "first: filtered",
		10: "first: broken_chain", 11: "", 12: "second: disabled", 13: "second: unlisted", 20: "second: refused", 21: "second: skipped", 30: "",
	} {
		if got := why(c, n); got != want {
			t.Errorf("image %d: %q, want %q", n, got, want)
		}
	}
	if h := c.Hidden(id(20)); len(h) != 1 || !strings.Contains(h[0].Detail, "version") {
		t.Errorf("the refused image: %+v, want the field that is wrong", h)
	}
}

// TestHiddenByChannelAndAge: images in no channel, and retired ones that are hidden, have their reasons too.
func TestHiddenByChannelAndAge(t *testing.T) {
	f := &fake{t: t, name: "source", listed: []spec{{n: 1, in: []string{"dev"}}, {n: 2, in: []string{"elsewhere"}}, {n: 3, in: []string{"dev"}}}}
	c := newCatalog(t, Options{
		Sources: sourcesOf(f), Channels: []Channel{{Name: "dev"}}, HideRetired: true,
		Cached: func(manifest.Manifest) bool { return true },
	})
	refresh(t, c)
	f.set(func(f *fake) { f.listed = f.listed[:2] })
	refresh(t, c)
	if got, want := hiddenAt(t, c, "source"), "map[no_channel:1]"; got != want {
		t.Errorf("hidden: %s, want %s", got, want)
	}
	for n, want := range map[int]string{1: "", 2: "source: no_channel", 3: "source: retired"} {
		if got := why(c, n); got != want {
			t.Errorf("image %d: %q, want %q", n, got, want)
		}
	}
}

// TestRefusalsLast: refusals are told again after a restart, also when the images of the list stayed the same; the
// count is exact, what is kept of them is bounded.
func TestRefusalsLast(t *testing.T) {
	index := &memory{}
	f := &fake{t: t, name: "source", listed: []spec{{n: 1}}}
	c := newCatalog(t, Options{Sources: sourcesOf(f), Index: index})
	refresh(t, c)
	f.set(func(f *fake) {
		for n := range 5000 {
			f.refused = append(f.refused, refusals(t, fmt.Sprintf(`{"uuid":%q}`, id(100+n)))...)
		}
	})
	refresh(t, c)
	for range 2 {
		if got, want := hiddenAt(t, c, "source"), "map[refused:5000]"; got != want {
			t.Errorf("hidden: %s, want %s", got, want)
		}
		if got, want := why(c, 100), "source: refused"; got != want {
			t.Errorf("the first: %q, want %q", got, want)
		}
		c = restarted(t, c, Options{Sources: sourcesOf(f), Index: index, Offline: true})
	}
	if kept := len(index.saved("source").Refusals.First); kept > 100 {
		t.Errorf("%d refusals are kept", kept)
	}
	c = restarted(t, c, Options{Sources: sourcesOf(f), Index: index})
	f.set(func(f *fake) { f.refused = nil })
	refresh(t, c)
	if got, want := hiddenAt(t, c, "source"), "map[]"; got != want {
		t.Errorf("hidden when nothing is: %s, want %s", got, want)
	}
	if got := why(c, 100); got != "" {
		t.Errorf("no more refused: %q", got)
	}
}
