package mirror

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/verify"
)

var ownImage = uuid.MustParse("0e1f2a3b-4c5d-4e6f-8a7b-9c0d1e2f3a4b")

// ownManifest is a manifest for an image of the mirror's own with that file.
func ownManifest(file []byte) []byte {
	return fmt.Appendf(nil, `{"v":2,"uuid":"%s","owner":"00000000-0000-0000-0000-000000000000","name":"mine","version":"1.0.0",`+
		`"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z","type":"zone-dataset","os":"smartos",`+
		`"files":[{"sha1":"%x","size":%d,"compression":"gzip"}]}`, ownImage, sha1.Sum(file), len(file))
}

// owners are the images of the file on disk.
func owners(m *Mirror, sum verify.Sum) (ids []uuid.UUID) {
	for _, f := range m.store.Files() {
		if f.Sum == sum {
			ids = f.Images
		}
	}
	return ids
}

// copied tells whether DATA/manifests has a copy for the image.
func copied(o Options, id uuid.UUID) bool {
	_, err := os.Stat(filepath.Join(o.Cache.Dir, "manifests", id.String()+".json"))
	return err == nil
}

// A publishing that is refused leaves no trace of its image, also where the file
// was on disk before.
func TestRefusedPublish(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	sum := sumOf(t, m, sampleBase)
	file, err := os.ReadFile(pathOf(o, sum))
	if err != nil {
		t.Fatal(err)
	}
	lost := errors.New("connection lost")
	for _, sent := range []io.Reader{
		bytes.NewReader(file[:len(file)-1]),
		io.MultiReader(bytes.NewReader(file[:1000]), iotest.ErrReader(lost)),
	} {
		if _, err := m.Publish(t.Context(), ownManifest(file), sent); err == nil {
			t.Fatal("a file that is not whole was published")
		}
		if ids := owners(m, sum); len(ids) != 1 || ids[0] != sampleBase || copied(o, ownImage) {
			t.Errorf("the file is that of %v, want the one that had it before; a copy: %t", ids, copied(o, ownImage))
		}
	}
	if _, err := m.Publish(t.Context(), ownManifest(file), bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if ids := owners(m, sum); len(ids) != 2 || !copied(o, ownImage) {
		t.Errorf("the file is that of %v, want both; a copy: %t", ids, copied(o, ownImage))
	}
	stop()

	// It is published for good, the loss of the index included.
	for range 2 {
		m, stop = runMirror(t, o)
		if all := m.published.Images(); len(all) != 1 || all[0].UUID != ownImage {
			t.Errorf("published are %v", all)
		}
		if !m.store.Kept(ownImage) {
			t.Error("a published image is not kept")
		}
		stop()
		if err := os.RemoveAll(filepath.Join(o.Cache.Dir, "index")); err != nil {
			t.Fatal(err)
		}
	}
	m, _ = runMirror(t, o)
	if _, err := m.Unpublish(t.Context(), ownImage); err != nil {
		t.Fatal(err)
	}
	m.store.Idle() // without an index the file is checked first
	if ids := owners(m, sum); len(ids) != 1 || ids[0] != sampleBase || copied(o, ownImage) {
		t.Errorf("after unpublish the file is that of %v; a copy: %t", ids, copied(o, ownImage))
	}
}

// Nothing is acknowledged that the loss of the index would undo: an image whose
// manifest cannot be kept is not published, and one whose manifest cannot be removed stays
// so. A saved list that is older than what was acknowledged counts less.
func TestPublishedLasts(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := append([]byte("\x1f\x8b\x08"), bytes.Repeat([]byte("file"), 1000)...)
	folder := filepath.Join(o.Cache.Dir, "manifests")
	block := func() (unblock func()) {
		t.Helper()
		if err := errors.Join(os.Rename(folder, folder+".away"), os.WriteFile(folder, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := errors.Join(os.Remove(folder), os.Rename(folder+".away", folder)); err != nil {
				t.Fatal(err)
			}
		}
	}
	listed := func() bool {
		_, ok := m.Current().Entry(ownImage)
		return ok
	}
	unblock := block()
	_, err := m.Publish(t.Context(), ownManifest(file), bytes.NewReader(file))
	if !errors.Is(err, cache.ErrDisk) || listed() || len(m.published.Images()) > 0 || m.store.Kept(ownImage) {
		t.Errorf("without its copy: %v; listed: %t, published: %v", err, listed(), m.published.Images())
	}
	unblock()
	if _, err := m.Publish(t.Context(), ownManifest(file), bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	unblock = block()
	if _, err := m.Unpublish(t.Context(), ownImage); !errors.Is(err, cache.ErrDisk) || !listed() {
		t.Errorf("unpublish with a copy that stays: %v; listed: %t", err, listed())
	}
	unblock()
	stop()

	m, stop = runMirror(t, o)
	if !listed() && m.Refresh(t.Context()) == nil && !listed() {
		t.Error("the image that stayed published is not listed")
	}
	stop()
	// The list is as it was before an unpublish whose trace in the index was lost.
	sum := sha1.Sum(file)
	err = errors.Join(os.Remove(filepath.Join(folder, ownImage.String()+".json")), os.Remove(filepath.Join(o.Cache.Dir, "files", fmt.Sprintf("%x/%x", sum[:1], sum))),
		os.Remove(filepath.Join(o.Cache.Dir, "published", ownImage.String()+".json")))
	if err != nil {
		t.Fatal(err)
	}
	m, stop = runMirror(t, o)
	if len(m.published.Images()) > 0 {
		t.Error("an image that was unpublished is back")
	}
	stop()
}

// The loss of copies is no unpublish: they are made anew.
func TestPublishedCopiesLost(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := append([]byte("\x1f\x8b\x08"), bytes.Repeat([]byte("file"), 1000)...)
	if _, err := m.Publish(t.Context(), ownManifest(file), bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.RemoveAll(filepath.Join(o.Cache.Dir, "manifests")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m, stop = runMirror(t, o)
		if len(m.published.Images()) != 1 || !copied(o, ownImage) {
			t.Errorf("published are %v; a copy: %t", m.published.Images(), copied(o, ownImage))
		}
		stop()
	}
}

// A process that ends between the noting of an image and the saving of the list
// leaves an image that the next one publishes.
func TestPublishCutShort(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	sum := sumOf(t, m, sampleBase)
	path := pathOf(o, sum)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	image, err := manifest.ParsePublished(ownManifest(file))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.own(image); err != nil {
		t.Fatal(err)
	}
	stop()

	m, stop = runMirror(t, o)
	if _, err := m.published.Get(t.Context(), ownImage); err != nil {
		t.Error(err)
	}
	if err := m.Refresh(t.Context()); err != nil { // a start does so by and by
		t.Fatal(err)
	}
	if _, ok := m.Current().Entry(ownImage); !ok {
		t.Error("it is not in the catalogue")
	}
	stop()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	m, _ = runMirror(t, o)
	other := manifest.Manifest{UUID: uuid.New(), Files: image.Files}
	if err := m.own(other); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("the owner of a file that is not there: %v", err)
	}
}

// An image that the start has recorded is listed at once: a question by uuid before the first refresh
// does not make it one that outlives its unpublishing.
func TestPublishCutShortIsListed(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := gzipped(t, 1000)
	begin(t, m, ownBase, text(ownBase, file))
	addFile(t, m, ownBase, file)
	image, err := m.drafts.all[ownBase].image.Activate()
	if err == nil {
		err = m.own(image)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop()
	o.Registry = nil
	if m, err = New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer m.Close() //nolint:errcheck // the test is over
	if _, err := m.Get(t.Context(), ownBase); err != nil {
		t.Error(err)
	}
	publishes(t, m, o, ownBase)
	if _, err := m.Unpublish(t.Context(), ownBase); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Find(t.Context(), ownBase); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found after its unpublishing: %v", err)
	}
	publish(t, m, text(ownBase, file), file)
}

// A record that is lost, or cannot be read, is made anew of what the cache has noted; and what the
// cache has lost is learned from the record: an unpublish that was cut short has not happened.
func TestPublishedRecords(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := gzipped(t, 1000)
	publish(t, m, ownManifest(file), file)
	record := filepath.Join(o.Cache.Dir, "published", ownImage.String()+".json")
	want, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	for _, lose := range []func() error{
		func() error { return os.Remove(record) },
		func() error { return os.WriteFile(record, []byte(`{"manifest":`), 0o600) },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		m, stop = runMirror(t, o)
		publishes(t, m, o, ownImage)
		if got, err := os.ReadFile(record); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the record is %s, %v", got, err)
		}
		stop()
	}
	m, stop = runMirror(t, o)
	if err := m.disown(entryOf(t, m, ownImage).Manifest); err != nil {
		t.Fatal(err)
	}
	stop()
	m, stop = runMirror(t, o)
	publishes(t, m, o, ownImage)
	if ids := owners(m, sha1.Sum(file)); len(ids) != 1 || !copied(o, ownImage) || !m.store.Kept(ownImage) {
		t.Errorf("the file is that of %v; a copy: %t; kept: %t", ids, copied(o, ownImage), m.store.Kept(ownImage))
	}
	stop()

	// An image whose file is lost stays published until it is unpublished.
	if err := os.Remove(pathOf(o, sha1.Sum(file))); err != nil {
		t.Fatal(err)
	}
	m, _ = runMirror(t, o)
	publishes(t, m, o, ownImage)
	if _, err := m.Unpublish(t.Context(), ownImage); err != nil {
		t.Error(err)
	}
	publishes(t, m, o)
}
