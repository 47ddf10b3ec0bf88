package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/published"
)

// publishedRefresh is how often the catalogue asks for the published images of
// its own accord: it is told when they change.
const publishedRefresh = 24 * time.Hour

// newPublished makes the source of the mirror's own images from what the store
// has saved of it, and plugs it into store and catalogue.
func (m *mirror) newPublished() (*published.Source, error) {
	saved, err := m.store.Listing(published.Name)
	if err != nil {
		return nil, err
	}
	return published.New(published.Options{
		Images: saved.Images,
		Listed: func(id uuid.UUID) string {
			entry, _ := m.catalog.Current().Entry(id)
			return entry.Source
		},
		Find: func(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
			entry, err := m.catalog.Get(ctx, id)
			return entry.Manifest, err
		},
		Store:   m.storeUpload,
		Changed: func(ctx context.Context) error { return m.catalog.Retake(ctx, published.Name) },
		Remove:  m.removePublished,
		Logger:  m.log.With("component", "published"),
	}), nil
}

// storeUpload brings an upload through the cache's door.
func (m *mirror) storeUpload(ctx context.Context, image manifest.Manifest, open published.Open) error {
	blob, _ := proxy.BlobOf(catalog.Entry{Manifest: image, Source: published.Name}, 0)
	r, err := m.store.File(ctx, blob, []cache.Source{{Name: published.Name, Open: open, FromStart: true}})
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	return r.Stored(ctx)
}

// removePublished removes what is kept of an image that is published no more.
func (m *mirror) removePublished(ctx context.Context, image manifest.Manifest) error {
	sum := image.Files[0].SHA1
	if other, _, ok := m.catalog.Current().BySum(sum); ok && other.Manifest.UUID != image.UUID {
		m.log.Info("the file of an unpublished image stays: another image has it",
			"uuid", image.UUID, "sum", sum, "other", other.Manifest.UUID)
		return m.store.Disown(image.UUID, sum)
	}
	_, err := m.store.Remove(ctx, sum)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file %s: %w", sum, err)
	}
	return nil
}
