package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Installed is an image in a pool, whether this package or another program installed the image.
type Installed struct {
	UUID     uuid.UUID
	Pool     string
	Dataset  string // POOL/UUID
	Volume   bool   // a zvol, not a filesystem
	Mounted  bool
	Snapshot string    // "@final"; "" for an image without this snapshot, as very old ones are
	Used     int64     // bytes, snapshots included
	Clones   int       // datasets that were made from the image: instances, and images on top
	Origin   uuid.UUID // by ZFS: the image that this image was made from; uuid.Nil: none

	Record   bool               // imgadm's database has the image
	Manifest *manifest.Manifest // as recorded; nil without a record that can be read
	Source   string             // as recorded; "" = none
}

// Installed lists the images of a pool ("" = the default), in order of their names. An image is what
// imgadm takes for one: a dataset POOL/UUID that belongs to no zone, is not marked imgadm:ignore,
// and, if it is a clone of an image, has a snapshot @final of its own.
func (im *Importer) Installed(ctx context.Context, pool string) ([]Installed, error) {
	pool, all, err := im.datasets(ctx, pool)
	if err != nil {
		return nil, err
	}
	zones, err := im.zoneRoots(ctx)
	if err != nil {
		return nil, err
	}
	images := imagesAmong(pool, all, zones)
	for i := range images {
		at := &images[i]
		r, err := im.record(pool, at.UUID)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("imgadm's record of image %s: %w", at.UUID, err)
		}
		at.Record, at.Manifest, at.Source = true, &r.Manifest, r.Source
	}
	return images, nil
}

// imagesAmong finds the images among the datasets of a pool.
func imagesAmong(pool string, all []dataset, zones map[string]bool) []Installed {
	snapshots := make(map[string]bool)
	clones := make(map[string]int) // by the dataset that they were made from
	for _, d := range all {
		if d.is["type"] == "snapshot" {
			snapshots[d.name] = true
		}
		if from, _, ok := strings.Cut(d.is["origin"], "@"); ok {
			clones[from]++
		}
	}
	var images []Installed
	for _, d := range all {
		id, rest, ok := imageOf(pool, d.name)
		if !ok || rest != "" || isTrue(d.is["imgadm:ignore"]) || zones[d.is["mountpoint"]] {
			continue
		}
		from, ofImage := strings.CutSuffix(d.is["origin"], final)
		if ofImage && !snapshots[d.name+final] {
			continue // an instance
		}
		image := Installed{
			UUID: id, Pool: pool, Dataset: d.name, Volume: d.is["type"] == "volume",
			Mounted: d.is["mounted"] == "yes", Clones: clones[d.name],
		}
		image.Used, _ = strconv.ParseInt(d.is["used"], 10, 64)
		if snapshots[d.name+final] {
			image.Snapshot = final
		}
		if ofImage {
			image.Origin, _, _ = imageOf(pool, from)
		}
		images = append(images, image)
	}
	return images
}

// zoneRoots are the mountpoints of the machine's zones; none on a machine without zones. The fourth
// field of a line of zoneadm list -p is the path, and colons part the fields.
func (im *Importer) zoneRoots(ctx context.Context) (map[string]bool, error) {
	program, err := exec.LookPath("zoneadm")
	if err != nil {
		return nil, nil //nolint:nilerr // no zones on this machine
	}
	out, err := output(ctx, program, "list", "-pc")
	if err != nil {
		return nil, err
	}
	roots := make(map[string]bool)
	for line := range strings.Lines(out) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[3] != "/" {
			roots[f[3]] = true
		}
	}
	return roots, nil
}

// isTrue reads the user property imgadm:ignore, in which zfs takes any text, by its usual meaning.
func isTrue(value string) bool {
	return slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(value))
}
