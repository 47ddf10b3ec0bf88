package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// handOver gives what root has made in the data folder to the folder's owner: a mirror that runs there as a user of
// its own has to read and write all of the folder. It does nothing for other users, and in folders of root. Files with
// a second name stay root's, for the other name may be anywhere.
func handOver(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	root, err := os.OpenRoot(dir) // no name leads out
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing was written to it
	top, err := root.Stat(".")
	if err != nil {
		return err
	}
	owner := ownerOf(top)
	if owner == nil || owner.Uid == 0 {
		return nil
	}
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		own := ownerOf(info)
		if own == nil || own.Uid != 0 || !info.IsDir() && (!info.Mode().IsRegular() || own.Nlink > 1) {
			return nil
		}
		return root.Lchown(name, int(owner.Uid), int(owner.Gid))
	})
}

// ownerOf is what the system tells of a file beside its size and mode; nil: nothing.
func ownerOf(info fs.FileInfo) *syscall.Stat_t {
	s, _ := info.Sys().(*syscall.Stat_t)
	return s
}
