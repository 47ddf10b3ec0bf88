package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/history"
	"imgmirror/proxy/own"
)

// Errors of Publish and Unpublish; others are those of manifest.ParsePublished, of the store, and
// what a manifest says wrongly of its file (verify.ErrMismatch).
var (
	// ErrExists says that there is an image of that uuid already.
	ErrExists = errors.New("the image exists already")
	// ErrOrigin says that the image is incremental to one that is not there.
	ErrOrigin = errors.New("the image's origin is not there")
	// ErrDependent says that other published images are incremental to the image.
	ErrDependent = errors.New("the image has dependent images")
)

// Publish makes an image of a manifest (v2 or v1) and its file, which is read to its end. When
// Publish returns nil the file is on disk, verified, and the image is recorded and in the
// catalogue. Before a byte is stored the manifest must be one that clients may be shown (see
// manifest.ParsePublished), its uuid new and its origin there, and the first bytes of the file must
// not be known for something else (see checkHead).
//
// A failure leaves the list as it was. The file may stay in the cache, of no image, where eviction
// may take it. A process that ends before Publish has returned leaves either that, or an image that
// the next start publishes.
func (m *Mirror) Publish(ctx context.Context, text []byte, file io.Reader) (manifest.Manifest, error) {
	image, err := manifest.ParsePublished(text)
	if err != nil {
		return manifest.Manifest{}, err
	}
	done, err := m.reserve(image)
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer done()
	err = m.checkOrigin(ctx, image)
	if err == nil {
		err = m.receive(ctx, image, file)
	}
	if err == nil { // the request may be gone by now: the file is here, so the rest is done anyway
		err = m.enlist(context.WithoutCancel(ctx), image)
	}
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("image %s: %w", image.UUID, err)
	}
	m.history.Add(m.eventOf(image.UUID, history.KindPublished))
	return image, nil
}

// publishing is the publishes and unpublishes under way.
type publishing struct {
	mu  sync.Mutex
	all map[uuid.UUID]change
}

// change is what is under way with one image.
type change struct {
	origin  uuid.UUID // of an image being published
	leaving bool      // the image is being unpublished
}

// begin notes a change until done. p.mu is held.
func (p *publishing) begin(id uuid.UUID, c change) (done func()) {
	p.all[id] = c
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, id)
	}
}

// reserve notes until done that image is being published, unless that cannot be.
func (m *Mirror) reserve(image manifest.Manifest) (done func(), err error) {
	p := &m.publishing
	p.mu.Lock()
	defer p.mu.Unlock()
	listed, _ := m.Current().Entry(image.UUID)
	_, published := m.published.Provenance(image.UUID)
	_, busy := p.all[image.UUID]
	switch {
	case busy:
		return nil, fmt.Errorf("image %s: %w: it is being published or unpublished just now", image.UUID, ErrExists)
	case published:
		return nil, fmt.Errorf("image %s: %w: it is published", image.UUID, ErrExists)
	case listed.Source != "":
		return nil, fmt.Errorf("image %s: %w: source %s has it", image.UUID, ErrExists, listed.Source)
	case p.all[image.Origin].leaving:
		return nil, fmt.Errorf("image %s: %w: %s is being unpublished", image.UUID, ErrOrigin, image.Origin)
	}
	end, unexpect := p.begin(image.UUID, change{origin: image.Origin}), m.published.Expect(image.UUID)
	return func() { unexpect(); end() }, nil
}

func (m *Mirror) checkOrigin(ctx context.Context, image manifest.Manifest) error {
	if !image.HasOrigin() {
		return nil
	}
	origin, err := m.Get(ctx, image.Origin)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: no source has %s", ErrOrigin, image.Origin)
	case err != nil:
		return fmt.Errorf("its origin %s cannot be looked up: %w", image.Origin, err)
	case len(origin.Manifest.Files) == 0:
		return fmt.Errorf("%w: %s has no file", ErrOrigin, image.Origin)
	}
	return nil
}

// enlist makes a received image one of the published: first its record, which is what a start
// believes, then the list. A failure takes back the record and removes the file.
func (m *Mirror) enlist(ctx context.Context, image manifest.Manifest) error {
	err := m.published.Add(image, own.Provenance{})
	if err == nil {
		if err = m.retake(ctx, own.Published); err == nil {
			return nil
		}
		err = fmt.Errorf("the list could not be saved: %w", err)
		_, stays := m.published.Remove(image.UUID)
		err = errors.Join(err, stays, m.retake(ctx, own.Published))
		if stays != nil {
			return err
		}
	}
	return errors.Join(err, m.disown(image), m.removeOwn(ctx, image))
}

// Unpublish takes a published image back and gives its manifest. The file goes too, unless other
// images have the same file. When Unpublish returns nil, no start finds the image again. The error
// matches fs.ErrNotExist when the image is not published, and ErrDependent when other published
// images are incremental to the image.
//
// The list goes first, then what the cache knows, then the record, then the file: a process that
// ends before the record is gone leaves the image published.
func (m *Mirror) Unpublish(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	image, done, err := m.leave(id)
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer done()
	ctx = context.WithoutCancel(ctx) // what has begun is ended, whoever waits for the end
	restore := m.published.Withdraw(id)
	if err = m.retake(ctx, own.Published); err != nil {
		err = fmt.Errorf("the list could not be saved: %w", err)
	} else if err = m.disown(image); err == nil {
		_, err = m.published.Remove(id)
	}
	if err != nil {
		restore()
		err = errors.Join(err, m.own(image), m.retake(ctx, own.Published))
		return manifest.Manifest{}, fmt.Errorf("image %s stays published: %w", id, err)
	}
	m.history.Add(history.Event{Kind: history.KindUnpublished, UUID: id.String(), Text: titleOf(image), Private: !image.Public})
	if err := m.removeOwn(ctx, image); err != nil {
		return image, fmt.Errorf("image %s is published no more, but its file stays: %w", id, err)
	}
	return image, nil
}

// leave notes until done that a published image is being unpublished, unless another one depends on
// the image.
func (m *Mirror) leave(id uuid.UUID) (image manifest.Manifest, done func(), err error) {
	p := &m.publishing
	p.mu.Lock()
	defer p.mu.Unlock()
	image, err = m.published.Get(context.Background(), id)
	if _, busy := p.all[id]; busy || err != nil {
		return image, nil, tell(fs.ErrNotExist, "image %s is not published here", id)
	}
	var children []string
	for _, child := range m.published.Images() {
		if child.Origin == id {
			children = append(children, child.UUID.String())
		}
	}
	for child, c := range p.all {
		if c.origin == id {
			children = append(children, child.String())
		}
	}
	if len(children) > 0 {
		slices.Sort(children)
		return image, nil, fmt.Errorf("image %s: %w: %v", id, ErrDependent, slices.Compact(children))
	}
	return image, p.begin(id, change{leaving: true}), nil
}

// ownBlob is the file of a published image.
func ownBlob(image manifest.Manifest) cache.Blob {
	blob, _ := blobOf(catalog.Entry{Manifest: image, Source: own.Published}, 0)
	blob.By = cache.ByPublish
	return blob
}

// own notes in the cache that a published image has its file.
func (m *Mirror) own(image manifest.Manifest) error {
	err := m.store.Own(ownBlob(image))
	if errors.Is(err, fs.ErrNotExist) { // to a client that would mean another thing
		return fmt.Errorf("its file was removed: %v", err) //nolint:errorlint // see above
	}
	return err
}

// disown takes own back.
func (m *Mirror) disown(image manifest.Manifest) error {
	return m.store.Disown(image.UUID, image.Files[0].SHA1)
}

// removeOwn removes the file of an image that is published no more, unless another image, or a draft,
// has the same.
func (m *Mirror) removeOwn(ctx context.Context, image manifest.Manifest) error {
	file := image.Files[0]
	if other, _, ok := m.Current().BySum(file.SHA1, file.Size); ok && other.Manifest.UUID != image.UUID {
		m.log.Info("the file of an unpublished image stays: another image has it",
			"uuid", image.UUID, "sum", file.SHA1, "other", other.Manifest.UUID)
		return nil
	}
	m.drafts.files.Lock()
	defer m.drafts.files.Unlock()
	if m.drafts.needed(file.SHA1) { // the file goes, or stays, with the draft
		return m.noteUpload(file.SHA1)
	}
	_, err := m.store.Remove(ctx, file.SHA1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file %s: %w", file.SHA1, err)
	}
	return nil
}
