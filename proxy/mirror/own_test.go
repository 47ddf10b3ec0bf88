package mirror

import (
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"imgmirror/proxy/own"
)

// Files and records are backup enough: in a new data folder the images are what they were, and kept.
func TestRestore(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	file := gzipped(t, 1000)
	publish(t, m, ownManifest(file), file)
	fetchSample(t, m, sampleBase)
	image, err := m.store.Manifest(sampleBase)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.imported.Add(image, own.Provenance{Bundle: "b", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	stop()

	backup := o.Cache.Dir
	o = testOptions(t)
	for _, folder := range []string{"files", "published", "imported"} {
		copyFolder(t, filepath.Join(o.Cache.Dir, folder), filepath.Join(backup, folder))
	}
	m, _ = runMirror(t, o)
	for _, name := range []string{own.Published, own.Imported} { // a start does so by and by
		if _, err := m.Check(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	publishes(t, m, o, ownImage)
	for len(m.store.Files()) < 2 { // until the files are checked and taken in
		runtime.Gosched()
	}
	m.store.SetLimits(1, 0)
	if gone, err := m.Vacuum(t.Context(), false); err != nil || len(gone) != 0 {
		t.Errorf("evicted: %+v, %v", gone, err)
	}
	if held := m.Holdings(nil); len(held) != 2 {
		t.Errorf("on disk are %+v", held)
	}
}
