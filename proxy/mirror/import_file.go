package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

// ErrOffset is matched when bytes are sent that the mirror cannot go on with.
var ErrOffset = errors.New("the file is not wanted from there")

// Take brings n bytes of a file to disk, from offset on, and tells how many bytes of the file are
// here then. The last bytes of a file complete its images. Bytes that came before a break are kept.
// An error that matches neither fs.ErrNotExist, ErrOffset, ErrBroke nor cache.ErrClosed refuses an
// image; other images of the bundle may still come. The caller ends the reads of body when ctx
// ends.
func (in *Import) Take(ctx context.Context, sum verify.Sum, offset, n int64, body io.Reader) (have int64, err error) {
	i, f, err := in.begin(sum)
	if err != nil {
		return 0, err
	}
	defer in.rest()
	file := in.index.Images[i].Files[f]
	if offset < 0 || n < 0 || n > file.Size || offset > file.Size-n {
		return 0, fmt.Errorf("%w: %d bytes from %d on, and %s has %d", ErrOffset, n, offset, file.Path, file.Size)
	}
	if n > 0 && !in.m.HasFile(file.Want()) {
		err = in.deliver(ctx, place{i, f}, offset, n, body)
	}
	have = in.have(in.index.Images[i])[f]
	switch {
	case err == nil, errors.Is(err, cache.ErrClosed), errors.Is(err, ErrOffset):
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case have >= offset+n: // the rest comes later
		err = nil
	case errors.Is(err, ErrBroke):
	default:
		if errors.Is(err, verify.ErrMismatch) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		err = fmt.Errorf("%s: %w", file.Path, err)
		in.mu.Lock()
		in.rows[i].State, in.rows[i].Err = ImageRefused, err
		in.mu.Unlock()
	}
	return have, errors.Join(err, in.took(ctx, sum, err != nil))
}

// deliver brings n bytes of a file to disk, from offset on. A whole part is held against its sum.
func (in *Import) deliver(ctx context.Context, at place, offset, n int64, body io.Reader) error {
	file := in.index.Images[at.image].Files[at.file]
	d := newDelivery(file.Path, offset, offset+n, file.Size)
	begin := int64(0)
	for _, part := range file.Parts {
		if begin == offset && part.Size == n {
			hash := sha256.New()
			body = io.TeeReader(body, hash)
			d.name, d.check = part.Path, func() error {
				if sum := bundle.SHA256(hash.Sum(nil)); sum != part.SHA256 {
					return fmt.Errorf("%w: sha256 is %s, want %s", verify.ErrMismatch, sum, part.SHA256)
				}
				return nil
			}
		}
		begin += part.Size
	}
	blob, _ := blobOf(catalog.Entry{Manifest: in.images[at.image], Source: own.Imported}, at.file)
	blob.Want, blob.By = file.Want(), cache.ByBundle
	r, err := in.m.deliver(ctx, blob, own.Imported, d, body)
	if err == nil {
		r.Close() //nolint:errcheck // nothing was read
	}
	return err
}

// place is a file of an image, by numbers in the index.
type place struct{ image, file int }

// begin finds the image that a file comes for: the first image without the file that is not
// refused. begin counts a request; rest ends the request.
func (in *Import) begin(sum verify.Sum) (image, file int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return 0, 0, noImport(in.id)
	}
	err = fmt.Errorf("no image of bundle %s has a file %s: %w", in.index.ID, sum, fs.ErrNotExist)
	var to *place
	for _, p := range in.places[sum] {
		row := in.rows[p.image]
		if row.State == ImageRefused {
			err = row.Err
			continue
		}
		if to = &p; row.Have[p.file] < in.index.Images[p.image].Files[p.file].Size {
			break
		}
	}
	if to == nil {
		return 0, 0, err
	}
	in.taking.Add(1)
	in.busy++
	return to.image, to.file, nil
}

// rest ends a request.
func (in *Import) rest() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.busy--
	in.last = time.Now()
	in.taking.Done()
}

// took notes what is here of a file, and records and lists the images which are complete by now.
func (in *Import) took(ctx context.Context, sum verify.Sum, broke bool) (err error) {
	for _, p := range in.places[sum] {
		err = errors.Join(err, in.complete(p.image))
	}
	return errors.Join(err, in.list(ctx, broke)) // after a break no other request may come
}
