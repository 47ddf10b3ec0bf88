package zfsimport

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

const (
	final   = "@final"   // the snapshot of an image that instances are cloned from
	partial = "-partial" // after the name of an image that is being received

	// afterwards bounds what has to be done after the context of a call has ended.
	afterwards = 2 * time.Minute
	// busyPoll is how often a dataset is tried that ZFS says is busy: it is, for a
	// moment, when a receive was just killed, or another program looks at it.
	busyPoll = 100 * time.Millisecond
)

// poolName is what zpool(8) allows.
var poolName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]*$`)

// pool checks the name of a pool; "" means the default.
func (im *Importer) pool(name string) (string, error) {
	if name == "" {
		name = im.o.Pool
	}
	if !poolName.MatchString(name) {
		return "", fmt.Errorf("%w: %q can not be the name of a zpool", ErrNoPool, name)
	}
	return name, nil
}

// zfs runs zfs(8).
func (im *Importer) zfs(ctx context.Context, args ...string) (string, error) {
	return im.run(ctx, "zfs", args...)
}

func (im *Importer) run(ctx context.Context, name string, args ...string) (string, error) {
	program, err := im.program(name)
	if err != nil {
		return "", err
	}
	out, err := output(ctx, program, args...)
	if saidBy(err, "failed to initialize ZFS library", "ZFS modules") {
		err = fmt.Errorf("%w: %w", ErrNoZFS, err)
	}
	return out, err
}

// Check tells whether images can be installed into the pool at all: zfs is there,
// and the pool is there and works. Its errors match ErrNoZFS and ErrNoPool where these are the reason.
func (im *Importer) Check(ctx context.Context, pool string) error {
	pool, err := im.pool(pool)
	if err != nil {
		return err
	}
	out, err := im.run(ctx, "zpool", "list", "-H", "-o", "health", pool)
	if saidBy(err, "no such pool") {
		return fmt.Errorf("%w: %s", ErrNoPool, pool)
	}
	if err != nil {
		return err
	}
	switch health := strings.TrimSpace(out); health {
	case "ONLINE", "DEGRADED":
		return nil
	default:
		return fmt.Errorf("%w that can be written: %s is %s", ErrNoPool, pool, health)
	}
}

// exists tells whether a dataset or snapshot is there.
func (im *Importer) exists(ctx context.Context, dataset string) (bool, error) {
	_, err := im.zfs(ctx, "list", "-H", "-o", "name", dataset)
	if saidBy(err, "does not exist") {
		return false, nil
	}
	return err == nil, err
}

// property gives one property of a dataset, "-" when it has none.
func (im *Importer) property(ctx context.Context, dataset, name string) (string, error) {
	out, err := im.zfs(ctx, "get", "-H", "-p", "-o", "value", name, dataset)
	return strings.TrimSpace(out), err
}

// destroy removes a dataset with its snapshots, if it is there. The import lock of
// the image that it is of is held.
func (im *Importer) destroy(ctx context.Context, dataset string) error {
	there, err := im.exists(ctx, dataset)
	if err != nil || !there {
		return err
	}
	err = im.insist(ctx, "destroy", "-r", dataset)
	if saidBy(err, "does not exist") {
		return nil
	}
	return err
}

// insist is zfs for what may be busy for a moment: until it is not, or ctx ends.
func (im *Importer) insist(ctx context.Context, args ...string) error {
	for {
		_, err := im.zfs(ctx, args...)
		if !saidBy(err, "busy") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(busyPoll):
		}
	}
}

// mount mounts a filesystem as a plain receive would have done, if it belongs below
// the pool's own mountpoint. That it can not is no reason to go without the image:
// instances are cloned from its snapshot.
func (im *Importer) mount(ctx context.Context, dataset string) {
	if err := im.tryMount(ctx, dataset); err != nil {
		im.log.Warn("an installed image can not be mounted", "dataset", dataset, "error", err)
	}
}

func (im *Importer) tryMount(ctx context.Context, dataset string) error {
	out, err := im.zfs(ctx, "get", "-H", "-o", "property,value", "type,mounted,canmount,mountpoint", dataset)
	if err != nil {
		return err
	}
	p := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		p[name] = value
	}
	if p["type"] != "filesystem" || p["mounted"] != "no" || p["canmount"] != "on" || !strings.HasPrefix(p["mountpoint"], "/") {
		return nil
	}
	// Of an image that another program has received, the place may be its stream's choice.
	source, err := im.zfs(ctx, "get", "-H", "-o", "source", "mountpoint", dataset)
	if err != nil {
		return err
	}
	if !passive(strings.TrimSpace(source)) {
		return fmt.Errorf("its mountpoint %q is not the pool's", p["mountpoint"])
	}
	_, err = im.zfs(ctx, "mount", dataset)
	return err
}

// dataset is one row of what a pool holds.
type dataset struct {
	name, kind, origin, mountpoint, mounted, ignore string
	used                                            int64
}

// datasets lists all that is in the pool, snapshots too.
func (im *Importer) datasets(ctx context.Context, pool string) ([]dataset, error) {
	// "get", and not "list": that one has exact numbers in later versions only.
	out, err := im.zfs(ctx, "get", "-H", "-p", "-r", "-o", "name,property,value",
		"type,origin,mountpoint,mounted,used,imgadm:ignore", pool)
	if err != nil {
		return nil, err
	}
	var all []dataset
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("zfs get: a line that is not understood: %q", line)
		}
		if len(all) == 0 || all[len(all)-1].name != f[0] {
			all = append(all, dataset{name: f[0]})
		}
		d := &all[len(all)-1]
		switch f[1] {
		case "type":
			d.kind = f[2]
		case "origin":
			d.origin = f[2]
		case "mountpoint":
			d.mountpoint = f[2]
		case "mounted":
			d.mounted = f[2]
		case "used":
			d.used, _ = strconv.ParseInt(f[2], 10, 64) // "-" for what has none
		case "imgadm:ignore":
			d.ignore = f[2]
		}
	}
	return all, nil
}

// imageOf gives the image that a dataset of the pool is named after, with what
// follows the uuid.
func imageOf(pool, name string) (id uuid.UUID, rest string, ok bool) {
	name, ok = strings.CutPrefix(name, pool+"/")
	if !ok || len(name) < 36 {
		return uuid.Nil, "", false
	}
	id, ok = manifest.ParseUUID(name[:36])
	return id, name[36:], ok
}
