package zfsimport

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// How soon what failed is tried again: later each time.
const (
	firstRetry = time.Minute
	maxRetry   = time.Hour
)

// Run keeps images in the default pool until ctx ends, and returns nil then. It
// recovers what was cut short before, and installs those of wanted that are missing, in
// the order given: origins first. It does so at once and whenever wake gives
// something. What fails is tried again later; it is logged when it begins to fail,
// and when it fails in another way.
func (im *Importer) Run(ctx context.Context, wanted func() []manifest.Manifest, wake <-chan struct{}) error {
	k := &keeper{im: im, wanted: wanted, trouble: make(map[uuid.UUID]*trouble)}
	for {
		var retry <-chan time.Time
		if next := k.pass(ctx); !next.IsZero() {
			retry = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-retry:
		}
	}
}

// keeper is what Run knows.
type keeper struct {
	im        *Importer
	wanted    func() []manifest.Manifest
	recovered bool
	trouble   map[uuid.UUID]*trouble // by image; uuid.Nil is for the pool
}

// trouble is with what failed the last time.
type trouble struct {
	said string
	wait time.Duration
	next time.Time // when to try again
}

// pass installs what is missing, and tells when to come again, zero for never.
func (k *keeper) pass(ctx context.Context) (next time.Time) {
	err := k.install(ctx)
	if ctx.Err() != nil {
		return time.Time{}
	}
	k.note(uuid.Nil, err, "the local zpool is not as it should be", "pool", k.im.o.Pool)
	for _, t := range k.trouble {
		if next.IsZero() || t.next.Before(next) {
			next = t.next
		}
	}
	return next
}

// due tells that an image may be tried, as far as earlier tries go.
func (k *keeper) due(id uuid.UUID) bool {
	t := k.trouble[id]
	return t == nil || !time.Now().Before(t.next)
}

// note keeps in mind how a try ended.
func (k *keeper) note(id uuid.UUID, err error, message string, args ...any) {
	if err == nil {
		delete(k.trouble, id)
		return
	}
	t := k.trouble[id]
	if t == nil {
		t = &trouble{wait: firstRetry / 2}
		k.trouble[id] = t
	}
	t.wait = min(2*t.wait, maxRetry)
	if errors.Is(err, ErrPlatform) {
		t.wait = maxRetry // only a restart of the machine can help
	}
	t.next = time.Now().Add(t.wait)
	if err.Error() == t.said {
		return
	}
	t.said = err.Error()
	k.im.log.Warn(message, append(args, "error", err)...)
}

// install installs what is missing and due. Its error is about the pool as a whole.
func (k *keeper) install(ctx context.Context) error {
	im := k.im
	if err := im.Check(ctx, ""); err != nil {
		return err
	}
	var recoverErr error
	if !k.recovered {
		recoverErr = im.Recover(ctx, "") // whatever is left does not keep images from being installed
		k.recovered = recoverErr == nil
	}
	images, err := im.Installed(ctx, "")
	if err != nil {
		return errors.Join(recoverErr, err)
	}
	there := make(map[uuid.UUID]bool)
	for _, image := range images {
		there[image.UUID] = image.Record
	}
	list := Families(k.wanted())
	batch := im.Batch("", slices.DeleteFunc(slices.Clone(list), func(image manifest.Manifest) bool {
		return there[image.UUID] || !k.due(image.UUID)
	}))
	batch.wait = false // a later pass comes
	defer batch.Close()
	wanted := make(map[uuid.UUID]bool)
	missing := make(map[uuid.UUID]bool)
	for _, image := range list {
		id := image.UUID
		wanted[id] = true
		if there[id] {
			delete(k.trouble, id)
			continue
		}
		// One whose origin is missing would only say so.
		if k.due(id) && !missing[image.Origin] {
			_, err := batch.Install(ctx, image, nil)
			if ctx.Err() != nil {
				return nil
			}
			k.note(id, err, "an image can not be installed", "uuid", id, "name", image.Name, "version", image.Version)
			there[id] = err == nil
		}
		missing[id] = !there[id]
	}
	waiting := 0
	for _, m := range missing {
		if m {
			waiting++
		}
	}
	im.metrics.missing.Set(float64(waiting))
	maps.DeleteFunc(k.trouble, func(id uuid.UUID, _ *trouble) bool { return id != uuid.Nil && !wanted[id] })
	return recoverErr
}
