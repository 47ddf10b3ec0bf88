package own

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

// recordFile is a file of Source.dir, named UUID.json.
type recordFile struct {
	Provenance
	Manifest json.RawMessage `json:"manifest"`
}

func path(dir string, id uuid.UUID) string { return filepath.Join(dir, id.String()+".json") }

// load reads all records, or takes over the former images where there is no folder.
func (s *Source) load(former func() ([]manifest.Manifest, error)) error {
	entries, err := os.ReadDir(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && former != nil:
		return s.adopt(former)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	s.begun = true
	if err := disk.RemoveUnended(s.dir); err != nil {
		s.log.Warn("records that were never completed cannot be removed", "error", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), disk.NewPrefix) {
			continue
		}
		name, ok := strings.CutSuffix(e.Name(), ".json")
		id, isUUID := manifest.ParseUUID(name)
		if !ok || !isUUID {
			s.log.Warn("not a record of an image, left alone", "path", filepath.Join(s.dir, e.Name()))
			continue
		}
		r, err := read(s.dir, id)
		if err != nil {
			s.log.Error("the record of an image cannot be read", "path", path(s.dir, id), "error", err)
			continue
		}
		s.images[id] = r
	}
	return nil
}

func read(dir string, id uuid.UUID) (record, error) {
	data, err := os.ReadFile(path(dir, id))
	if err != nil {
		return record{}, err
	}
	var f recordFile
	if err := json.Unmarshal(data, &f); err != nil {
		return record{}, err
	}
	m, err := Parse(f.Manifest)
	switch {
	case err != nil:
		return record{}, err
	case m.UUID != id:
		return record{}, fmt.Errorf("the record is of image %s", m.UUID)
	case len(m.Files) == 0:
		return record{}, errors.New("the manifest names no file")
	}
	return record{Provenance: f.Provenance, manifest: m}, nil
}

// write writes a record: the record is there, whole, or as it was before.
func (r record) write(dir string) error {
	data, err := manifest.Envelope(r.Provenance, r.manifest.Raw())
	if err != nil {
		return err
	}
	return disk.Write(path(dir, r.manifest.UUID), data, 0o600)
}

func (s *Source) adopt(former func() ([]manifest.Manifest, error)) error {
	images, err := former()
	if err != nil || len(images) == 0 {
		return err
	}
	for _, m := range images {
		s.images[m.UUID] = record{manifest: m}
	}
	if err := s.begin(); err != nil {
		s.log.Error("the records of images cannot be written yet", "path", s.dir, "error", err)
	}
	return nil
}

// begin makes the folder, with the records of all images, whole or not at all.
func (s *Source) begin() error {
	s.mu.Lock()
	images := maps.Clone(s.images)
	s.mu.Unlock()
	next := s.dir + ".new"
	err := os.RemoveAll(next) // left by a write that failed, or by a process that ended
	switch {
	case err != nil:
	case len(images) == 0:
		err = disk.MakeFolder(s.dir)
	default:
		err = writeAll(next, s.dir, images)
	}
	s.begun = s.begun || err == nil
	return err
}

// writeAll makes the folder dir, under the name next until all records are in the folder.
func writeAll(next, dir string, images map[uuid.UUID]record) error {
	if err := disk.MakeFolder(next); err != nil {
		return err
	}
	for _, r := range images {
		if err := r.write(next); err != nil {
			return err
		}
	}
	if err := os.Rename(next, dir); err != nil {
		return err
	}
	return disk.SyncFolder(filepath.Dir(dir))
}

// Add notes an image, a manifest that Parse gave, whose files are on disk. An image that is known
// stays as it is, unless a bundle that is not older has another manifest of it. The record is on
// disk when Add returns nil. Errors are those of the disk.
func (s *Source) Add(m manifest.Manifest, from Provenance) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	old, known := s.images[m.UUID]
	s.mu.Unlock()
	if known && (old.Created.After(from.Created) || bytes.Equal(old.manifest.Raw(), m.Raw())) {
		return nil
	}
	r := record{Provenance: from, manifest: m}
	if err := s.save(r); err != nil {
		return fmt.Errorf("record of %s image %s: %w", s.name, m.UUID, disk.Error(err))
	}
	s.mu.Lock()
	s.images[m.UUID] = r
	s.mu.Unlock()
	log := s.log
	if from.Bundle != "" {
		log = log.With("bundle", from.Bundle, "mirror", from.Mirror, "key", from.Key)
	}
	log.Info("image "+s.name, "uuid", m.UUID, "name", m.Name, "version", m.Version)
	return nil
}

func (s *Source) save(r record) error {
	if _, err := os.Stat(s.dir); !s.begun || errors.Is(err, fs.ErrNotExist) {
		if err := s.begin(); err != nil {
			return err
		}
	}
	return r.write(s.dir)
}

// Remove gives up those of the images that are of this source, and tells which they were. The
// records are gone for good when Remove returns nil. Errors are those of the disk.
func (s *Source) Remove(ids ...uuid.UUID) (removed []uuid.UUID, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, id := range ids {
		if _, known := s.Provenance(id); !known {
			continue
		}
		if gone := s.erase(id); gone != nil {
			err = errors.Join(err, fmt.Errorf("record of %s image %s: %w", s.name, id, disk.Error(gone)))
			continue
		}
		s.mu.Lock()
		delete(s.images, id)
		s.mu.Unlock()
		removed = append(removed, id)
		s.log.Info("image given up, no longer "+s.name, "uuid", id)
	}
	return removed, err
}

func (s *Source) erase(id uuid.UUID) error {
	if !s.begun {
		if err := s.begin(); err != nil {
			return err
		}
	}
	if err := os.Remove(path(s.dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.SyncFolder(s.dir)
}
