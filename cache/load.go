package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// load opens the index and compares it with what is on disk. It runs before the store is shared. The folders are read
// while the index is: with many files each of the two takes a while.
func (s *Store) load(ctx context.Context) error {
	var found foundFiles
	var folders errgroup.Group
	folders.Go(func() (err error) { found, err = s.findFiles(ctx); return err })
	folders.Go(func() (err error) { s.copies, err = openCopies(s.dir, s.log); return err })
	err := s.openIndex()
	if foldersErr := folders.Wait(); err == nil {
		err = foldersErr
	}
	if err == nil {
		err = s.loadFiles(found)
	}
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
		return orphan || s.files[sum] != nil || found.unknown[sum.String()[:2]]
	}
	return s.loadImages(ctx, there)
}

// openIndex opens the index and reads what it has of files; one that is broken makes room for a new one.
func (s *Store) openIndex() error {
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
	return err
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

// foundFiles is what a look into DATA/files has found.
type foundFiles struct {
	files   map[verify.Sum]fs.DirEntry
	unknown map[string]bool // folders that cannot be looked into: nothing in them is known to be absent
}

// findFiles looks into DATA/files.
func (s *Store) findFiles(ctx context.Context) (found foundFiles, err error) {
	parents, err := os.ReadDir(s.dir.files())
	if err != nil {
		return found, err
	}
	found = foundFiles{make(map[verify.Sum]fs.DirEntry), make(map[string]bool)}
	for _, parent := range parents {
		if err := ctx.Err(); err != nil {
			return found, err
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
			found.unknown[parent.Name()] = true
			continue
		}
		for _, n := range names {
			sum, err := verify.ParseSum(n.Name())
			if path := filepath.Join(dir, n.Name()); err != nil || path != s.dir.file(sum) || !n.Type().IsRegular() {
				s.log.Warn("not a file of the cache, left alone", "path", path)
				continue
			}
			found.files[sum] = n
		}
	}
	return found, nil
}

// loadFiles drops records without a file and notes files without a record.
func (s *Store) loadFiles(found foundFiles) error {
	for sum, entry := range found.files {
		if s.files[sum] != nil {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.orphans[sum] = info.Size()
		s.space.addFile(info.Size())
	}
	var gone []index.Change
	for sum, f := range s.files {
		if found.files[sum] != nil || found.unknown[sum.String()[:2]] {
			s.space.addFile(f.Digests.Size)
			continue
		}
		s.log.Warn("a file is gone from the disk", "sum", sum)
		delete(s.files, sum)
		gone = append(gone, index.DropFile(sum), index.DropUse(sum))
	}
	return s.later(s.index.Write(gone...))
}
