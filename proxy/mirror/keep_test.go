package mirror

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/verify"
)

func TestPinsByFilter(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	o.Rules.Pins = filters(t, "name=sample-app", "uuid="+sampleWeb.String())
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleApp)
	fetchSample(t, m, sampleBase)
	kept := func(app, web, base bool) {
		t.Helper()
		if m.store.Kept(sampleApp) != app || m.store.Kept(sampleWeb) != web || m.store.Kept(sampleBase) != base {
			t.Errorf("kept: app %v, web %v, base %v", m.store.Kept(sampleApp), m.store.Kept(sampleWeb), m.store.Kept(sampleBase))
		}
	}
	kept(true, true, false)
	if _, err := m.store.Remove(t.Context(), sumOf(t, m, sampleApp)); !errors.Is(err, cache.ErrPinned) {
		t.Errorf("Remove of a pinned image's file: %v", err)
	}

	// A reload changes them.
	adjust(m, func(r *Rules) { r.Pins = nil })
	kept(false, false, false)
	stop()

	// An image that no source has any more is told by what was stored with it.
	o.Sources = Sources{}
	m, _ = runMirror(t, o)
	if !m.store.Kept(sampleApp) {
		t.Error("a pinned image that has left its source is not kept")
	}
	if m.store.Kept(sampleBase) {
		t.Error("one that no filter names is kept")
	}
	// Of an image that nothing is known of, no filter can tell: it is not given up.
	if !m.store.Kept(uuid.UUID{1}) {
		t.Error("an image of which nothing is known is given up, with pins by filter")
	}
}

func TestHeal(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, _ := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	sum := sumOf(t, m, sampleBase)
	path := pathOf(o, sum)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	result, err := m.store.Check(t.Context(), sum, nil)
	if result != cache.CheckHealed || err != nil {
		t.Errorf("Check = %q, %v", result, err)
	}
	if !cached(t, m, sampleBase) {
		t.Error("the healed file is not there")
	}
	if err := m.heal(t.Context(), verify.Sum{1}, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("heal of a file of nobody's: %v", err)
	}
}

// After a loss of the index a check meets also the files that have no record yet, and gives them one.
func TestCheckWithoutIndex(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	sum := sumOf(t, m, sampleBase)
	stop()
	if err := os.RemoveAll(filepath.Join(o.Cache.Dir, "index")); err != nil {
		t.Fatal(err)
	}
	o.Registry = nil
	m, err := New(t.Context(), o) // Run, which takes the files in, comes later
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := len(m.Holdings(nil)); n != 0 {
		t.Fatalf("%d files with a record", n)
	}
	for _, w := range []Wanted{{}, {UUIDs: []uuid.UUID{sampleBase}}} {
		held, err := m.Held(t.Context(), w)
		if err != nil || len(held) != 1 || held[0].ID != sampleBase || held[0].File.Sum != sum || held[0].File.Size == 0 {
			t.Errorf("%v, %v", held, err)
		}
	}
	if result, err := m.Verify(t.Context(), sum, nil); result != cache.CheckOK || err != nil {
		t.Errorf("%s, %v", result, err)
	}
	if held := m.Holdings(nil); len(held) != 1 || held[0].ID != sampleBase {
		t.Errorf("after the check: %v", held)
	}
}
