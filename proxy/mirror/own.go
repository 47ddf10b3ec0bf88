package mirror

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/own"
)

// openOwn makes the sources of the mirror's own images from their records in the data folder, each
// in the folder of its name.
func (m *Mirror) openOwn(data string) (err error) {
	open := func(name string, former func() ([]manifest.Manifest, error)) (*own.Source, error) {
		return own.Open(name, filepath.Join(data, name), former, m.log.With("component", name))
	}
	if m.imported, err = open(own.Imported, nil); err != nil {
		return err
	}
	if m.published, err = open(own.Published, m.formerlyPublished); err != nil {
		return err
	}
	m.settleOwn()
	return nil
}

// formerlyPublished gives the published images of a data folder of a former version, which knew
// them by the saved list of the source only. An image of the list with neither a copy of its
// manifest nor a file was unpublished: the list is older than that.
func (m *Mirror) formerlyPublished() (images []manifest.Manifest, err error) {
	saved, err := m.store.Lists().Listing(own.Published)
	for _, image := range saved.Images {
		if _, err := m.store.Manifest(image.UUID); errors.Is(err, fs.ErrNotExist) && m.store.Absent(image.Files[0].SHA1) {
			m.log.Warn("an image that was unpublished is on the saved list: it is left out",
				"uuid", image.UUID, "name", image.Name, "version", image.Version)
			continue
		}
		parsed, err := own.Parse(image.Raw())
		if err != nil {
			m.log.Error("a published image is not what it was", "uuid", image.UUID, "error", err)
			continue
		}
		images = append(images, parsed)
	}
	return images, err
}

// settleOwn makes records and cache agree, which a process that ended, or a loss on disk, may have
// left apart: the cache learns again which files belong to the images of the records, and an image
// that the cache has as published gets a record, or loses its files if its manifest is not there.
func (m *Mirror) settleOwn() {
	for _, source := range []*own.Source{m.published, m.imported} {
		for _, image := range source.Images() {
			if _, err := m.store.Manifest(image.UUID); errors.Is(err, fs.ErrNotExist) {
				m.ownFiles(source.Name(), image)
			}
		}
	}
	for _, id := range m.store.From(own.Published) {
		if _, known := m.published.Provenance(id); known {
			continue
		}
		image, err := m.store.Manifest(id)
		if errors.Is(err, fs.ErrNotExist) { // its publishing was cut short before anything else was written
			m.disownFiles(id)
			continue
		}
		if err == nil {
			image, err = own.Parse(image.Raw())
		}
		if err == nil {
			err = m.published.Add(image, own.Provenance{})
		}
		if err != nil {
			m.log.Error("an image whose publishing was cut short cannot be recorded", "uuid", id, "error", err)
		}
	}
}

// listOwn lists the images that have a record and are not on the saved list. Until the first refresh, a
// question by uuid would find such an image and remember it as one that no list shows.
func (m *Mirror) listOwn(ctx context.Context) {
	for _, source := range []*own.Source{m.published, m.imported} {
		unlisted := slices.ContainsFunc(source.Images(), func(image manifest.Manifest) bool {
			e, _ := m.Current().Entry(image.UUID)
			return e.Source == ""
		})
		if !unlisted {
			continue
		}
		if err := m.retake(ctx, source.Name()); err != nil {
			m.log.Warn("the list of the mirror's own images could not be saved", "source", source.Name(), "error", err)
		}
	}
}

// ownFiles notes in the cache that an image has its files, as far as they are there.
func (m *Mirror) ownFiles(source string, image manifest.Manifest) {
	for i, f := range image.Files {
		blob, _ := blobOf(catalog.Entry{Manifest: image, Source: source}, i)
		if m.store.Absent(f.SHA1) {
			continue
		}
		if err := m.store.Own(blob); err != nil {
			m.log.Error("a file cannot be noted as that of its image", "uuid", image.UUID, "sum", f.SHA1, "error", err)
		}
	}
}

// disownFiles notes in the cache that an image has no files.
func (m *Mirror) disownFiles(id uuid.UUID) {
	for _, f := range m.store.Files() {
		if !slices.Contains(f.Images, id) {
			continue
		}
		if err := m.store.Disown(id, f.Sum); err != nil {
			m.log.Error("a file stays with an image that is not there", "uuid", id, "sum", f.Sum, "error", err)
		}
	}
}

// keepsImported tells whether the image came by a bundle and no other source has it.
func (m *Mirror) keepsImported(id uuid.UUID) bool {
	if !m.imported.Keeps(id) {
		return false
	}
	entry, _ := m.Current().Entry(id)
	for _, h := range entry.Holders {
		if h.Source.Name() != own.Imported {
			return false
		}
	}
	return true
}

// forget gives up those of the images that were imported: their files have gone. The catalogue has
// them no more, from here, when forget returns nil.
func (m *Mirror) forget(ctx context.Context, ids ...uuid.UUID) error {
	gone, err := m.imported.Remove(ids...)
	if len(gone) > 0 {
		err = errors.Join(err, m.retake(ctx, own.Imported))
	}
	return err
}

// forgetEvicted gives up imported images whose files were evicted: another source has them, else
// they would have been kept.
func (m *Mirror) forgetEvicted(e cache.Evicted) {
	if e.Reason == cache.ReasonDelete || len(e.Images) == 0 {
		return // Delete and Unpublish have more to say of their images
	}
	if err := m.forget(context.Background(), e.Images...); err != nil {
		m.log.Error("imported images whose files are gone stay listed", "sum", e.Sum, "error", err)
	}
}
