package imported

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

// recordFile is a file of Options.Dir, named UUID.json.
type recordFile struct {
	Provenance
	Manifest json.RawMessage `json:"manifest"`
}

func (s *Source) path(id uuid.UUID) string {
	return filepath.Join(s.o.Dir, id.String()+".json")
}

// load reads all records.
func (s *Source) load() (map[uuid.UUID]record, error) {
	images := make(map[uuid.UUID]record)
	entries, err := os.ReadDir(s.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return images, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(s.o.Dir, e.Name())
		if strings.HasPrefix(e.Name(), disk.NewPrefix) { // a write that never ended
			if err := os.Remove(path); err != nil {
				s.log.Warn("a record that was never completed cannot be removed", "error", err)
			}
			continue
		}
		name, ok := strings.CutSuffix(e.Name(), ".json")
		id, isUUID := manifest.ParseUUID(name)
		if !ok || !isUUID {
			s.log.Warn("not a record of an imported image, left alone", "path", path)
			continue
		}
		r, err := read(path)
		if err == nil && r.manifest.UUID != id {
			err = fmt.Errorf("it is of image %s", r.manifest.UUID)
		}
		if err != nil {
			s.log.Error("the record of an imported image cannot be read", "path", path, "error", err)
			continue
		}
		images[id] = r
	}
	return images, nil
}

func read(path string) (record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	var f recordFile
	if err := json.Unmarshal(data, &f); err != nil {
		return record{}, err
	}
	m, err := Parse(f.Manifest)
	return record{Provenance: f.Provenance, manifest: m}, err
}

// save writes a record: it is there, whole, or as it was before.
func (s *Source) save(r record) error {
	data, err := manifest.Envelope(r.Provenance, r.manifest.Raw())
	if err != nil {
		return err
	}
	if err := disk.MakeFolder(s.o.Dir); err != nil {
		return err
	}
	return disk.Write(s.path(r.manifest.UUID), data, 0o600)
}

func (s *Source) remove(id uuid.UUID) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.SyncFolder(s.o.Dir)
}
