package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// manifestCopy is a file of DATA/manifests: what is needed to serve the image
// should the index be lost.
type manifestCopy struct {
	Source   string                 `json:"source"`
	Sums     map[string]verify.Sum  `json:"sums,omitempty"`  // by Blob.Key: files whose manifest has no sha1
	Facts    map[int]manifest.Facts `json:"facts,omitempty"` // by index of the file: what SaveFacts was told
	Manifest json.RawMessage        `json:"manifest,omitempty"`
}

func (d folder) manifestCopy(id uuid.UUID) string {
	return filepath.Join(d.manifests(), id.String()+".json")
}

// copies are the files of DATA/manifests, one for each image with a file on disk.
type copies struct {
	dir     folder
	log     *slog.Logger
	writing sync.Mutex // held while a copy is read and replaced; after its image's door

	mu    sync.RWMutex // guards what follows; taken after Store.mu
	known map[uuid.UUID]struct{}
}

// openCopies notes which images have a copy of their manifest.
func openCopies(dir folder, log *slog.Logger) (*copies, error) {
	all := &copies{dir: dir, log: log, known: make(map[uuid.UUID]struct{})}
	removeUnended(dir.manifests(), log)
	entries, err := readMade(dir.manifests())
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if id, ok := manifest.ParseUUID(name); ok {
				all.known[id] = struct{}{}
			}
		}
	}
	return all, err
}

func (c *copies) has(id uuid.UUID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, known := c.known[id]
	return known
}

// note notes that the image has a copy.
func (c *copies) note(id uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[id] = struct{}{}
}

// forget notes that the image has no copy any more.
func (c *copies) forget(id uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, id)
}

// forgetAll notes that no image has a copy any more: each is copied again when the image is asked for.
func (c *copies) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.known)
}

// remove removes the copy of an image's manifest, if there is one.
func (c *copies) remove(id uuid.UUID) error {
	err := os.Remove(c.dir.manifestCopy(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return disk.Error(err)
}

// drop forgets, at a start, an image that had the files sums and has none, and removes its copy. The copy stays where
// not even the folders of these files are there: then all files may be on a disk that is to be mounted yet, and only
// the copy tells which image they belong to. A failure does no harm today: the failure is logged.
func (c *copies) drop(id uuid.UUID, sums []verify.Sum) {
	emptied := func(sum verify.Sum) bool {
		_, err := os.Stat(filepath.Dir(c.dir.file(sum)))
		return err == nil
	}
	if len(sums) > 0 && !slices.ContainsFunc(sums, emptied) {
		return
	}
	c.forget(id)
	if err := c.remove(id); err != nil {
		c.log.Warn("the copy of a manifest without a file cannot be removed", "uuid", id, "error", err)
	}
}

// load reads the copy of an image's manifest as it is.
func (c *copies) load(id uuid.UUID) (m manifestCopy, err error) {
	data, err := readRegular(c.dir.manifestCopy(id))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}

// read reads the copy of an image's manifest, and the manifest in the copy.
func (c *copies) read(id uuid.UUID) (m manifestCopy, image manifest.Manifest, err error) {
	m, err = c.load(id)
	if err == nil {
		image, err = manifest.Parse(m.Manifest, manifest.ParseOptions{})
	}
	if err != nil {
		return m, image, fmt.Errorf("copy of manifest %s: %w", id, err)
	}
	return m, image, nil
}

// edit replaces the copy of an image's manifest with what change makes of it:
// of an empty one, if there is none that can be read.
func (c *copies) edit(id uuid.UUID, change func(*manifestCopy)) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	m := manifestCopy{Sums: make(map[string]verify.Sum), Facts: make(map[int]manifest.Facts)}
	if old, err := c.load(id); err == nil {
		maps.Copy(m.Sums, old.Sums)
		maps.Copy(m.Facts, old.Facts)
		m.Source, m.Manifest = old.Source, old.Manifest
	}
	change(&m)
	if len(m.Manifest) == 0 {
		return nil
	}
	raw := m.Manifest
	m.Manifest = nil
	data, err := manifest.Envelope(m, raw)
	if err == nil {
		err = disk.Error(disk.Write(c.dir.manifestCopy(id), data, 0o644))
	}
	if err != nil {
		return fmt.Errorf("copy of manifest %s: %w", id, err)
	}
	return nil
}

// write writes the copy of the manifest of b's image, and keeps what an
// older copy tells besides. The image's door is held.
func (c *copies) write(b Blob, sum verify.Sum) error {
	defer c.note(b.Image) // also after a failure: once is enough for a disk that fails
	return c.edit(b.Image, func(m *manifestCopy) {
		m.Source, m.Manifest = b.Source, b.Manifest.Raw()
		if b.Want.SHA1.IsZero() {
			m.Sums[b.Key] = sum
		}
	})
}

// addFacts adds facts to the copy of the image's manifest, if there is one. A failure
// does no harm today: the failure is logged.
func (c *copies) addFacts(id manifest.FileID, f manifest.Facts) {
	if !c.has(id.Image) {
		return
	}
	err := c.edit(id.Image, func(m *manifestCopy) {
		m.Facts[id.Index] = f
	})
	if err != nil {
		c.log.Warn("facts of a file cannot be kept beside the index", "uuid", id.Image, "error", err)
	}
}
