package zfsimport

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// A stream may carry properties (zfs send -p): where it is mounted, who may reach it,
// what of it the system trusts. An image keeps none of them: in the pool it is what
// a stream without properties leaves.

// resets are the values that such a stream leaves of properties that zfs inherit does not
// take back.
var resets = map[string]string{
	"canmount":         "on",
	"quota":            "none",
	"refquota":         "none",
	"reservation":      "none",
	"refreservation":   "none",
	"filesystem_limit": "none",
	"snapshot_limit":   "none",
}

// shapes are properties of the data itself, which every stream of a volume sets.
var shapes = map[string]bool{"volsize": true, "volblocksize": true}

// property is one that a dataset or snapshot has of its own.
type property struct{ of, name string }

// ownProperties lists the properties that a dataset, and what is below it, has neither
// by default nor from the pool. The values are not asked for: they may hold anything,
// line ends too.
func (im *Importer) ownProperties(ctx context.Context, dataset string) ([]property, error) {
	out, err := im.zfs(ctx, "get", "-H", "-r", "-o", "name,property,source", "all", dataset)
	if err != nil {
		return nil, err
	}
	var own []property
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 {
			return nil, fmt.Errorf("zfs get: a line that is not understood: %q", line)
		}
		if !passive(f[2]) && !shapes[f[1]] {
			own = append(own, property{f[0], f[1]})
		}
	}
	return own, nil
}

// passive tells that a value with that source was set on no dataset by itself.
func passive(source string) bool {
	return source == "-" || source == "default" || source == "temporary" || strings.HasPrefix(source, "inherited from ")
}

// strip takes from a received, unmounted dataset and its snapshot all that the stream
// has set. The error matches ErrProperty when something can not be taken away.
//
// The first step keeps the dataset from being mounted by the others: zfs mounts
// what is shared when where it belongs changes. The zone comes next, since in the global
// zone little else can be changed before; canmount itself comes last.
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
