package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// manifestCopy is a file of DATA/manifests: what is needed to serve the image
// should the index be lost. It is written by encode.
type manifestCopy struct {
	Source   string                 `json:"source"`
	Sums     map[string]verify.Sum  `json:"sums,omitempty"`  // by Blob.Key: files whose manifest has no sha1
	Facts    map[int]manifest.Facts `json:"facts,omitempty"` // by index of the file: what SaveFacts was told
	Manifest json.RawMessage        `json:"manifest"`
}

// encode keeps the manifest byte for byte, which json.Marshal would not.
func (c manifestCopy) encode() ([]byte, error) {
	raw := c.Manifest
	c.Manifest = json.RawMessage("0")
	frame, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append(append(bytes.TrimSuffix(frame, []byte("0}")), raw...), "}\n"...), nil
}

func (d folder) manifestCopy(id uuid.UUID) string {
	return filepath.Join(d.manifests(), id.String()+".json")
}

// loadCopies notes which images have a copy of their manifest. If the index is
// new it is given lists made of them. there tells of a sum whether its file is on
// disk, or may be.
func (s *Store) loadCopies(ctx context.Context, there func(verify.Sum) bool) error {
	s.removeUnended(s.dir.manifests())
	entries, err := readMade(s.dir.manifests())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if id, ok := manifest.ParseUUID(name); ok {
				s.copies[id] = struct{}{}
			}
		}
	}
	complete, err := s.index.Complete()
	if err != nil || complete {
		return err
	}
	if err := s.rebuild(ctx, there); err != nil {
		return err
	}
	return s.later(s.index.Write(index.PutComplete()))
}

// rebuild gives a new index what the copies of manifests tell: those of images
// with a file.
func (s *Store) rebuild(ctx context.Context, there func(verify.Sum) bool) error {
	lists := make(map[string]*manifest.Listing)
	var changes []index.Change
	for id := range s.copies {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, m, err := s.readCopy(id)
		if err != nil {
			s.log.Warn("the copy of a manifest cannot be read", "uuid", id, "error", err)
			delete(s.copies, id)
			continue
		}
		if sums := c.image(m).Sums; !slices.ContainsFunc(sums, there) {
			s.dropCopy(id, sums)
			continue
		}
		if lists[c.Source] == nil {
			lists[c.Source] = &manifest.Listing{Source: c.Source}
		}
		lists[c.Source].Images = append(lists[c.Source].Images, m)
		changes = append(changes, s.learned(id, c)...)
	}
	for _, l := range lists {
		if err := s.later(s.index.SaveListing(*l)); err != nil {
			return err
		}
	}
	return s.later(s.index.Write(changes...))
}

// learned takes from a copy what its image's manifest does not tell, and gives what
// the index is to hold of that.
func (s *Store) learned(id uuid.UUID, c manifestCopy) (changes []index.Change) {
	for key, sum := range c.Sums {
		s.aliases[key] = sum
		changes = append(changes, index.PutAlias(key, sum))
	}
	for i, f := range c.Facts {
		changes = append(changes, index.PutFacts(manifest.FileID{Image: id, Index: i}, f))
	}
	return changes
}

// removeCopy removes the copy of an image's manifest, if it has one.
func (s *Store) removeCopy(id uuid.UUID) error {
	err := os.Remove(s.dir.manifestCopy(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return disk.Error(err)
}

// Absent tells whether the file is known not to be there. Without even its folder that is
// not known: all files may be on a disk that is to be mounted yet.
func (s *Store) Absent(sum verify.Sum) bool {
	path := s.dir.file(sum)
	_, folder := os.Stat(filepath.Dir(path))
	_, err := os.Lstat(path)
	return folder == nil && errors.Is(err, fs.ErrNotExist)
}

// dropCopy is removeCopy at a start, of an image that had the files sums and has
// none. The copy stays where not even the folders of these are there: then all
// files may be elsewhere, on a disk that is to be mounted yet, and without its
// copy nobody would know afterwards whose they are. A failure harms nobody today:
// it is logged.
func (s *Store) dropCopy(id uuid.UUID, sums []verify.Sum) {
	emptied := func(sum verify.Sum) bool {
		_, err := os.Stat(filepath.Dir(s.dir.file(sum)))
		return err == nil
	}
	if len(sums) > 0 && !slices.ContainsFunc(sums, emptied) {
		return
	}
	delete(s.copies, id)
	if err := s.removeCopy(id); err != nil {
		s.log.Warn("the copy of a manifest without a file cannot be removed", "uuid", id, "error", err)
	}
}

// loadCopy reads the copy of an image's manifest as it is.
func (s *Store) loadCopy(id uuid.UUID) (c manifestCopy, err error) {
	data, err := readRegular(s.dir.manifestCopy(id))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c, err
}

// readCopy reads the copy of an image's manifest, and the manifest in it.
func (s *Store) readCopy(id uuid.UUID) (c manifestCopy, m manifest.Manifest, err error) {
	c, err = s.loadCopy(id)
	if err == nil {
		m, err = manifest.Parse(c.Manifest, manifest.ParseOptions{})
	}
	if err != nil {
		return c, m, fmt.Errorf("copy of manifest %s: %w", id, err)
	}
	return c, m, nil
}

// editCopy replaces the copy of an image's manifest with what edit makes of it:
// of an empty one, if there is none that can be read.
func (s *Store) editCopy(id uuid.UUID, edit func(*manifestCopy)) error {
	s.copying.Lock()
	defer s.copying.Unlock()
	c, err := s.loadCopy(id)
	if err != nil {
		c = manifestCopy{}
	}
	edit(&c)
	if len(c.Manifest) == 0 {
		return nil
	}
	data, err := c.encode()
	if err == nil {
		err = disk.Error(disk.Write(s.dir.manifestCopy(id), data, 0o644))
	}
	if err != nil {
		return fmt.Errorf("copy of manifest %s: %w", id, err)
	}
	return nil
}

// copyManifest writes the copy of the manifest of b's image, and keeps what an
// older one tells besides. The image's door is held.
func (s *Store) copyManifest(b Blob, sum verify.Sum) error {
	err := s.editCopy(b.Image, func(c *manifestCopy) {
		c.Source, c.Manifest = b.Source, b.Manifest.Raw()
		if !b.Want.SHA1.IsZero() {
			return
		}
		if c.Sums == nil {
			c.Sums = make(map[string]verify.Sum)
		}
		c.Sums[b.Key] = sum
	})
	s.mu.Lock()
	s.copies[b.Image] = struct{}{} // also after a failure: once is enough for a disk that fails
	s.mu.Unlock()
	return err
}

// copyFacts adds facts to the copy of the image's manifest, if it has one. A failure
// does no harm today: the failure is logged.
func (s *Store) copyFacts(id manifest.FileID, f manifest.Facts) {
	s.mu.RLock()
	_, copied := s.copies[id.Image]
	s.mu.RUnlock()
	if !copied {
		return
	}
	err := s.editCopy(id.Image, func(c *manifestCopy) {
		if c.Facts == nil {
			c.Facts = make(map[int]manifest.Facts)
		}
		c.Facts[id.Index] = f
	})
	if err != nil {
		s.log.Warn("facts of a file cannot be kept beside the index", "uuid", id.Image, "error", err)
	}
}
