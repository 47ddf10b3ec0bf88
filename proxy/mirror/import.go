package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

const (
	// listImportsEvery is how long the catalogue may lack images that were added while an import
	// goes on.
	listImportsEvery = 2 * time.Second
	// listImportsTimeout bounds one update of the catalogue.
	listImportsTimeout = 30 * time.Second
)

var (
	// ErrBundleBase is matched when a delta leaves out images that are not here.
	ErrBundleBase = errors.New("the base of the bundle is missing")
	// ErrDamaged is matched when bytes of a bundle are not what its index says.
	ErrDamaged = errors.New("damaged")
	// ErrIncomplete is matched by the error of an image that lacks bytes of its files.
	ErrIncomplete = errors.New("not complete")
)

// States of an ImportedImage.
const (
	ImageAdded   = "added"
	ImagePresent = "present" // the image was here before
	ImageRefused = "refused"
	ImageWaiting = "waiting" // for bytes of its files, or for its origin
)

// Bundle is what an import is told before the first file: the index, its signature, and the
// manifests of all images as the index names them.
type Bundle struct {
	Index     bundle.Index
	Sig       []byte // nil: unsigned
	Volume    int    // of whose files the import is, from 1
	Manifests [][]byte
}

// ImportReport tells what has become of a bundle.
type ImportReport struct {
	ID     string // of the import; "": nothing is taken
	Index  bundle.Index
	Volume int
	Key    string          // that signed the bundle and is trusted; "": the signature was not checked
	Images []ImportedImage // those of the index, in its order
}

// ImportedImage is one image of a bundle.
type ImportedImage struct {
	State string
	Have  []int64 // of each file: the bytes that are here, from where on the mirror takes the file; read only
	Err   error   // why the image is refused, or what it waits for

	recorded bool // by this import
}

// Import is one volume of a bundle on its way into the mirror, between BeginImport and End. The
// images of the bundle are kept from eviction meanwhile. Methods may be called concurrently.
type Import struct {
	m       *Mirror
	id      string
	index   bundle.Index
	bytes   int64 // of the index and of the manifests
	volume  int
	from    own.Provenance
	images  []manifest.Manifest // as this mirror reads them
	places  map[verify.Sum][]place
	release func() // of Source.Expect

	taking sync.WaitGroup // calls of Take; added to under mu while not ended

	mu     sync.Mutex // guards what follows; never held over I/O
	rows   []ImportedImage
	ended  bool
	busy   int       // calls of Take
	last   time.Time // the last request began or ended
	dirty  bool      // images were added that the catalogue lacks
	listed time.Time
}

// BeginImport decides whether the bundle is taken. A bundle is refused as a whole by errors that
// match bundle.ErrInvalid, bundle.ErrSignature, ErrBundleBase or ErrManyImports. Images whose files
// are all here are imported at once. The import lasts until End, or for an hour without a call of
// Take. A dry run takes nothing: its Import only reports.
func (m *Mirror) BeginImport(ctx context.Context, b Bundle, dryRun bool) (*Import, error) {
	in, err := m.newImport(b)
	if err != nil || dryRun {
		return in, err
	}
	in.id = uuid.NewString()
	ids := make([]uuid.UUID, len(b.Index.Images))
	for i, image := range b.Index.Images {
		ids[i] = image.UUID
	}
	in.release = m.imported.Expect(ids...)
	if !m.imports.add(in) {
		if m.endQuiet(ctx, importGrace); !m.imports.add(in) {
			in.release()
			return nil, fmt.Errorf("%w: %d imports, or %d bytes of indexes and manifests, at most", ErrManyImports, maxImports, m.imports.limit)
		}
	}
	for i := range in.rows {
		err = errors.Join(err, in.complete(i))
	}
	if err = errors.Join(err, in.list(ctx, true)); err != nil {
		m.imports.remove(in)
		in.release()
		return nil, err
	}
	return in, nil
}

// newImport judges a bundle and looks what is here of it.
func (m *Mirror) newImport(b Bundle) (*Import, error) {
	x := b.Index
	key, err := m.trust.Check(x, b.Sig)
	if err != nil {
		return nil, err
	}
	if b.Volume < 1 || b.Volume > x.Volumes {
		return nil, fmt.Errorf("%w: volume is %d: the bundle has volumes 1 to %d", manifest.ErrInvalid, b.Volume, x.Volumes)
	}
	manifests, err := x.Manifests(b.Manifests)
	if err != nil {
		return nil, err
	}
	if err := m.checkBase(x); err != nil {
		return nil, err
	}
	in := &Import{
		m: m, index: x, volume: b.Volume, last: time.Now(),
		images: make([]manifest.Manifest, len(x.Images)), rows: make([]ImportedImage, len(x.Images)), places: make(map[verify.Sum][]place),
		from: own.Provenance{
			Bundle: x.ID.String(), Created: x.Created, Mirror: x.Mirror.Name + " " + x.Mirror.Version, Key: key,
			Imported: time.Now().UTC().Truncate(time.Second),
		},
	}
	in.bytes = int64(len(x.Bytes()))
	for i, image := range x.Images {
		in.bytes += int64(len(b.Manifests[i]))
		row := &in.rows[i]
		*row = ImportedImage{State: ImageWaiting, Have: in.have(image)}
		for f, file := range image.Files {
			in.places[file.SHA1] = append(in.places[file.SHA1], place{i, f})
		}
		if m.knows(image.UUID) && row.missing(image) < 0 {
			row.State = ImagePresent
		}
		err := m.checkConflict(image)
		if err == nil {
			in.images[i], err = own.Parse(bytes.Clone(manifests[i].Raw()))
		}
		if err != nil {
			row.State, row.Err = ImageRefused, err
		}
	}
	return in, nil
}

// checkBase is an error unless all is here that a delta leaves out.
func (m *Mirror) checkBase(x bundle.Index) error {
	var missing []string
	for _, held := range x.Requires {
		absent := func(sum verify.Sum) bool { return !m.HasFile(verify.Want{SHA1: sum}) }
		if slices.ContainsFunc(held.Files, absent) || !m.knows(held.UUID) {
			missing = append(missing, held.UUID.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	const most = 5
	text := strings.Join(missing[:min(len(missing), most)], ", ")
	if len(missing) > most {
		text += fmt.Sprintf(" and %d more", len(missing)-most)
	}
	return fmt.Errorf("%w: bundle %s leaves out %d images that it takes for granted (%s), and %d of them are not here: %s",
		ErrBundleBase, x.ID, len(x.Requires), x.Since, len(missing), text)
}

// have tells of each file of an image how many bytes are here. An unfinished download with all its
// bytes counts for none: its bytes have not been judged, and the mirror wants the file from its
// start if the bytes are wrong.
func (in *Import) have(image bundle.Image) []int64 {
	have := make([]int64, len(image.Files))
	for f, file := range image.Files {
		if in.m.HasFile(file.Want()) {
			have[f] = file.Size
		} else if n := in.m.store.Unfinished(cache.Blob{Want: file.Want()}); n < file.Size {
			have[f] = n
		}
	}
	return have
}

// missing is the first file of an image that is not here, -1 when all are.
func (r ImportedImage) missing(image bundle.Image) int {
	for f, file := range image.Files {
		if r.Have[f] < file.Size {
			return f
		}
	}
	return -1
}

// Report tells what has become of the bundle so far.
func (in *Import) Report() ImportReport {
	in.mu.Lock()
	defer in.mu.Unlock()
	return ImportReport{ID: in.id, Index: in.index, Volume: in.volume, Key: in.from.Key, Images: slices.Clone(in.rows)}
}

// End ends the import once the files that are coming have come or broken off, and tells what
// became of the bundle. The error says why images that are recorded are not all listed.
func (in *Import) End(ctx context.Context) (ImportReport, error) {
	if !in.m.imports.remove(in) {
		return ImportReport{}, noImport(in.id)
	}
	in.taking.Wait()
	defer in.release() // behind the last image
	var err error
	for i := range in.rows {
		err = errors.Join(err, in.complete(i))
	}
	err = errors.Join(err, in.list(ctx, true))
	r := in.Report()
	for i, image := range r.Index.Images {
		row := &r.Images[i]
		switch f := row.missing(image); {
		case row.State == ImageRefused:
		case f >= 0:
			row.Err = fmt.Errorf("%w: file %s is missing from byte %d on: %s", ErrIncomplete, image.Files[f].Path, row.Have[f], in.where(image.Files[f], row.Have[f]))
		case image.Origin != uuid.Nil && !in.m.knows(image.Origin):
			row.State = ImageWaiting
			row.Err = fmt.Errorf("%w yet: %s", ErrOrigin, image.Origin)
		}
	}
	return r, err
}

// where tells which volume has the bytes of a file from offset on.
func (in *Import) where(f bundle.File, offset int64) string {
	volume := f.Volume
	for _, p := range f.Parts {
		if volume = p.Volume; offset < p.Size {
			break
		}
		offset -= p.Size
	}
	if volume == in.volume {
		return fmt.Sprintf("volume %d was not read to its end", volume)
	}
	return fmt.Sprintf("volume %d has the rest", volume)
}

// complete notes what is here of an image, and records the image as imported once all its files are
// on disk.
func (in *Import) complete(i int) error {
	have := in.have(in.index.Images[i])
	in.mu.Lock()
	in.rows[i].Have = have
	row := in.rows[i]
	todo := row.State != ImageRefused && !row.recorded && row.missing(in.index.Images[i]) < 0
	in.mu.Unlock()
	if !todo {
		return nil
	}
	if err := in.m.imported.Add(in.images[i], in.from); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.dirty, in.rows[i].recorded = true, true
	if in.rows[i].State == ImageWaiting {
		in.rows[i].State = ImageAdded
	}
	return nil
}

// list brings added images into the catalogue, at once or now and then, also for a client that has
// left.
func (in *Import) list(ctx context.Context, atOnce bool) error {
	in.mu.Lock()
	due := in.dirty && (atOnce || time.Since(in.listed) >= listImportsEvery)
	if due {
		in.dirty, in.listed = false, time.Now()
	}
	in.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listImportsTimeout)
	defer cancel()
	err := in.m.retake(ctx, own.Imported)
	if err != nil {
		in.mu.Lock()
		in.dirty = true
		in.mu.Unlock()
	}
	return err
}

// Provenance tells where an image came from; false: not from a bundle.
func (m *Mirror) Provenance(id uuid.UUID) (own.Provenance, bool) {
	return m.imported.Provenance(id)
}

// HasFile tells whether a file is on disk, verified.
func (m *Mirror) HasFile(want verify.Want) bool {
	_, ok := m.store.Peek(cache.Blob{Want: want})
	return ok
}

// knows tells whether the mirror has the image, from wherever.
func (m *Mirror) knows(id uuid.UUID) bool {
	if _, ok := m.imported.Provenance(id); ok {
		return true
	}
	_, ok := m.Current().Entry(id)
	return ok
}

// checkConflict is an error that matches ErrExists if the mirror has the image with other files.
func (m *Mirror) checkConflict(image bundle.Image) error {
	e, ok := m.Current().Entry(image.UUID)
	if !ok {
		return nil
	}
	same := len(e.Manifest.Files) == len(image.Files)
	for i := 0; same && i < len(image.Files); i++ {
		is := e.Manifest.Files[i].SHA1
		same = is == image.Files[i].SHA1 || is.IsZero()
	}
	if same {
		return nil
	}
	return fmt.Errorf("image %s: %w: source %s has it with other files", image.UUID, ErrExists, e.Source)
}
