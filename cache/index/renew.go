package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
)

var (
	errReopened = errors.New("the index was opened again")
	errRemoved  = errors.New("its folder was removed, or another one put in its place")
)

// Trouble tells why the index cannot be written, as far as that is known; nil if the index can be.
func (ix *Index) Trouble() error {
	defer ix.lock()()
	same, err := ix.inPlace()
	switch {
	case ix.db == nil:
		return ix.down(ix.why)
	case err != nil:
		return ix.down(err)
	case !same:
		return ix.down(errRemoved)
	case ix.missed != nil:
		return ix.missed
	}
	if err := unix.Access(ix.dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return ix.down(&fs.PathError{Op: "access", Path: ix.dir, Err: err})
	}
	return nil
}

// inPlace tells whether the folder of the index is the one that was opened.
func (ix *Index) inPlace() (bool, error) {
	opened, err := ix.flock.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(ix.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, now), err
}

// Renew makes the folder of the index anew when the folder was removed, with all that the
// index holds: badger has its files open, and reads them as before. What stands in the
// folder's place is moved aside. An index that another process has open stays.
func (ix *Index) Renew() (err error) {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	ix.state.Lock()
	defer ix.state.Unlock()
	if errors.Is(ix.why, ErrClosed) {
		return nil
	}
	if same, err := ix.inPlace(); same || err != nil {
		return err
	}
	held := &snapshot{values: make(map[string][]byte)}
	err = ix.eachLocked("", func(key, value []byte) error {
		held.keys, held.values[string(key)] = append(held.keys, string(key)), slices.Clone(value)
		return nil
	})
	if err != nil {
		return err
	}
	lock, err := ix.freshFolder()
	if err != nil {
		return ix.down(err)
	}
	if ix.db != nil {
		// It makes a last table, under its old path: in the new folder.
		if err := ix.db.Close(); err != nil {
			ix.log.Warn("the index that was removed cannot be closed", "error", err)
		}
	}
	ix.flock.Close() //nolint:errcheck // nothing was written to it
	ix.db, ix.saved, ix.why, ix.flock = nil, held, errRemoved, lock
	if err := emptyFolder(ix.dir); err != nil {
		return ix.down(err)
	}
	if ix.db, err = ix.openDB(); err != nil {
		ix.why = err
		return ix.down(err)
	}
	ix.saved, ix.why, ix.missed = nil, nil, errReopened
	ix.log.Warn("the folder of the index was gone, and is made anew", "path", ix.dir, "entries", len(held.keys))
	changes := make([]Change, len(held.keys))
	for i, key := range held.keys {
		changes[i] = Change{key, held.values[key]}
	}
	return ix.writeLocked(changes)
}

// freshFolder makes the folder of the index, if there is room for an index in it.
func (ix *Index) freshFolder() (lock *os.File, err error) {
	if _, err := os.Lstat(ix.dir); err == nil {
		other, err := disk.LockFolder(ix.dir)
		if err != nil {
			return nil, err
		}
		defer other.Close() //nolint:errcheck // nothing was written to it
		if err := moveAside(ix.dir); err != nil {
			return nil, err
		}
	}
	if err := disk.MakeFolder(ix.dir); err != nil {
		return nil, err
	}
	if err = ix.room.forTable(logBytes); err == nil {
		lock, err = disk.LockFolder(ix.dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(ix.dir))
	}
	return lock, nil
}

// emptyFolder removes what is in dir.
func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if lost := os.RemoveAll(filepath.Join(dir, e.Name())); lost != nil {
			err = errors.Join(err, fmt.Errorf("empty %s: %w", dir, lost))
		}
	}
	return err
}
