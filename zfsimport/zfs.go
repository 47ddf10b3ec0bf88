package zfsimport

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

const (
	final   = "@final"   // the snapshot of an image that instances are cloned from
	partial = "-partial" // after the name of an image that is being received

	// afterwards bounds the work that follows the end of a call's context.
	afterwards = 2 * time.Minute
	// busyPoll is the pause between tries on a busy dataset. A dataset is busy for a moment after a
	// receive was killed, or while another program looks at the dataset.
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

// Check tells whether images can be installed into the pool at all: zfs is there, and the pool is
// there and works. The error matches ErrNoZFS or ErrNoPool where this is the reason.
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
	if health := strings.TrimSpace(out); health != "ONLINE" && health != "DEGRADED" {
		return fmt.Errorf("%w that can be written: %s is %s", ErrNoPool, pool, health)
	}
	return nil
}

// exists tells whether a dataset or snapshot is there.
func (im *Importer) exists(ctx context.Context, dataset string) (bool, error) {
	_, err := im.zfs(ctx, "list", "-H", "-o", "name", dataset)
	if saidBy(err, "does not exist") {
		return false, nil
	}
	return err == nil, err
}

// property gives one property of a dataset, "-" for a property that the dataset does not have.
func (im *Importer) property(ctx context.Context, dataset, name string) (string, error) {
	out, err := im.zfs(ctx, "get", "-H", "-p", "-o", "value", name, dataset)
	return strings.TrimSpace(out), err
}

// get runs "zfs get" and gives its lines, each of the three columns that args name. Only the last
// column may be a value: a value may hold a tab.
func (im *Importer) get(ctx context.Context, args ...string) (rows [][]string, err error) {
	out, err := im.zfs(ctx, append([]string{"get", "-H"}, args...)...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		row := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(row) != 3 {
			return nil, fmt.Errorf("zfs get: a line that is not understood: %q", line)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// destroy removes a dataset with its snapshots, if the dataset is there. The caller holds the import
// lock of the dataset's image.
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

// insist is zfs for a dataset that may be busy for a moment, and tries until ctx ends.
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

// mount mounts a filesystem as a plain receive does, if its place is below the pool's own
// mountpoint. A failed mount is logged only: instances are cloned from the image's snapshot.
func (im *Importer) mount(ctx context.Context, dataset string) {
	if err := im.tryMount(ctx, dataset); err != nil {
		im.log.Warn("an installed image can not be mounted", "dataset", dataset, "error", err)
	}
}

func (im *Importer) tryMount(ctx context.Context, dataset string) error {
	rows, err := im.get(ctx, "-o", "property,source,value", "type,mounted,canmount,mountpoint", dataset)
	if err != nil {
		return err
	}
	source, value := make(map[string]string), make(map[string]string)
	for _, row := range rows {
		source[row[0]], value[row[0]] = row[1], row[2]
	}
	place := value["mountpoint"]
	if value["type"] != "filesystem" || value["mounted"] != "no" || value["canmount"] != "on" || !strings.HasPrefix(place, "/") {
		return nil
	}
	if !passive(source["mountpoint"]) { // another program received the image, and its stream chose the place
		return fmt.Errorf("its mountpoint %q is not the pool's", place)
	}
	_, err = im.zfs(ctx, "mount", dataset)
	return err
}

// dataset is a filesystem, a volume or a snapshot of a pool, with the properties of listed by name.
type dataset struct {
	name string
	is   map[string]string
}

// listed are the properties that datasets asks for.
const listed = "type,origin,mountpoint,mounted,used,imgadm:ignore"

// datasets gives all that is in a pool that works, snapshots too. pool is the name of the pool.
func (im *Importer) datasets(ctx context.Context, name string) (pool string, all []dataset, err error) {
	if pool, err = im.pool(name); err != nil {
		return "", nil, err
	}
	if err := im.Check(ctx, pool); err != nil {
		return "", nil, err
	}
	// "zfs list" gives exact numbers in later versions only.
	rows, err := im.get(ctx, "-p", "-r", "-o", "name,property,value", listed, pool)
	for _, row := range rows {
		if len(all) == 0 || all[len(all)-1].name != row[0] {
			all = append(all, dataset{row[0], make(map[string]string)})
		}
		all[len(all)-1].is[row[1]] = row[2]
	}
	return pool, all, err
}

// imageOf gives the image that a dataset of the pool is named after, and the text behind the uuid.
func imageOf(pool, name string) (id uuid.UUID, rest string, ok bool) {
	name, ok = strings.CutPrefix(name, pool+"/")
	if !ok || len(name) < 36 {
		return uuid.Nil, "", false
	}
	id, ok = manifest.ParseUUID(name[:36])
	return id, name[36:], ok
}
