package mirror

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

// Trust decides whether the signature of a bundle, nil without one, is good enough: see bundle.Policy.
func (m *Mirror) Trust(x bundle.Index, sig []byte) (key string, err error) {
	return m.trust.Check(x, sig)
}

// Provenance tells where an image came from; false: not from a bundle.
func (m *Mirror) Provenance(id uuid.UUID) (own.Provenance, bool) {
	return m.imported.Provenance(id)
}

// Expect keeps the files of images that are about to be imported, until done.
func (m *Mirror) Expect(ids []uuid.UUID) (done func()) { return m.imported.Expect(ids...) }

// Import notes an image of a bundle, with all its files on disk; what is noted lasts.
func (m *Mirror) Import(image manifest.Manifest, from own.Provenance) error {
	return m.imported.Add(image, from)
}

// ListImported brings what was noted into the catalogue.
func (m *Mirror) ListImported(ctx context.Context) error { return m.retake(ctx, own.Imported) }

// HasFile tells whether a file is on disk, verified.
func (m *Mirror) HasFile(want verify.Want) bool {
	_, ok := m.store.Peek(cache.Blob{Want: want})
	return ok
}

// Unfinished tells how many bytes an unfinished download has left for a file.
func (m *Mirror) Unfinished(want verify.Want) int64 {
	return m.store.Unfinished(cache.Blob{Want: want})
}

// Knows tells whether the mirror has the image, from wherever.
func (m *Mirror) Knows(id uuid.UUID) bool {
	if _, ok := m.imported.Provenance(id); ok {
		return true
	}
	_, ok := m.Current().Entry(id)
	return ok
}

// CheckConflict is an error that matches ErrExists if the mirror has the image with other
// files.
func (m *Mirror) CheckConflict(image bundle.Image) error {
	e, ok := m.Current().Entry(image.UUID)
	if !ok {
		return nil
	}
	same := len(e.Manifest.Files) == len(image.Files)
	for i := 0; same && i < len(image.Files); i++ {
		is := e.Manifest.Files[i].SHA1
		same = is == image.Files[i].SHA1 || is.IsZero()
	}
	if same {
		return nil
	}
	return fmt.Errorf("image %s: %w: source %s has it with other files", image.UUID, ErrExists, e.Source)
}

// Take brings a file of a bundle to disk through open, which is called at most once, and returns when
// the file is verified.
func (m *Mirror) Take(ctx context.Context, image manifest.Manifest, index int, want verify.Want,
	open func(context.Context, int64) (*verify.Stream, error),
) error {
	blob, _ := blobOf(catalog.Entry{Manifest: image, Source: own.Imported}, index)
	blob.Want = want
	r, err := m.store.File(ctx, blob, []cache.Source{{Name: own.Imported, Open: open, Once: true}})
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	return r.Stored(ctx)
}
