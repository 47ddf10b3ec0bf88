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

// types are those that imgadm installs by one and the same zfs receive.
var types = map[string]bool{"zone-dataset": true, "lx-dataset": true, "zvol": true}

// installable tells why an image can be installed nowhere.
func installable(image manifest.Manifest) error {
	if !types[image.Type] {
		return fmt.Errorf("%w: it is of type %s; zone-dataset, lx-dataset and zvol can", ErrType, image.Type)
	}
	if len(image.Files) != 1 {
		return fmt.Errorf("%w: it has %d files, not one", ErrType, len(image.Files))
	}
	return nil
}

// Fits tells why this machine can never install an image: the error matches
// ErrType or ErrPlatform. No pool is asked, and the file not looked at.
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

// repair adds what is missing to an image whose dataset is there. The image's lock
// is held.
func (in *install) repair(ctx context.Context) (Outcome, error) {
	if there, err := in.present(ctx); err != nil {
		return "", err
	} else if there {
		return Present, nil
	}
	if err := in.im.complete(ctx, in.pool, in.image); err != nil {
		return "", err
	}
	in.log.Info("an image had no record in imgadm's database", "name", in.image.Name, "version", in.image.Version)
	return Repaired, nil
}

// complete mounts an image whose dataset has no record, and writes one: not for
// what only has the image's name, an instance or a dataset of the operator's. The
// image's lock is held.
func (im *Importer) complete(ctx context.Context, pool string, image manifest.Manifest) error {
	dataset := pool + "/" + image.UUID.String()
	if there, err := im.exists(ctx, dataset+final); err != nil {
		return err
	} else if !there {
		return fmt.Errorf("%w: %s has no snapshot %s", ErrNotImage, dataset, final)
	}
	record, err := im.prepare(pool, image)
	if err != nil {
		return err
	}
	im.mount(ctx, dataset)
	return record.commit()
}

// fresh receives an image that is not there. Its lock is held, and it is its turn.
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
		r.report(Installing)
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

// mayBegin finds out what would make the receive fail, and makes way for it.
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
	// How much the image takes is not known before it is there: image_size is what a
	// volume may grow to. But it is hardly less than its compressed file.
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
	record.discard() // it is written anew when all is known
	return im.destroy(ctx, in.dataset+partial)
}

// settle makes an image of what was received: what the stream has set is taken back
// before anything is mounted, its one snapshot gets its name, and then the dataset, and
// what can fail comes before that. It is not given up when ctx ends.
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
	if err := in.nameSnapshot(ctx, snapshot); err != nil {
		return err
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
		record.discard()
		return err
	}
	im.mount(ctx, in.dataset)
	return record.commit()
}

// oneSnapshot gives the name of the one snapshot that was received, "@v1". What came
// with children or more snapshots is no image.
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

// nameSnapshot gives the image's one snapshot its name.
func (in *install) nameSnapshot(ctx context.Context, snapshot string) error {
	if snapshot == final {
		return nil
	}
	received := in.dataset + partial
	return in.im.insist(ctx, "rename", received+snapshot, received+final)
}

// checkOrigin holds what the stream was made from against the manifest.
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

// undo destroys what was received and gives why, and also why it can not, if so.
func (in *install) undo(ctx context.Context, why error) error {
	ctx, cancel := overtime(ctx)
	defer cancel()
	if err := in.im.destroy(ctx, in.dataset+partial); err != nil {
		return errors.Join(why, fmt.Errorf("and what was received of it could not be destroyed: %w", err))
	}
	return why
}

// overtime is for what has to be done also after ctx has ended.
func overtime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), afterwards)
}
