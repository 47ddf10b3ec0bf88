package mirror

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/own"
)

// TestKeepsImported: an imported image is kept as long as nobody else has it; when
// it is evicted although, it is imported no more.
func TestKeepsImported(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	add := func() {
		t.Helper()
		image, err := m.store.Manifest(sampleBase)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.imported.Add(image, own.Provenance{Bundle: "b", Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := m.retake(t.Context(), own.Imported); err != nil {
			t.Fatal(err)
		}
	}
	add()
	if entry, _ := m.Current().Entry(sampleBase); len(entry.Holders) != 2 || entry.Source != "samples" {
		t.Errorf("of %s, and %d have it; a configured source goes first", entry.Source, len(entry.Holders))
	}
	if m.store.Kept(sampleBase) {
		t.Error("kept although its source has it")
	}
	m.store.SetLimits(1, 0)
	if _, err := m.store.Vacuum(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Provenance(sampleBase); ok {
		t.Error("imported although its file is gone")
	}
	if entry, ok := m.Current().Entry(sampleBase); !ok || len(entry.Holders) != 1 {
		t.Errorf("%d have it after the eviction", len(entry.Holders))
	}
	m.store.SetLimits(0, 0)
	fetchSample(t, m, sampleBase)
	add()
	stop()

	o.Sources = Sources{}
	m, _ = runMirror(t, o)
	if !m.store.Kept(sampleBase) {
		t.Error("not kept although nobody else has it")
	}
	done := m.imported.Expect(sampleApp)
	if !m.store.Kept(sampleApp) {
		t.Error("not kept while it is being imported")
	}
	done()
}

// An imported image whose file is lost has nothing to remove: Delete gives up the image, and no file
// of another image goes, whether Delete is told of others or not.
func TestDeleteLostImport(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	for _, id := range []uuid.UUID{sampleBase, sampleWeb, samplePlain} {
		fetchSample(t, m, id)
	}
	sum := sumOf(t, m, sampleBase)
	image, err := m.store.Manifest(sampleBase)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.imported.Add(image, own.Provenance{Bundle: "b", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := m.retake(t.Context(), own.Imported); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.Remove(pathOf(o, sum)); err != nil {
		t.Fatal(err)
	}
	o.Sources = Sources{}
	m, _ = runMirror(t, o)
	if !listed(m)[sampleBase] || len(m.Holdings(nil)) != 2 {
		t.Fatalf("listed are %v, on disk %+v", listed(m), m.Holdings(nil))
	}

	lost := Wanted{UUIDs: []uuid.UUID{sampleBase}}
	if gone, err := m.Delete(t.Context(), lost, true); err != nil || len(gone) != 0 || !listed(m)[sampleBase] {
		t.Errorf("dry run: %+v, %v; listed are %v", gone, err, listed(m))
	}
	if gone, err := m.Delete(t.Context(), lost, false); err != nil || len(gone) != 0 {
		t.Errorf("removed: %+v, %v", gone, err)
	}
	if _, ok := m.Provenance(sampleBase); ok || listed(m)[sampleBase] {
		t.Errorf("the image is imported: %t; listed are %v", ok, listed(m))
	}
	if held := m.Holdings(nil); len(held) != 2 {
		t.Errorf("on disk are %+v", held)
	}
	if _, err := m.Delete(t.Context(), lost, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image of which nothing is left: %v", err)
	}
}
