// Package own owns the images that the mirror itself is the source of: those published here, and
// those that bundles brought. Each of the two is a Source: to the catalogue one more source, whose
// list changes by Add, Remove and Withdraw only.
//
// A Source knows its images by records, a file for each image in one folder. The records are the
// truth: saved lists and the notes of the cache follow them. Files of images go through the cache's
// door like all others, and the cache is the only place that has them.
package own

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// The names, and kinds, of the two sources: in the catalogue, in logs, in metrics and on disk. No
// configured source may have one of them.
const (
	Published = "published"
	Imported  = "imported"
)

// Provenance is where an image came from: zero for an image that was published here.
type Provenance struct {
	Bundle   string    `json:"bundle,omitempty"`  // its id
	Created  time.Time `json:"created,omitzero"`  // the bundle
	Mirror   string    `json:"mirror,omitempty"`  // the mirror that made the bundle
	Key      string    `json:"key,omitempty"`     // the trusted key of the bundle's signature; "": the signature was not checked
	Imported time.Time `json:"imported,omitzero"` // the image
}

// Source is the images of one kind as a source of the catalogue. Its methods may be called
// concurrently.
type Source struct {
	name, dir string
	log       *slog.Logger

	writing sync.Mutex // held while records are changed on disk; taken before mu
	begun   bool       // the folder has been there; guarded by writing

	mu      sync.Mutex // guards what follows; never held over I/O
	images  map[uuid.UUID]record
	coming  map[uuid.UUID]int // by how many that bring files
	leaving map[uuid.UUID]int // by how many that remove files
}

// record is what is known of one image.
type record struct {
	Provenance
	manifest  manifest.Manifest
	withdrawn bool
}

// Open makes the source of that name from the records in dir. A record that cannot be read is left
// where it is, and logged. Where there is no such folder yet, the images, as Parse gives them, are
// those of former, which may be nil: their records are written all at once. If they cannot be
// written now, the next Add or Remove writes them first. log may be nil.
func Open(name, dir string, former func() ([]manifest.Manifest, error), log *slog.Logger) (*Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{
		name: name, dir: dir, log: log,
		images:  make(map[uuid.UUID]record),
		coming:  make(map[uuid.UUID]int),
		leaving: make(map[uuid.UUID]int),
	}
	if err := s.load(former); err != nil {
		return nil, fmt.Errorf("%s images: %w", name, err)
	}
	return s, nil
}

// Parse reads a manifest with the eyes of these sources: their images are meant to be served,
// public or not. Errors match manifest.ErrInvalid.
func Parse(text []byte) (manifest.Manifest, error) {
	return manifest.Parse(text, manifest.ParseOptions{ServePrivate: true})
}

// Name is Published or Imported.
func (s *Source) Name() string { return s.name }

// List gives the images, in order of their uuids. It never fails.
func (s *Source) List(context.Context, manifest.Listing) (manifest.Listing, error) {
	return manifest.Listing{Source: s.name, Kind: s.name, Fetched: time.Now(), Images: s.Images()}, nil
}

// Images gives the images, in order of their uuids.
func (s *Source) Images() []manifest.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := make([]manifest.Manifest, 0, len(s.images))
	for _, r := range s.images {
		if !r.withdrawn {
			images = append(images, r.manifest)
		}
	}
	slices.SortFunc(images, func(a, b manifest.Manifest) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
	return images
}

// Get gives one image; else the error matches fs.ErrNotExist.
func (s *Source) Get(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.images[id]; ok && !r.withdrawn {
		return r.manifest, nil
	}
	return manifest.Manifest{}, fmt.Errorf("image %s is not %s here: %w", id, s.name, fs.ErrNotExist)
}

// Provenance tells where an image came from; false: the image is not of this source.
func (s *Source) Provenance(id uuid.UUID) (Provenance, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.images[id]
	return r.Provenance, ok
}

// Keeps tells whether the image's files, once on disk, must stay there as far as this source goes:
// the image is of this source and is not being given up, or is about to be of this source.
func (s *Source) Keeps(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.images[id]
	return known && s.leaving[id] == 0 || s.coming[id] > 0
}

// Expect has Keeps hold for images that are about to be added, until done.
func (s *Source) Expect(ids ...uuid.UUID) (done func()) { return s.mark(s.coming, ids) }

// Release has Keeps no longer hold for images whose files are about to be removed, until done.
// Remove is what gives the images up.
func (s *Source) Release(ids ...uuid.UUID) (done func()) { return s.mark(s.leaving, ids) }

func (s *Source) mark(counts map[uuid.UUID]int, ids []uuid.UUID) (unmark func()) {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range ids {
			if counts[id] += n; counts[id] == 0 {
				delete(counts, id)
			}
		}
	}
	add(1)
	return sync.OnceFunc(func() { add(-1) })
}

// Withdraw takes an image off the list. Its record stays, and is listed again after restore, or by
// the next start.
func (s *Source) Withdraw(id uuid.UUID) (restore func()) {
	set := func(withdrawn bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r, ok := s.images[id]; ok {
			r.withdrawn = withdrawn
			s.images[id] = r
		}
	}
	set(true)
	return func() { set(false) }
}

// File always fails with fs.ErrNotExist: the only copy is the one that the cache had when the image
// was added.
func (s *Source) File(_ context.Context, m manifest.Manifest, _ int, _ int64) (*verify.Stream, error) {
	return nil, fmt.Errorf("the file of %s image %s is nowhere but in the cache: %w", s.name, m.UUID, fs.ErrNotExist)
}

// Part always fails with fs.ErrNotExist, as File does.
func (s *Source) Part(ctx context.Context, m manifest.Manifest, index int, offset, _ int64) (*verify.Stream, error) {
	return s.File(ctx, m, index, offset)
}

// Head always fails with fs.ErrNotExist, as File does.
func (s *Source) Head(ctx context.Context, m manifest.Manifest, index int) ([]byte, int64, error) {
	_, err := s.File(ctx, m, index, 0)
	return nil, 0, err
}

// Icon always fails with fs.ErrNotExist: these images have none.
func (s *Source) Icon(_ context.Context, m manifest.Manifest) (*verify.Stream, error) {
	return nil, fmt.Errorf("%s image %s has no icon: %w", s.name, m.UUID, fs.ErrNotExist)
}
