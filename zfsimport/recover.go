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

// Recover puts right what a process leaves that is killed during an install. Recover destroys images
// that were received in part, records the images without a record that Find knows, and removes this
// package's records, and beginnings of records, without an image. Images that another process is
// importing are left alone. The error joins all faults; a fault does not stop the other repairs.
func (im *Importer) Recover(ctx context.Context, pool string) error {
	pool, all, err := im.datasets(ctx, pool)
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
	return errors.Join(append(faults, im.dropRecords(ctx, pool))...)
}

// locked calls do under an image's lock, and does not while another process has the lock.
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

// recordFound writes the record of an image without one, if Find knows the image.
func (im *Importer) recordFound(ctx context.Context, pool string, id uuid.UUID) error {
	image, err := im.o.Find(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = im.newInstall(pool, image, nil).repair(ctx)
	}
	if err != nil {
		return fmt.Errorf("record image %s: %w", id, err)
	}
	return nil
}

// dropRecords removes this package's records of images that are not in the pool, and unfinished
// records.
func (im *Importer) dropRecords(ctx context.Context, pool string) error {
	entries, err := os.ReadDir(im.imagesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
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

// recordedID gives the image whose record in the pool has this file name.
func recordedID(pool, name string) (uuid.UUID, bool) {
	name, ours := strings.CutPrefix(name, pool+"-")
	name, is := strings.CutSuffix(name, ".json")
	id, ok := manifest.ParseUUID(name)
	return id, ours && is && ok
}

// dropOrphan removes the record of an image without a dataset if the record is this package's: a
// record that names the Source. imgadm takes care of its own records.
func (im *Importer) dropOrphan(ctx context.Context, pool string, id uuid.UUID) error {
	r, err := im.record(pool, id)
	if err != nil || r.Source == "" || r.Source != im.o.Source {
		return nil //nolint:nilerr // not one of ours
	}
	if there, err := im.exists(ctx, pool+"/"+id.String()); err != nil || there {
		return err
	}
	im.log.Info("a record in imgadm's database had no image: removed", "uuid", id, "pool", pool)
	return removeFile(im.recordPath(pool, id))
}
