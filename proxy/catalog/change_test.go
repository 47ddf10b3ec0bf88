package catalog

import (
	"testing"
)

// Check tells what a list has more, less and otherwise, in any order.
func TestCheckTellsChange(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}, {n: 3}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	f := func(want Change, listed ...spec) {
		t.Helper()
		a.set(func(f *fake) { f.listed = listed })
		if got, err := c.Check(t.Context(), "a"); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	f(Change{Added: 3}, spec{n: 1}, spec{n: 2}, spec{n: 3})
	f(Change{}, spec{n: 3}, spec{n: 1}, spec{n: 2})
	f(Change{Added: 1, Removed: 2, Changed: 1}, spec{n: 4}, spec{n: 2, state: "disabled"})
	f(Change{Removed: 2})
	a.set(func(f *fake) { f.err = errDown })
	if got, err := c.Check(t.Context(), "a"); err == nil || got != (Change{}) {
		t.Errorf("of a source that fails: %+v, %v", got, err)
	}
	if _, err := c.Check(t.Context(), "b"); err == nil {
		t.Error("a source that does not exist was asked")
	}
}
