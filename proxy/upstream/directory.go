package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// directory is a source of kind directory; its rules are in the package comment.
// The folder is opened anew for each call, so it may be mounted or replaced meanwhile.
type directory struct {
	path    string
	options manifest.ParseOptions
	report  func(skipped []error)
	lists   *account // in which manifests that are being read count
	// Bounds of the folder: its names, and the bytes of its manifests.
	maxNames int
	maxText  int64

	mu   sync.Mutex // guards what follows; not held over I/O
	last *snapshot  // nil: not looked yet
	seen map[uuid.UUID]place
}

// snapshot is what a folder held at one time. Immutable.
type snapshot struct {
	surveyed    string // fingerprint of the survey
	fingerprint string // of that, and of what could not be read after it
	images      []manifest.Manifest
	refusals    manifest.Refusals // what else looks like manifests
	places      map[uuid.UUID]place
	unread      []unread
	faults      []error // what else cannot be read, and links that lead out
}

// place is where the manifest of an image lies.
type place struct {
	manifest string // its path below the folder
	real     string // the same without links
	folder   string // relative to the root, "." at the top
	name     string // of the manifest without its extension; "" for a manifest that has its folder for itself
}

// unread is something in the folder that cannot be read: which images lie there is not known.
type unread struct {
	at  string // relative to the root
	err error
}

func (d *directory) list(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	s, err := d.look(ctx, prev, true)
	if err != nil {
		return manifest.Listing{}, err
	}
	images := s.images
	if prev.Kind == kindDirectory { // else it was another source's
		images = append(slices.Clip(images), d.hidden(s, prev.Images)...)
	}
	return manifest.Listing{Kind: kindDirectory, Images: images, Refusals: s.refusals, ETag: s.fingerprint, Trouble: s.trouble()}, nil
}

// hidden gives those of had that s lacks only because something could not be read. An image that
// was not seen in this process may lie in anything unreadable but lost+found.
func (d *directory) hidden(s *snapshot, had []manifest.Manifest) []manifest.Manifest {
	if len(s.unread) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var hidden []manifest.Manifest
	for _, m := range had {
		if _, ok := s.places[m.UUID]; ok {
			continue
		}
		if p, ok := d.seen[m.UUID]; ok && !s.hides(p) || !ok && !s.mayHide() {
			continue
		}
		hidden = append(hidden, m)
	}
	return hidden
}

// hides tells whether what lies at p cannot be read.
func (s *snapshot) hides(p place) bool {
	return slices.ContainsFunc(s.unread, func(u unread) bool { return below(p.manifest, u.at) })
}

// mayHide tells whether there may be images that cannot be read.
func (s *snapshot) mayHide() bool {
	return slices.ContainsFunc(s.unread, func(u unread) bool { return path.Base(u.at) != lostAndFound })
}

// trouble says what could not be read, and which links are refused.
func (s *snapshot) trouble() string {
	const most = 5
	var said []string
	for _, err := range s.wrong() {
		said = append(said, err.Error())
	}
	if more := len(said) - most; more > 0 {
		said = append(said[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(said, "; ")
}

// wrong is all that trouble tells of.
func (s *snapshot) wrong() []error {
	var all []error
	for _, u := range s.unread {
		all = append(all, u.err)
	}
	return append(all, s.faults...)
}

func (d *directory) get(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	s, err := d.look(ctx, manifest.Listing{}, false)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if i := slices.IndexFunc(s.images, func(m manifest.Manifest) bool { return m.UUID == id }); i >= 0 {
		return s.images[i], nil
	}
	d.mu.Lock()
	p, ok := d.seen[id]
	d.mu.Unlock()
	for _, u := range s.unread {
		if ok && below(p.manifest, u.at) || strings.Contains(u.at, id.String()) {
			return manifest.Manifest{}, fmt.Errorf("%w: %v", verify.ErrUnavailable, u.err) //nolint:errorlint // what is there is not known
		}
	}
	return manifest.Manifest{}, fmt.Errorf("%w: no manifest in %s has this uuid", fs.ErrNotExist, d.path)
}

// look gives what the folder holds now; manifest.ErrNotModified when prev says the same. A folder
// that is not there is unavailable, not empty. again: what was unreadable the last time is tried
// anew.
func (d *directory) look(ctx context.Context, prev manifest.Listing, again bool) (*snapshot, error) {
	t, err := openTree(d.path)
	if err != nil {
		return nil, err
	}
	defer t.Close() //nolint:errcheck // only read
	found, err := survey(ctx, t, d.maxNames)
	if err != nil {
		return nil, err
	}
	notModified := func(fingerprint string) bool { return prev.Kind == kindDirectory && prev.ETag == fingerprint }
	if notModified(found.fingerprint) {
		return nil, manifest.ErrNotModified
	}
	d.mu.Lock()
	s := d.last
	d.mu.Unlock()
	if s == nil || s.surveyed != found.fingerprint || again && s.fingerprint != found.fingerprint {
		if s, err = d.read(t, found); err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.last = s
		maps.Copy(d.seen, s.places)
		d.mu.Unlock()
	}
	if notModified(s.fingerprint) {
		return nil, manifest.ErrNotModified
	}
	return s, nil
}

// open opens the folder, and finds where the image lies in it. The caller closes the folder.
func (d *directory) open(ctx context.Context, id uuid.UUID) (*dirRoot, place, error) {
	p, err := d.place(ctx, id)
	if err != nil {
		return nil, place{}, err
	}
	t, err := openTree(d.path)
	return t, p, err
}

// place finds where the image lies, or last lay; place looks again for an image that the last look
// did not show.
func (d *directory) place(ctx context.Context, id uuid.UUID) (place, error) {
	d.mu.Lock()
	s := d.last
	d.mu.Unlock()
	if s != nil {
		if p, ok := s.places[id]; ok {
			return p, nil
		}
	}
	s, err := d.look(ctx, manifest.Listing{}, false)
	if err != nil {
		return place{}, err
	}
	if p, ok := s.places[id]; ok {
		return p, nil
	}
	d.mu.Lock()
	p, ok := d.seen[id]
	d.mu.Unlock()
	switch {
	case ok && s.hides(p):
		return p, nil
	case !ok && s.mayHide():
		return place{}, fmt.Errorf("%w: %s", verify.ErrUnavailable, s.trouble())
	}
	return place{}, fmt.Errorf("%w: no manifest in %s has this uuid", fs.ErrNotExist, d.path)
}

// localError gives an error of the file system one of our meanings.
func localError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
}
