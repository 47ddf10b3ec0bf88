// Package imported owns the images that bundles brought: which they are, and of
// each where it came from. To the catalogue they are one more source, whose list
// changes by Add and Forget only.
//
// What it knows is in a folder of its own, a file for each image: files go
// through the cache's door like all others, and the cache is the only place
// that has them.
package imported

import (
	"bytes"
	"context"
	"errors"
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

// Name is the name of the source: in the catalogue, in logs and in metrics. No
// configured source may have it.
const Name = "imported"

// Kind is the kind of source that Listings tell.
const Kind = "imported"

// ErrRecord says that the record of an image cannot be written or removed.
var ErrRecord = errors.New("the record of an imported image cannot be changed")

// Provenance is where an image came from.
type Provenance struct {
	Bundle   string    `json:"bundle"`        // its id
	Created  time.Time `json:"created"`       // the bundle
	Mirror   string    `json:"mirror"`        // that made it
	Key      string    `json:"key,omitempty"` // that it was signed with and that is trusted here; "": it was not checked
	Imported time.Time `json:"imported"`
}

// Options of New. Dir and Changed are required.
type Options struct {
	// Dir is the folder of records; it is made by the first Add.
	Dir string
	// Changed has the catalogue take the list anew: when it returns nil, the list
	// is in the one being served. It is called without a lock held.
	Changed func(ctx context.Context) error
	Logger  *slog.Logger // nil = discard
}

// Source is the imported images as a source of the catalogue. Its methods may be
// called concurrently.
type Source struct {
	o   Options
	log *slog.Logger

	writing sync.Mutex // held while records are changed on disk; taken before mu

	mu      sync.Mutex // guards what follows; never held over I/O
	images  map[uuid.UUID]record
	coming  map[uuid.UUID]int // by how many imports
	leaving map[uuid.UUID]int // by how many that remove their files
}

// record is one image.
type record struct {
	Provenance
	manifest manifest.Manifest
}

// New makes the source from the records in o.Dir. A record that cannot be read is
// left where it is, and logged: the image can be imported anew.
func New(o Options) (*Source, error) {
	s := &Source{o: o, log: o.Logger, coming: make(map[uuid.UUID]int), leaving: make(map[uuid.UUID]int)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.images, err = s.load(); err != nil {
		return nil, fmt.Errorf("imported images: %w", err)
	}
	return s, nil
}

// Parse reads a manifest with the eyes of this source: what somebody brings here
// is meant to be served, public or not. Errors match manifest.ErrInvalid.
func Parse(text []byte) (manifest.Manifest, error) {
	return manifest.Parse(text, manifest.ParseOptions{ServePrivate: true})
}

// Name is always Name.
func (s *Source) Name() string { return Name }

// List gives the imported images, in order of their uuids. It never fails.
func (s *Source) List(context.Context, manifest.Listing) (manifest.Listing, error) {
	return manifest.Listing{Source: Name, Kind: Kind, Fetched: time.Now(), Images: s.Images()}, nil
}

// Images gives the imported images, in order of their uuids.
func (s *Source) Images() []manifest.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := make([]manifest.Manifest, 0, len(s.images))
	for _, r := range s.images {
		images = append(images, r.manifest)
	}
	slices.SortFunc(images, func(a, b manifest.Manifest) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
	return images
}

// Get gives one imported image; else the error matches fs.ErrNotExist.
func (s *Source) Get(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.images[id]; ok {
		return r.manifest, nil
	}
	return manifest.Manifest{}, fmt.Errorf("image %s has not been imported: %w", id, fs.ErrNotExist)
}

// Provenance tells where an image came from; false: not from a bundle.
func (s *Source) Provenance(id uuid.UUID) (Provenance, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.images[id]
	return r.Provenance, ok
}

// Keeps tells whether the image's files, once they are on disk, must stay there as
// far as this source goes: it was imported, or is about to be, and is not being
// given up.
func (s *Source) Keeps(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, imported := s.images[id]
	return imported && s.leaving[id] == 0 || s.coming[id] > 0
}

// Expect has Keeps hold for images that are about to be added, until done.
func (s *Source) Expect(ids []uuid.UUID) (done func()) { return s.mark(s.coming, ids) }

// Release has Keeps no longer hold for images whose files are about to be
// removed, until done. Forget is what gives them up.
func (s *Source) Release(ids []uuid.UUID) (done func()) { return s.mark(s.leaving, ids) }

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

// Add notes an image, a manifest that Parse gave, whose files are on disk. An
// image that was imported before stays as it is, unless a bundle that is not
// older has another manifest of it. The record is on disk when Add returns nil; the catalogue
// has it once Publish returns nil. The error matches ErrRecord when it cannot be written.
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
		return fmt.Errorf("image %s: %w: %v", m.UUID, ErrRecord, err) //nolint:errorlint // to a client "not there" means another thing
	}
	s.mu.Lock()
	s.images[m.UUID] = r
	s.mu.Unlock()
	s.log.Info("image imported", "uuid", m.UUID, "name", m.Name, "version", m.Version, "bundle", from.Bundle, "mirror", from.Mirror, "key", from.Key)
	return nil
}

// Publish has the catalogue take over what Add has noted.
func (s *Source) Publish(ctx context.Context) error {
	if err := s.o.Changed(ctx); err != nil {
		return fmt.Errorf("the list of imported images: %w", err)
	}
	return nil
}

// Forget gives up those of the images that were imported: their files have gone.
// It tells which they were; the catalogue has them no more, from here, when it
// returns nil.
func (s *Source) Forget(ctx context.Context, ids ...uuid.UUID) (forgotten []uuid.UUID, err error) {
	forgotten, err = s.drop(ids)
	if len(forgotten) > 0 {
		err = errors.Join(err, s.Publish(ctx))
	}
	return forgotten, err
}

func (s *Source) drop(ids []uuid.UUID) (dropped []uuid.UUID, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for _, id := range ids {
		if _, ok := s.Provenance(id); !ok {
			continue
		}
		if gone := s.remove(id); gone != nil {
			err = errors.Join(err, fmt.Errorf("image %s: %w: %v", id, ErrRecord, gone)) //nolint:errorlint // as in Add
			continue
		}
		s.mu.Lock()
		delete(s.images, id)
		s.mu.Unlock()
		dropped = append(dropped, id)
		s.log.Info("imported image given up", "uuid", id)
	}
	return dropped, err
}

// File always fails with fs.ErrNotExist: the only copy is the one that the cache
// had when the image was imported.
func (s *Source) File(_ context.Context, m manifest.Manifest, _ int, _ int64) (*verify.Stream, error) {
	return nil, fmt.Errorf("the file of imported image %s is nowhere but in the cache: %w", m.UUID, fs.ErrNotExist)
}

// Head always fails with fs.ErrNotExist, as File does.
func (s *Source) Head(ctx context.Context, m manifest.Manifest, index int) ([]byte, int64, error) {
	_, err := s.File(ctx, m, index, 0)
	return nil, 0, err
}

// Icon always fails with fs.ErrNotExist: bundles have none.
func (s *Source) Icon(_ context.Context, m manifest.Manifest) (*verify.Stream, error) {
	return nil, fmt.Errorf("imported image %s has no icon: %w", m.UUID, fs.ErrNotExist)
}
