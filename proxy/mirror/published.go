package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/published"
)

// newPublished makes the source of the mirror's own images from what the store
// has saved of it, and plugs it into store and catalogue.
func (m *Mirror) newPublished() (*published.Source, error) {
	images, err := m.publishedBefore()
	if err != nil {
		return nil, err
	}
	return published.New(published.Options{
		Images: images,
		Listed: func(id uuid.UUID) string {
			entry, _ := m.Current().Entry(id)
			return entry.Source
		},
		Find: func(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
			entry, err := m.Get(ctx, id)
			return entry.Manifest, err
		},
		Store:   m.storeUpload,
		Own:     m.ownUpload,
		Disown:  func(image manifest.Manifest) error { return m.store.Disown(image.UUID, image.Files[0].SHA1) },
		Changed: func(ctx context.Context) error { return m.retake(ctx, published.Name) },
		Remove:  m.removePublished,
		Logger:  m.log.With("component", "published"),
	}), nil
}

// publishedBefore is the list of published images as it was saved, and those
// whose file was stored and noted as theirs when the last process ended, before
// the list was saved: or its last changes were lost with the power.
func (m *Mirror) publishedBefore() ([]manifest.Manifest, error) {
	saved, err := m.store.Lists().Listing(published.Name)
	if err != nil {
		return nil, err
	}
	listed := make(map[uuid.UUID]bool, len(saved.Images))
	images := saved.Images[:0]
	for _, image := range saved.Images {
		if m.unpublishedBefore(image) {
			continue
		}
		listed[image.UUID] = true
		images = append(images, image)
	}
	for _, id := range m.store.From(published.Name) {
		if listed[id] {
			continue
		}
		image, err := m.store.Manifest(id)
		if err != nil {
			m.log.Error("an image whose publishing was cut short cannot be read", "uuid", id, "error", err)
			continue
		}
		m.log.Info("an image is published whose publishing was cut short", "uuid", id, "name", image.Name, "version", image.Version)
		images = append(images, image)
	}
	return images, nil
}

// unpublishedBefore tells whether the saved list is older than what became of an
// image that is on it: an unpublish has removed the copy of its manifest, and its file.
// A copy that is lost is made anew.
func (m *Mirror) unpublishedBefore(image manifest.Manifest) bool {
	_, err := m.store.Manifest(image.UUID)
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if !m.store.Absent(image.Files[0].SHA1) {
		if err := m.store.Own(ownBlob(image)); err != nil {
			m.log.Error("the copy of a published image's manifest cannot be made anew", "uuid", image.UUID, "error", err)
		}
		return false
	}
	m.log.Warn("an image that was unpublished is on the saved list: it is left out", "uuid", image.UUID, "name", image.Name, "version", image.Version)
	return true
}

// ownBlob is the file of one of the mirror's own images.
func ownBlob(image manifest.Manifest) cache.Blob {
	blob, _ := blobOf(catalog.Entry{Manifest: image, Source: published.Name}, 0)
	return blob
}

// storeUpload brings an upload through the cache's door. Whose file it is is not
// said yet: the manifest's origin alone is, which must not go meanwhile.
func (m *Mirror) storeUpload(ctx context.Context, image manifest.Manifest, open published.Open) (release func(), err error) {
	blob := ownBlob(image)
	blob.Manifest = manifest.Manifest{Origin: image.Origin}
	r, err := m.store.File(ctx, blob, []cache.Source{{Name: published.Name, Open: open, FromStart: true, Once: true}})
	if err != nil {
		return nil, err
	}
	release = func() { r.Close() } //nolint:errcheck // nothing was read
	if err := r.Stored(ctx); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// ownUpload notes whose file an upload was.
func (m *Mirror) ownUpload(image manifest.Manifest) error {
	err := m.store.Own(ownBlob(image))
	if errors.Is(err, fs.ErrNotExist) { // to a client that would mean another thing
		return fmt.Errorf("its file was removed before it could be published: %v", err) //nolint:errorlint // see above
	}
	return err
}

// removePublished removes what is kept of an image that is published no more.
func (m *Mirror) removePublished(ctx context.Context, image manifest.Manifest) error {
	sum := image.Files[0].SHA1
	if other, _, ok := m.Current().BySum(sum, image.Files[0].Size); ok && other.Manifest.UUID != image.UUID {
		m.log.Info("the file of an unpublished image stays: another image has it",
			"uuid", image.UUID, "sum", sum, "other", other.Manifest.UUID)
		return nil
	}
	_, err := m.store.Remove(ctx, sum)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file %s: %w", sum, err)
	}
	return nil
}

// Publish makes an image of a manifest and its file: see published.Source.
func (m *Mirror) Publish(ctx context.Context, text []byte, file io.Reader) (manifest.Manifest, error) {
	return m.published.Publish(ctx, text, file)
}

// Unpublish takes a published image back: see published.Source.
func (m *Mirror) Unpublish(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	return m.published.Unpublish(ctx, id)
}
