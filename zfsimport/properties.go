package zfsimport

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// A stream may carry properties (zfs send -p): the place of the mount, the machines that may reach
// it, the contents that the system trusts. An image keeps no such property, and is in the pool as a
// stream without properties leaves it.

// resets are the values that a stream without properties leaves, of the properties that zfs inherit
// does not take back.
var resets = map[string]string{
	"canmount":         "on",
	"quota":            "none",
	"refquota":         "none",
	"reservation":      "none",
	"refreservation":   "none",
	"filesystem_limit": "none",
	"snapshot_limit":   "none",
}

// shapes are the properties of the data itself. Every stream of a volume sets them.
var shapes = map[string]bool{"volsize": true, "volblocksize": true}

// property is a property that is set on a dataset or snapshot itself.
type property struct{ of, name string }

// ownProperties lists the properties that are set on a dataset itself, or on a dataset below. zfs is
// not asked for the values, which may hold anything, line ends too.
func (im *Importer) ownProperties(ctx context.Context, dataset string) (own []property, err error) {
	rows, err := im.get(ctx, "-r", "-o", "name,property,source", "all", dataset)
	for _, row := range rows {
		if !passive(row[2]) && !shapes[row[1]] {
			own = append(own, property{row[0], row[1]})
		}
	}
	return own, err
}

// passive tells that a value with this source is set on no dataset of the image itself.
func passive(source string) bool {
	return source == "-" || source == "default" || source == "temporary" || strings.HasPrefix(source, "inherited from ")
}

// strip takes all properties of the stream from a received, unmounted dataset and its snapshot. The
// error matches ErrProperty when a property can not be taken away.
//
// The first step, canmount, keeps the other steps from mounting the dataset: zfs mounts a shared
// dataset when its place changes. The property zoned is next, since in the global zone little else
// can be changed before. canmount gets its own value last.
func (im *Importer) strip(ctx context.Context, dataset string) error {
	own, err := im.ownProperties(ctx, dataset)
	if err != nil || len(own) == 0 {
		return err
	}
	kind, err := im.property(ctx, dataset, "type")
	if err != nil {
		return err
	}
	if kind == "filesystem" {
		if err := im.insist(ctx, "set", "canmount=noauto", dataset); err != nil {
			return fmt.Errorf("%w: canmount: %w", ErrProperty, err)
		}
		own = append(own, property{dataset, "canmount"})
	}
	order := map[string]int{"zoned": -1, "canmount": 1}
	slices.SortStableFunc(own, func(a, b property) int { return cmp.Compare(order[a.name], order[b.name]) })
	for _, p := range own {
		change := []string{"inherit", p.name, p.of}
		if value, ok := resets[p.name]; ok {
			change = []string{"set", p.name + "=" + value, p.of}
		}
		if err := im.insist(ctx, change...); err != nil {
			return fmt.Errorf("%w: %s of %s: %w", ErrProperty, p.name, p.of, err)
		}
	}
	own, err = im.ownProperties(ctx, dataset)
	for _, p := range own {
		if _, ok := resets[p.name]; !ok {
			return fmt.Errorf("%w: %s of %s", ErrProperty, p.name, p.of)
		}
	}
	return err
}
