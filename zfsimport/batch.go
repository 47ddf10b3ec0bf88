package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Batch installs images into one pool, one after the other. Images that follow each
// other and are each made from the one before are a chain: with its first image a chain
// takes the import locks of all its images, and the turn to receive, and it has them until
// its last one is installed, or one fails. So imgadm, which decides what is missing before
// it locks, and locks from the top down to the base, finds either nothing of a chain or all
// of it. A Batch is for one goroutine; the caller closes it.
type Batch struct {
	im     *Importer
	pool   string
	images []manifest.Manifest
	wait   bool

	place *place
	locks []*importLock
	held  map[uuid.UUID]bool // whose locks these are
	last  uuid.UUID          // of the chain that has them
}

// Batch plans to install images, in their order, into the pool ("" = the default).
// Those that are not to be installed are left out.
func (im *Importer) Batch(pool string, images []manifest.Manifest) *Batch {
	return &Batch{im: im, pool: pool, images: images, wait: true}
}

// Install brings one image of the Batch into the pool unless it is there. Its origin
// must be there. One chain is received at a time, in the order of the first calls; the others wait.
// progress, if any, is called from one goroutine at a time, until Install returns.
// When ctx ends before all of the image is there, what was received of it is destroyed.
//
// Errors match one of the package's where a caller may want to decide on it, and
// else what the File's reads ended with. The pool is then as it was before; only when imgadm's
// record could not be put in its place the image stays, for the next call to repair.
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
		b.place = im.turn.join() // before anything that takes time: the order of the calls is that of the places
	}
	in.reception.report(Waiting)
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
		if err := b.claim(ctx, b.chain(in.image)); err != nil {
			return "", err
		}
	}
	there, err := im.exists(ctx, in.dataset)
	if err != nil {
		return "", err
	}
	if there { // it was when we came, or was imported by who had the lock
		return in.repair(ctx)
	}
	return in.fresh(ctx)
}

// chain gives the images of the Batch from one on that are each made from the one before.
func (b *Batch) chain(from manifest.Manifest) []manifest.Manifest {
	chain := []manifest.Manifest{from}
	at := slices.IndexFunc(b.images, func(m manifest.Manifest) bool { return m.UUID == from.UUID })
	for _, next := range b.images[at+1:] {
		if next.Origin != chain[len(chain)-1].UUID {
			break
		}
		chain = append(chain, next)
	}
	return chain
}

// claim waits for the turn and for the import locks of a chain, from its top down: as
// all do that take several, so that none waits in a circle. Who waits for another process
// lets the others have their turn meanwhile.
func (b *Batch) claim(ctx context.Context, chain []manifest.Manifest) error {
	if err := b.place.wait(ctx); err != nil {
		return fmt.Errorf("wait for another receive to end: %w", err)
	}
	passed := false
	b.held, b.last = make(map[uuid.UUID]bool), chain[len(chain)-1].UUID
	for _, image := range slices.Backward(chain) {
		lock, err := b.im.lock(ctx, image.UUID, false)
		if errors.Is(err, ErrLocked) && b.wait {
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
	if err := b.place.wait(ctx); err != nil {
		return fmt.Errorf("wait for another receive to end: %w", err)
	}
	return nil
}

// Close gives back what a chain has, finished or not. The Batch may go on with another one.
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
