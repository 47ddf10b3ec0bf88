package admin

import (
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"imgmirror/proxy/mirror"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/bundle"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// falseSHA256 is a bundle of image n with a right sha1 and a wrong sha256 of the file. Bytes that collide in sha1
// look like that to an importer.
func falseSHA256(t *testing.T, n int) []byte {
	t.Helper()
	s := shelf{n: 0}
	m, err := s.Manifest(t.Context(), upstreamtest.ID(n))
	if err != nil {
		t.Fatal(err)
	}
	w := verify.NewWriter()
	w.Write(sampleFile(n)) //nolint:errcheck // never fails
	d := w.Digests()
	d.SHA256[0] ^= 1
	x, err := bundle.Plan(t.Context(), []bundle.Export{{Manifest: m, Files: []verify.Digests{d}}}, bundle.PlanOptions{ID: uuid.New(), Created: time.Now()}, s)
	if err != nil {
		t.Fatal(err)
	}
	h := bundle.Head{Index: x, Volume: 1}
	var tar bytes.Buffer
	if err := bundle.Write(t.Context(), &tar, h, 0, s, nil); err == nil {
		t.Fatal("a wrong sha256 was written")
	}
	entries := h.Entries()
	last := entries[len(entries)-1]
	whole := make([]byte, h.Size())
	copy(whole, tar.Bytes()[:min(int64(tar.Len()), last.Data)])
	copy(whole[last.Data:], sampleFile(n))
	return whole
}

// TestImportSHA256: the sha256 of the index decides, for bytes that come and for a file that is on disk already.
func TestImportSHA256(t *testing.T) {
	f := newFixture(t)
	f.came(f.imported(falseSHA256(t, 11)), "11 refused ChecksumError")
	if files := f.store.Files(); len(files) != 0 {
		t.Errorf("stored: %+v", files)
	}
	f.fetched(1)
	f.came(f.imported(falseSHA256(t, 1)), "1 refused ChecksumError")
	if images := f.fromBundles(); len(images) != 0 {
		t.Errorf("%d images were imported", len(images))
	}
	var image Image
	f.want(200, "GET", "/images/"+id(1), nil, &image)
	if !image.Cached || image.Imported != nil {
		t.Errorf("the file that was there: %+v", image)
	}
}

// TestImportDryRun: a dry run takes nothing.
func TestImportDryRun(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11}.bundle(t, nil, 0)
	for range 2 {
		var report BundleImport
		head := b.head()
		head.DryRun = true
		if f.want(200, "POST", "/bundle", head, &report); report.ID != "" {
			t.Errorf("%+v", report)
		}
		f.came(report, "11 waiting, 12 waiting")
	}
	if n := len(f.store.Files()) + len(f.store.Partials()) + len(f.fromBundles()); n != 0 {
		t.Errorf("%d files and images were taken", n)
	}
	f.want(404, "GET", "/images/"+id(11), nil, &Error{})
	if f.mirror.Kept(upstreamtest.ID(11)) {
		t.Error("the images of a dry run are kept")
	}
}

// TestImportProtects: no file of an import is evicted before its image is imported; what was not imported in the end
// is kept no longer.
func TestImportProtects(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11, 13: 0}.bundle(t, nil, 0)
	whole := b.volumes[0]
	r, w := io.Pipe()
	ended := make(chan BundleImport, 1)
	go func() {
		report, err := f.client().ImportBundle(context.Background(), r, ignore)
		report.Error = explain(err)
		ended <- report
	}()
	if _, err := w.Write(whole[:b.file(t, 12).Data+100_000]); err != nil { // 11 is whole, 12 is not
		t.Fatal(err)
	}
	for len(f.store.Fills()) == 0 || len(f.fromBundles()) == 0 {
		runtime.Gosched()
	}
	for n := range 3 {
		if !f.mirror.Kept(upstreamtest.ID(11 + n)) {
			t.Errorf("image %d is not protected while the import runs", 11+n)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.came(<-ended, "11 added, 12 waiting NotComplete, 13 waiting NotComplete, InvalidBundle")
	for n, want := range []bool{true, false, false} {
		if got := f.mirror.Kept(upstreamtest.ID(11 + n)); got != want {
			t.Errorf("after the import image %d is kept: %v, want %v", 11+n, got, want)
		}
	}
}

// TestImportJudgesWholePartials: an unfinished file that has all its bytes, as a kill before the verdict leaves it, is no
// file of an image until the bytes have been judged, right or wrong.
func TestImportJudgesWholePartials(t *testing.T) {
	for _, flip := range []byte{0, 1} {
		whole := bytes.Clone(sampleFile(11))
		whole[1000] ^= flip
		f := newFixture(t, func(o *mirror.Options) {
			partial := filepath.Join(o.Cache.Dir, "partial")
			err := os.MkdirAll(partial, 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(partial, fmt.Sprintf("%x", sha1.Sum(sampleFile(11)))), whole, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		f.came(f.imported(shelf{11: 0}.bundle(t, nil, 0).volumes...), "11 added")
		var image Image
		f.want(200, "GET", "/images/"+id(11), nil, &image)
		if !image.Cached || len(f.store.Files()) != 1 {
			t.Errorf("flipped %d: recorded as imported, and its file is not stored", flip)
		}
	}
}
