package cache

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"imgmirror/cache/disk"
)

// The quarantine holds the latest wrong files within both limits.
const (
	quarantineFiles = 16
	quarantineBytes = 4 << 30
)

// quarantine is DATA/quarantine, which is made when the first wrong file goes there.
type quarantine struct{ places *places }

// take moves to the quarantine what stands at path, the place of a file. The file's door is held.
func (q quarantine) take(path string) error {
	if _, err := os.Stat(q.places.dir.quarantine()); errors.Is(err, fs.ErrNotExist) {
		if err := q.places.remake(q.places.dir.quarantine()); err != nil {
			return disk.Error(err)
		}
	}
	name := filepath.Base(path) + "-" + time.Now().UTC().Format("20060102T150405.000000000")
	return os.Rename(path, filepath.Join(q.places.dir.quarantine(), name))
}

// used tells whether there is anything in the quarantine.
func (q quarantine) used() bool {
	kept, _ := os.ReadDir(q.places.dir.quarantine()) // none that can be read can be given up
	return len(kept) > 0
}

// limit removes what has been in the quarantine longest until no more than that is left.
func (q quarantine) limit(files int, size int64) error {
	entries, err := os.ReadDir(q.places.dir.quarantine())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return disk.Error(err)
	}
	type inmate struct {
		path string
		when string // as its name says
		size int64
	}
	var all []inmate
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it is being removed
		}
		name := e.Name()
		all = append(all, inmate{filepath.Join(q.places.dir.quarantine(), name), name[min(len(name), 41):], info.Size()})
		size -= info.Size()
	}
	slices.SortFunc(all, func(a, b inmate) int { return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.path, b.path)) })
	for len(all) > 0 && (len(all) > files || size < 0) {
		if err := os.RemoveAll(all[0].path); err != nil {
			return disk.Error(err)
		}
		size += all[0].size
		all = all[1:]
	}
	return nil
}
