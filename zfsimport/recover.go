package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Recover puts right what a process left that was killed in the midst of an
// install: it destroys images that were received in part, records images that have
// no record, if Find knows them, and removes records and beginnings of records that we wrote
// and that have no image. What another process is importing is left alone. One that can
// not be put right does not keep the others from being: the errors come together.
func (im *Importer) Recover(ctx context.Context, pool string) error {
	pool, err := im.pool(pool)
	if err != nil {
		return err
	}
	if err := im.Check(ctx, pool); err != nil {
		return err
	}
	all, err := im.datasets(ctx, pool)
	if err != nil {
		return err
	}
	var faults []error
	for _, d := range all {
		if id, rest, ok := imageOf(pool, d.name); ok && rest == partial {
			faults = append(faults, im.locked(ctx, id, func() error { return im.dropPartial(ctx, d.name) }))
		}
	}
	images, err := im.Installed(ctx, pool)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	for _, image := range images {
		if !image.Record && image.Snapshot != "" && im.o.Find != nil {
			faults = append(faults, im.locked(ctx, image.UUID, func() error { return im.recordFound(ctx, pool, image.UUID) }))
		}
	}
	faults = append(faults, im.dropRecords(ctx, pool))
	return errors.Join(faults...)
}

// locked does something under an image's lock, or nothing if another has it.
func (im *Importer) locked(ctx context.Context, id uuid.UUID, do func() error) error {
	lock, err := im.lock(ctx, id, false)
	if errors.Is(err, ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.release()
	return do()
}

func (im *Importer) dropPartial(ctx context.Context, dataset string) error {
	ctx, cancel := context.WithTimeout(ctx, afterwards)
	defer cancel()
	if err := im.destroy(ctx, dataset); err != nil {
		return fmt.Errorf("destroy %s, which was received in part: %w", dataset, err)
	}
	im.log.Info("what an install that was cut short had received is destroyed", "dataset", dataset)
	return nil
}

// recordFound writes the record of an image that has none, if it is known.
func (im *Importer) recordFound(ctx context.Context, pool string, id uuid.UUID) error {
	image, err := im.o.Find(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		in := im.newInstall(pool, image, nil)
		_, err = in.repair(ctx)
	}
	if err != nil {
		return fmt.Errorf("record image %s: %w", id, err)
	}
	return nil
}

// dropRecords removes our records of images that are not in the pool, and those
// that were not finished.
func (im *Importer) dropRecords(ctx context.Context, pool string) error {
	entries, err := os.ReadDir(im.imagesDir())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var faults []error
	for _, e := range entries {
		name, isTemp := strings.CutPrefix(e.Name(), ".")
		if isTemp {
			name = strings.TrimSuffix(name, ".new")
		}
		id, ok := recordedID(pool, name)
		if !ok {
			continue
		}
		faults = append(faults, im.locked(ctx, id, func() error {
			if isTemp {
				return removeFile(tempRecord(im.recordPath(pool, id)))
			}
			return im.dropOrphan(ctx, pool, id)
		}))
	}
	return errors.Join(faults...)
}

// recordedID gives the image whose record in the pool has that file name.
func recordedID(pool, name string) (uuid.UUID, bool) {
	name, ok := strings.CutPrefix(name, pool+"-")
	if !ok {
		return uuid.Nil, false
	}
	name, ok = strings.CutSuffix(name, ".json")
	if !ok {
		return uuid.Nil, false
	}
	return manifest.ParseUUID(name)
}

// dropOrphan removes an image's record if its dataset is not there and the record
// is ours: it names the source that we would. imgadm's own it takes care of itself.
func (im *Importer) dropOrphan(ctx context.Context, pool string, id uuid.UUID) error {
	r, err := im.record(pool, id)
	if err != nil || r.Source == "" || im.o.Source == nil || im.o.Source(r.Manifest) != r.Source {
		return nil //nolint:nilerr // not one of ours
	}
	if there, err := im.exists(ctx, pool+"/"+id.String()); err != nil || there {
		return err
	}
	im.log.Info("a record in imgadm's database had no image: removed", "uuid", id, "pool", pool)
	return removeFile(im.recordPath(pool, id))
}
