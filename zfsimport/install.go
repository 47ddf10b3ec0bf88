package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"imgmirror/manifest"
)

// installable tells why no machine can install an image.
func installable(image manifest.Manifest) error {
	if !image.HoldsStream() {
		return fmt.Errorf("%w: it is of type %s; zone-dataset, lx-dataset and zvol can", ErrType, image.Type)
	}
	if len(image.Files) != 1 {
		return fmt.Errorf("%w: it has %d files, not one", ErrType, len(image.Files))
	}
	return nil
}

// Fits tells why this machine can never install an image: the error matches ErrType or ErrPlatform.
// Fits asks no pool and reads no file.
func (im *Importer) Fits(ctx context.Context, image manifest.Manifest) error {
	if err := installable(image); err != nil {
		return err
	}
	return im.runnable(ctx, image)
}

// Install is a Batch of one image.
func (im *Importer) Install(ctx context.Context, pool string, image manifest.Manifest, progress func(Progress)) (Outcome, error) {
	b := im.Batch(pool, []manifest.Manifest{image})
	defer b.Close()
	return b.Install(ctx, image, progress)
}

// install is one image on its way into a pool.
type install struct {
	im        *Importer
	pool      string
	image     manifest.Manifest
	dataset   string // POOL/UUID
	log       *slog.Logger
	reception *reception
}

func (im *Importer) newInstall(pool string, image manifest.Manifest, progress func(Progress)) *install {
	dataset := pool + "/" + image.UUID.String()
	return &install{
		im: im, pool: pool, image: image, dataset: dataset,
		log:       im.log.With("uuid", image.UUID, "pool", pool),
		reception: &reception{im: im, image: image, dataset: dataset + partial, progress: progress},
	}
}

// present tells whether the image is there with its record.
func (in *install) present(ctx context.Context) (bool, error) {
	there, err := in.im.exists(ctx, in.dataset)
	if err != nil || !there {
		return false, err
	}
	_, err = in.im.record(in.pool, in.image.UUID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// repair writes the missing record of an image whose dataset is there. The caller holds the image's
// lock.
func (in *install) repair(ctx context.Context) (Outcome, error) {
	if there, err := in.present(ctx); err != nil {
		return "", err
	} else if there {
		return Present, nil
	}
	// A dataset without the snapshot is an instance, or the operator's own.
	if there, err := in.im.exists(ctx, in.dataset+final); err != nil {
		return "", err
	} else if !there {
		return "", fmt.Errorf("%w: %s has no snapshot %s", ErrNotImage, in.dataset, final)
	}
	record, err := in.im.prepare(in.pool, in.image)
	if err != nil {
		return "", err
	}
	in.im.mount(ctx, in.dataset)
	if err := in.im.commit(record); err != nil {
		return "", err
	}
	in.log.Info("an image had no record in imgadm's database", "name", in.image.Name, "version", in.image.Version)
	return Repaired, nil
}

// fresh receives an image that is not there. The caller holds the image's lock and has the turn.
func (in *install) fresh(ctx context.Context) (Outcome, error) {
	im, r := in.im, in.reception
	if err := in.mayBegin(ctx); err != nil {
		return "", err
	}
	im.metrics.inflight.Inc()
	defer im.metrics.inflight.Dec()
	began := time.Now()
	in.log.Debug("an image is being received", "name", in.image.Name, "version", in.image.Version)
	err := r.run(ctx)
	im.metrics.moved(r)
	if err == nil {
		r.report()
		err = in.settle(ctx)
	}
	if err != nil {
		return "", in.undo(ctx, err)
	}
	took := time.Since(began)
	im.metrics.duration.Observe(took.Seconds())
	in.log.Info("image installed", "name", in.image.Name, "version", in.image.Version,
		"size", r.file.n.Load(), "stream", r.written, "took", took.Round(time.Millisecond))
	return Done, nil
}

// mayBegin finds the reasons for which the receive would fail, and makes way for the receive.
func (in *install) mayBegin(ctx context.Context) error {
	im := in.im
	if in.image.HasOrigin() {
		origin := in.pool + "/" + in.image.Origin.String()
		if there, err := im.exists(ctx, origin); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("%w: it is made from image %s, which is not in the pool", ErrNoOrigin, in.image.Origin)
		}
	}
	// The image's size in the pool shows after the receive only: image_size is the limit of a volume's
	// growth. But an image is hardly smaller than its compressed file.
	value, err := im.property(ctx, in.pool, "available")
	if err != nil {
		return err
	}
	size := in.image.Files[0].Size
	if free, err := strconv.ParseInt(value, 10, 64); err == nil && size > free {
		return fmt.Errorf("%w: its file alone has %s, the pool has %s left",
			ErrNoRoom, humanize.IBytes(uint64(size)), humanize.IBytes(uint64(max(free, 0))))
	}
	record, err := im.prepare(in.pool, in.image)
	if err != nil {
		return err
	}
	discard(record) // settle writes the record again, with all facts
	return im.destroy(ctx, in.dataset+partial)
}

// settle makes an image of a received dataset. settle takes back the stream's properties before any
// mount, then the one snapshot gets its name, and the dataset its own last: the steps that can fail
// come before. Once begun, settle goes on after the end of ctx.
func (in *install) settle(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	im := in.im
	ctx, cancel := overtime(ctx)
	defer cancel()
	snapshot, err := in.oneSnapshot(ctx)
	if err != nil {
		return err
	}
	if err := im.strip(ctx, in.dataset+partial); err != nil {
		return err
	}
	if snapshot != final {
		if err := im.insist(ctx, "rename", in.dataset+partial+snapshot, in.dataset+partial+final); err != nil {
			return err
		}
	}
	if err := in.checkOrigin(ctx); err != nil {
		return err
	}
	image, _ := in.image.WithFacts(0, manifest.Facts{Compression: in.reception.format})
	record, err := im.prepare(in.pool, image)
	if err != nil {
		return err
	}
	if err := im.insist(ctx, "rename", in.dataset+partial, in.dataset); err != nil {
		discard(record)
		return err
	}
	im.mount(ctx, in.dataset)
	return im.commit(record)
}

// oneSnapshot gives the name of the one received snapshot, "@v1". A dataset with children or more
// snapshots is no image.
func (in *install) oneSnapshot(ctx context.Context) (string, error) {
	received := in.dataset + partial
	out, err := in.im.zfs(ctx, "list", "-H", "-r", "-t", "snapshot", "-o", "name", received)
	if err != nil {
		return "", err
	}
	snapshots := strings.Fields(strings.ReplaceAll(out, received, ""))
	if len(snapshots) != 1 || !strings.HasPrefix(snapshots[0], "@") {
		return "", fmt.Errorf("%w: the stream has %d (%s), want one", ErrSnapshots, len(snapshots), strings.Join(snapshots, " "))
	}
	return snapshots[0], nil
}

// checkOrigin compares the origin of the stream with the origin in the manifest.
func (in *install) checkOrigin(ctx context.Context) error {
	origin, err := in.im.property(ctx, in.dataset+partial, "origin")
	if err != nil {
		return err
	}
	id, _, _ := imageOf(in.pool, origin) // uuid.Nil for "-"
	if id == in.image.Origin {
		return nil
	}
	if origin == "-" {
		return fmt.Errorf("%w: the manifest names %s, but the stream is a whole one", ErrNoOrigin, in.image.Origin)
	}
	if !in.image.HasOrigin() {
		return fmt.Errorf("%w: the manifest names none, but the stream was made from %s", ErrNoOrigin, origin)
	}
	return fmt.Errorf("%w: the manifest names %s, but the stream was made from %s", ErrNoOrigin, in.image.Origin, origin)
}

// undo destroys a received dataset. The error is why, joined with the reason for which the dataset
// could not be destroyed.
func (in *install) undo(ctx context.Context, why error) error {
	ctx, cancel := overtime(ctx)
	defer cancel()
	if err := in.im.destroy(ctx, in.dataset+partial); err != nil {
		return errors.Join(why, fmt.Errorf("and what was received of it could not be destroyed: %w", err))
	}
	return why
}

// overtime is a context for the work that follows the end of ctx.
func overtime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), afterwards)
}
