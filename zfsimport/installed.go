package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Installed is an image in a pool, whoever installed it.
type Installed struct {
	UUID     uuid.UUID
	Pool     string
	Dataset  string // POOL/UUID
	Volume   bool   // a zvol, not a filesystem
	Mounted  bool
	Snapshot string    // "@final"; "" when it has none of that name, as very old ones
	Used     int64     // bytes, snapshots included
	Clones   int       // datasets that were made from it: instances, and images on top of it
	Origin   uuid.UUID // by ZFS: the image that it was made from; uuid.Nil: none

	Record   bool               // imgadm's database has it
	Manifest *manifest.Manifest // as recorded; nil without a record that can be read
	Source   string             // as recorded; "" = none
}

// Installed lists the images of a pool ("" = the default), in order of their names.
// It takes for an image what imgadm takes for one: a dataset POOL/UUID that is no
// zone's, is not marked imgadm:ignore, and, if it is a clone of an image, has been made
// one itself.
func (im *Importer) Installed(ctx context.Context, pool string) ([]Installed, error) {
	pool, err := im.pool(pool)
	if err != nil {
		return nil, err
	}
	if err := im.Check(ctx, pool); err != nil {
		return nil, err
	}
	all, err := im.datasets(ctx, pool)
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

// imagesAmong finds the images in what a pool holds.
func imagesAmong(pool string, all []dataset, zones map[string]bool) []Installed {
	snapshots := make(map[string]bool)
	clones := make(map[string]int) // by the dataset that they were made from
	for _, d := range all {
		if d.kind == "snapshot" {
			snapshots[d.name] = true
		}
		if from, _, ok := strings.Cut(d.origin, "@"); ok {
			clones[from]++
		}
	}
	var images []Installed
	for _, d := range all {
		id, rest, ok := imageOf(pool, d.name)
		if !ok || rest != "" || isTrue(d.ignore) || zones[d.mountpoint] {
			continue
		}
		hasFinal := snapshots[d.name+final]
		if strings.HasSuffix(d.origin, final) && !hasFinal {
			continue // an instance
		}
		image := Installed{
			UUID: id, Pool: pool, Dataset: d.name, Volume: d.kind == "volume",
			Mounted: d.mounted == "yes", Used: d.used, Clones: clones[d.name],
		}
		if hasFinal {
			image.Snapshot = final
		}
		if from, ok := strings.CutSuffix(d.origin, final); ok {
			image.Origin, _, _ = imageOf(pool, from)
		}
		images = append(images, image)
	}
	return images
}

// zoneRoots are the mountpoints that belong to zones, where there are any.
func (im *Importer) zoneRoots(ctx context.Context) (map[string]bool, error) {
	program, err := exec.LookPath("zoneadm")
	if err != nil {
		return nil, nil //nolint:nilerr // no zones on this machine
	}
	out, err := output(ctx, program, "list", "-pc")
	if err != nil {
		return nil, err
	}
	return parseZones(out), nil
}

// parseZones reads the paths in what zoneadm list -p writes: fields parted by
// colons, of which the fourth is the path.
func parseZones(out string) map[string]bool {
	roots := make(map[string]bool)
	for line := range strings.Lines(out) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[3] != "/" {
			roots[f[3]] = true
		}
	}
	return roots
}

// isTrue reads the user property imgadm:ignore, for which zfs takes any text, as its users mean it.
func isTrue(value string) bool {
	switch strings.ToLower(value) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}
