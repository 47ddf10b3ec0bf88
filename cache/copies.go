package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// manifestCopy is a file of DATA/manifests: what is needed to serve the image
// should the index be lost. It is written by encode.
type manifestCopy struct {
	Source   string                `json:"source"`
	Sums     map[string]verify.Sum `json:"sums,omitempty"` // by Blob.Key: files whose manifest has no sha1
	Manifest json.RawMessage       `json:"manifest"`
}

// encode keeps the manifest byte for byte, which json.Marshal would not.
func (c manifestCopy) encode() ([]byte, error) {
	manifest := c.Manifest
	c.Manifest = json.RawMessage("0")
	frame, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append(append(bytes.TrimSuffix(frame, []byte("0}")), manifest...), "}\n"...), nil
}

func (d folder) manifestCopy(id uuid.UUID) string {
	return filepath.Join(d.manifests(), id.String()+".json")
}

// loadCopies notes which images have a copy of their manifest. If the index is
// new it is given lists made of them.
func (s *Store) loadCopies(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir.manifests())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".new-") { // a write that never ended
			if err := os.Remove(filepath.Join(s.dir.manifests(), e.Name())); err != nil {
				return err
			}
			continue
		}
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if id, ok := manifest.ParseUUID(name); ok {
				s.copies[id] = struct{}{}
			}
		}
	}
	complete, err := s.index.has(keyComplete)
	if err != nil || complete {
		return err
	}
	if err := s.rebuild(ctx); err != nil {
		return err
	}
	return s.index.put(pair{keyComplete, []byte("1")})
}

// rebuild gives a new index what the copies of manifests tell.
func (s *Store) rebuild(ctx context.Context) error {
	lists := make(map[string]*manifest.Listing)
	for id := range s.copies {
		if err := ctx.Err(); err != nil {
			return err
		}
		var c manifestCopy
		data, err := os.ReadFile(s.dir.manifestCopy(id))
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		var m manifest.Manifest
		if err == nil {
			m, err = manifest.Parse(c.Manifest, manifest.ParseOptions{})
		}
		if err != nil {
			s.log.Warn("the copy of a manifest cannot be read", "uuid", id, "error", err)
			delete(s.copies, id)
			continue
		}
		if lists[c.Source] == nil {
			lists[c.Source] = &manifest.Listing{Source: c.Source}
		}
		lists[c.Source].Images = append(lists[c.Source].Images, m)
		for key, sum := range c.Sums {
			s.aliases[key] = sum
			if err := s.index.put(aliasPair(key, sum)); err != nil {
				return err
			}
		}
	}
	for _, l := range lists {
		if err := s.saveListing(*l); err != nil {
			return err
		}
	}
	return nil
}

// copyManifest writes the copy of b's manifest, unless it has none. A failure
// harms nobody today: it is logged.
func (s *Store) copyManifest(b Blob, sum verify.Sum) {
	if b.Image == uuid.Nil || b.Manifest.Raw() == nil {
		return
	}
	c := manifestCopy{Source: b.Source, Manifest: b.Manifest.Raw()}
	path := s.dir.manifestCopy(b.Image)
	if b.Want.SHA1.IsZero() {
		var old manifestCopy
		if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &old) == nil {
			c.Sums = old.Sums
		}
		if c.Sums == nil {
			c.Sums = make(map[string]verify.Sum)
		}
		c.Sums[b.Key] = sum
	}
	data, err := c.encode()
	if err == nil {
		err = writeFile(path, data)
	}
	if err != nil {
		s.log.Warn("the copy of a manifest cannot be written", "uuid", b.Image, "error", err)
	}
	s.mu.Lock()
	s.copies[b.Image] = struct{}{} // also after a failure: once is enough for a disk that fails
	s.mu.Unlock()
}
