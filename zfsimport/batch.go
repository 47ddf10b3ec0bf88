package zfsimport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Batch installs images into one pool, one after the other. An image and the images of the Batch that
// are built on it, directly or through others, are a family. With its first image a family takes the
// import locks of all its images, and the turn to receive. The family keeps both until its last image
// is installed, or an image fails. imgadm decides what is missing before it locks, and locks from the
// top down to the base: so imgadm finds nothing of a family or all of it. The images of a family
// follow each other: see Families. A Batch is for one goroutine; the caller closes it.
type Batch struct {
	// NoWait: an image that another process imports is an error that matches ErrLocked. Else the Batch
	// waits for the other process.
	NoWait bool

	im     *Importer
	pool   string
	images []manifest.Manifest

	place *place
	locks []*importLock
	held  map[uuid.UUID]bool // the images of these locks
	last  uuid.UUID          // the last image of the family
}

// Batch plans to install images, in their order, into the pool ("" = the default). images holds no
// image that Install is not called for.
func (im *Importer) Batch(pool string, images []manifest.Manifest) *Batch {
	return &Batch{im: im, pool: pool, images: images}
}

// Install brings one image of the Batch into the pool, unless the image is there. The image's origin
// must be there. One family is received at a time, in the order of the first calls; the other
// families wait. progress, if any, is called at the beginning and then from one goroutine at a time,
// until Install returns. The end of ctx destroys an image that was received in part.
//
// The error matches an error of this package where a caller may want to decide on it, or is the error
// of the file's reads. The pool is then as before, with one exception: when only imgadm's record
// could not be put in its place, the image stays, and the next call repairs the record.
func (b *Batch) Install(ctx context.Context, image manifest.Manifest, progress func(Progress)) (Outcome, error) {
	pool, err := b.im.pool(b.pool)
	if err != nil {
		return "", err
	}
	outcome, err := b.install(ctx, b.im.newInstall(pool, image, progress))
	if err != nil || image.UUID == b.last {
		b.Close()
	}
	b.im.metrics.ended(outcome)
	if err != nil {
		err = fmt.Errorf("install %s (%s %s) into %s: %w", image.UUID, image.Name, image.Version, pool, err)
	}
	return outcome, err
}

func (b *Batch) install(ctx context.Context, in *install) (Outcome, error) {
	im := b.im
	if !b.held[in.image.UUID] {
		b.Close()
		b.place = im.turn.join() // before all steps that take time: places are in the order of the calls
	}
	in.reception.report()
	if err := installable(in.image); err != nil {
		return "", err
	}
	if err := im.Check(ctx, in.pool); err != nil {
		return "", err
	}
	if there, err := in.present(ctx); err != nil {
		return "", err
	} else if there {
		if len(b.locks) == 0 {
			b.Close()
		}
		return Present, nil
	}
	if err := im.runnable(ctx, in.image); err != nil {
		return Skipped, err
	}
	if !b.held[in.image.UUID] {
		if err := b.claim(ctx, in.image); err != nil {
			return "", err
		}
	}
	there, err := im.exists(ctx, in.dataset)
	if err != nil {
		return "", err
	}
	if there { // another process has imported the image, or the record is missing
		return in.repair(ctx)
	}
	return in.fresh(ctx)
}

// family gives an image and the images of the Batch that are built on it, in the order of the Batch,
// and for each image the number of images of the family below.
func (b *Batch) family(from manifest.Manifest) ([]manifest.Manifest, map[uuid.UUID]int) {
	family, depth := []manifest.Manifest{from}, map[uuid.UUID]int{from.UUID: 0}
	for _, image := range b.images {
		if below, ok := depth[image.Origin]; ok && image.HasOrigin() && image.UUID != from.UUID {
			family, depth[image.UUID] = append(family, image), below+1
		}
	}
	return family, depth
}

// Families gives images in an order in which the images of each family follow each other. In all, an
// origin comes before the images that are built on it. image reads a T.
func Families[T any](all []T, image func(T) manifest.Manifest) []T {
	type member struct {
		value T
		root  int // the place of the first image of the family
	}
	roots := make(map[uuid.UUID]int, len(all))
	members := make([]member, len(all))
	for i, value := range all {
		m, root := image(value), i
		if of, ok := roots[m.Origin]; ok && m.HasOrigin() {
			root = of
		}
		roots[m.UUID], members[i] = root, member{value, root}
	}
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.root, b.root) })
	out := make([]T, len(all))
	for i, m := range members {
		out[i] = m.value
	}
	return out
}

// claim waits for the turn and for the import locks of a family. An image's lock is taken before the
// locks of the images below, as imgadm does, and among unrelated images the smaller uuid comes first:
// all takers of several locks take them in one order, and no circle of waits arises. A Batch that
// waits for another process gives its turn to the others meanwhile.
func (b *Batch) claim(ctx context.Context, first manifest.Manifest) error {
	wait := func() error {
		if err := b.place.wait(ctx); err != nil {
			return fmt.Errorf("wait for another receive to end: %w", err)
		}
		return nil
	}
	if err := wait(); err != nil {
		return err
	}
	passed := false
	family, depth := b.family(first)
	b.held, b.last = make(map[uuid.UUID]bool), family[len(family)-1].UUID
	slices.SortFunc(family, func(a, b manifest.Manifest) int {
		return cmp.Or(cmp.Compare(depth[b.UUID], depth[a.UUID]), bytes.Compare(a.UUID[:], b.UUID[:]))
	})
	for _, image := range family {
		lock, err := b.im.lock(ctx, image.UUID, false)
		if errors.Is(err, ErrLocked) && !b.NoWait {
			b.place.leave()
			passed = true
			lock, err = b.im.lock(ctx, image.UUID, true)
		}
		if err != nil {
			return err
		}
		b.locks = append(b.locks, lock)
		b.held[image.UUID] = true
	}
	if !passed {
		return nil
	}
	b.place = b.im.turn.join()
	return wait()
}

// Close gives back the locks and the turn of a family, finished or not. The Batch may go on with
// another family.
func (b *Batch) Close() {
	for _, lock := range b.locks {
		lock.release()
	}
	b.locks, b.held, b.last = nil, nil, uuid.Nil
	if b.place != nil {
		b.place.leave()
		b.place = nil
	}
}
