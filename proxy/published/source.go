// Package published owns the images that the mirror itself is the source of:
// which they are, what an image must be to become one, and what must hold
// before one may go. To the catalogue they are one more source, whose list
// changes by Publish and Unpublish only.
//
// It keeps nothing on disk itself: files go through the cache's door like all
// others, and the list is saved with those of the other sources.
package published

import (
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
const Name = "published"

// Kind is the kind of source that Listings tell.
const Kind = "published"

// Errors of Publish and Unpublish; others are those of manifest.Parse, of the
// store, and what a manifest says wrongly of its file (verify.ErrMismatch).
var (
	// ErrExists says that there is an image of that uuid already.
	ErrExists = errors.New("the image exists already")
	// ErrOrigin says that the image is incremental to one that is not there.
	ErrOrigin = errors.New("the image's origin is not there")
	// ErrDependent says that other published images are incremental to the image.
	ErrDependent = errors.New("the image has dependent images")
)

// Open gives the bytes of an upload from offset on. It can be called once.
type Open func(ctx context.Context, offset int64) (*verify.Stream, error)

// Options of New. The funcs are required; they are called without a lock held
// and may be called concurrently.
type Options struct {
	// Images are those that earlier runs have published, as they were saved.
	Images []manifest.Manifest
	// Listed tells which source the catalogue has the image from; "" = it does
	// not know it. It asks nobody.
	Listed func(id uuid.UUID) (source string)
	// Find finds an image wherever it may be. The error matches fs.ErrNotExist
	// when there is none, else it means "cannot tell".
	Find func(ctx context.Context, id uuid.UUID) (manifest.Manifest, error)
	// Store brings the file of m to disk, verified, and returns when it is there.
	// It stays at least until release is called, and is not m's before Own.
	Store func(ctx context.Context, m manifest.Manifest, open Open) (release func(), err error)
	// Own notes that the file is m's, so that a start finds the image, and Disown that it
	// is m's no more. Both last when they return nil, and have done nothing else.
	Own, Disown func(m manifest.Manifest) error
	// Changed has the catalogue take the list anew, and save it: when it
	// returns nil, both has happened.
	Changed func(ctx context.Context) error
	// Remove takes what is kept of an image that is published no more, and disowned: its
	// file, unless another image has the same one.
	Remove func(ctx context.Context, m manifest.Manifest) error
	Logger *slog.Logger // nil = discard
}

// Source is the published images as a source of the catalogue. Its methods may
// be called concurrently.
type Source struct {
	o   Options
	log *slog.Logger

	mu      sync.Mutex // guards what follows; never held over I/O
	images  map[uuid.UUID]manifest.Manifest
	coming  map[uuid.UUID]uuid.UUID // images being published, and their origins
	leaving map[uuid.UUID]bool      // images being unpublished
}

// New makes the source. Images that cannot be read as private ones may be are
// left out and logged.
func New(o Options) *Source {
	s := &Source{
		o:       o,
		log:     o.Logger,
		images:  make(map[uuid.UUID]manifest.Manifest),
		coming:  make(map[uuid.UUID]uuid.UUID),
		leaving: make(map[uuid.UUID]bool),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, m := range o.Images {
		parsed, err := parse(m.Raw())
		if err != nil {
			s.log.Error("a published image is not what it was", "uuid", m.UUID, "error", err)
			continue
		}
		s.images[m.UUID] = parsed
	}
	return s
}

// parse reads a manifest with the eyes of this source: what is published here
// is meant to be served, public or not.
func parse(text []byte) (manifest.Manifest, error) {
	return manifest.Parse(text, manifest.ParseOptions{ServePrivate: true})
}

// Name is always Name.
func (s *Source) Name() string { return Name }

// List gives the published images, in order of their uuids. It never fails.
func (s *Source) List(context.Context, manifest.Listing) (manifest.Listing, error) {
	return manifest.Listing{Source: Name, Kind: Kind, Fetched: time.Now(), Images: s.Images()}, nil
}

// Images gives the published images, in order of their uuids.
func (s *Source) Images() []manifest.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := make([]manifest.Manifest, 0, len(s.images))
	for _, m := range s.images {
		images = append(images, m)
	}
	slices.SortFunc(images, func(a, b manifest.Manifest) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
	return images
}

// Get gives one published image; else the error matches fs.ErrNotExist.
func (s *Source) Get(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.images[id]; ok {
		return m, nil
	}
	return manifest.Manifest{}, &absentError{id}
}

// absentError says that an image is not published, and no more than that. It
// matches fs.ErrNotExist.
type absentError struct{ id uuid.UUID }

func (e *absentError) Error() string {
	return fmt.Sprintf("image %s is not published on this mirror", e.id)
}

// Is is for errors.Is.
func (e *absentError) Is(target error) bool { return target == fs.ErrNotExist }

// Keeps tells whether the image's file, once it is on disk, must stay there: it
// is published, or about to be, and nobody else has it.
func (s *Source) Keeps(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, published := s.images[id]
	_, coming := s.coming[id]
	return published || coming
}

// File always fails with fs.ErrNotExist: the only copy is the one that the
// cache had when the image was published.
func (s *Source) File(_ context.Context, m manifest.Manifest, _ int, _ int64) (*verify.Stream, error) {
	return nil, fmt.Errorf("the file of published image %s is nowhere but in the cache: %w", m.UUID, fs.ErrNotExist)
}

// Head always fails with fs.ErrNotExist, as File does.
func (s *Source) Head(ctx context.Context, m manifest.Manifest, index int) ([]byte, int64, error) {
	_, err := s.File(ctx, m, index, 0)
	return nil, 0, err
}

// Icon always fails with fs.ErrNotExist: published images have none.
func (s *Source) Icon(_ context.Context, m manifest.Manifest) (*verify.Stream, error) {
	return nil, fmt.Errorf("published image %s has no icon: %w", m.UUID, fs.ErrNotExist)
}
