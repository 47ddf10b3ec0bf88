package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// load opens the index and compares it with what is on disk. It runs before the store is shared.
func (s *Store) load(ctx context.Context) error {
	err := s.loadIndex()
	if errors.Is(err, index.ErrCorrupt) {
		s.log.Error("the index cannot be read: it is rebuilt from the files", "error", err)
		if s.index != nil {
			_ = s.index.Close() // it is lost anyway
			s.index = nil
		}
		clear(s.files)
		s.aliases.clear()
		if err := index.MoveAside(s.dir.index()); err != nil {
			return err
		}
		err = s.loadIndex()
	}
	if err != nil {
		return err
	}
	unknown, err := s.loadFiles(ctx)
	if err != nil {
		return err
	}
	if err := s.loadPartials(); err != nil {
		return err
	}
	removeUnended(string(s.dir), s.log)
	if s.pins, err = loadPins(s.dir.pins()); err != nil {
		s.log.Error("the pins cannot all be read", "error", err)
	}
	there := func(sum verify.Sum) bool {
		_, orphan := s.orphans[sum]
		return orphan || s.files[sum] != nil || unknown[sum.String()[:2]]
	}
	if s.copies, err = openCopies(s.dir, s.log); err != nil {
		return err
	}
	return s.loadImages(ctx, there)
}

// later is for a change of the index that the next start makes as well: it does no
// harm that it cannot be written.
func (s *Store) later(err error) error {
	if errors.Is(err, ErrNoSpace) || errors.Is(err, ErrDisk) {
		return nil
	}
	return err
}

// loadIndex opens the index and reads what it has of files.
func (s *Store) loadIndex() (err error) {
	dir := s.dir.index()
	s.index, err = index.Open(index.Options{Dir: dir, Room: func() (disk.Room, error) { return s.o.diskRoom(dir) }, Logger: s.log})
	if err != nil {
		return err
	}
	err = s.index.Files(func(known index.File) {
		f := newStored(known.Info, new(hold), known.Added)
		f.stamp.Store(known.Stamp)
		s.files[known.Digests.SHA1] = f
	})
	if err == nil {
		err = s.loadUses()
	}
	if err == nil {
		err = s.index.Aliases(s.aliases.put)
	}
	return err
}

// loadFiles drops records without a file and notes files without a record. It gives the names of
// folders that cannot be looked into: nothing in them is known to be absent.
func (s *Store) loadFiles(ctx context.Context) (unknown map[string]bool, err error) {
	parents, err := os.ReadDir(s.dir.files())
	if err != nil {
		return nil, err
	}
	there := make(map[verify.Sum]bool, len(s.files))
	unknown = make(map[string]bool)
	var gone []index.Change
	for _, parent := range parents {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(parent.Name()) != 2 {
			continue
		}
		dir := filepath.Join(s.dir.files(), parent.Name())
		names, err := os.ReadDir(dir)
		if !parent.IsDir() && err == nil {
			err = fmt.Errorf("%s is no folder", dir)
		}
		if err != nil {
			s.log.Error("a folder of files cannot be read", "error", err)
			unknown[parent.Name()] = true
			continue
		}
		for _, n := range names {
			sum, err := verify.ParseSum(n.Name())
			if path := filepath.Join(dir, n.Name()); err != nil || path != s.dir.file(sum) || !n.Type().IsRegular() {
				s.log.Warn("not a file of the cache, left alone", "path", path)
				continue
			}
			there[sum] = true
			if s.files[sum] != nil {
				continue
			}
			info, err := n.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			s.orphans[sum] = info.Size()
			s.space.addFile(info.Size())
		}
	}
	for sum, f := range s.files {
		if there[sum] || unknown[sum.String()[:2]] {
			s.space.addFile(f.Digests.Size)
			continue
		}
		s.log.Warn("a file is gone from the disk", "sum", sum)
		delete(s.files, sum)
		gone = append(gone, index.DropFile(sum), index.DropUse(sum))
	}
	return unknown, s.later(s.index.Write(gone...))
}
