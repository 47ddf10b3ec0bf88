package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

const (
	// tidyEvery is the time between two rounds of housekeeping.
	tidyEvery = 10 * time.Minute
	// sweepEvery is the time between two looks at the limits.
	sweepEvery = time.Minute
	// tendEvery is the time between two tries of an index that could not be written.
	tendEvery = 5 * time.Second
)

// load opens the index and compares it with what is on disk. It runs before
// the store is shared.
func (s *Store) load(ctx context.Context) error {
	err := s.loadIndex()
	if errors.Is(err, index.ErrCorrupt) {
		s.log.Error("the index cannot be read: it is rebuilt from the files", "error", err)
		if s.index != nil {
			_ = s.index.Close() // it is lost anyway
			s.index = nil
		}
		clear(s.files)
		clear(s.aliases)
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
	s.removeUnended(string(s.dir))
	if s.pins, err = loadPins(s.dir.pins()); err != nil {
		s.log.Error("the pins cannot all be read", "error", err)
	}
	there := func(sum verify.Sum) bool {
		_, orphan := s.orphans[sum]
		return orphan || s.files[sum] != nil || unknown[sum.String()[:2]]
	}
	if err := s.loadCopies(ctx, there); err != nil {
		return err
	}
	return s.loadImages(there)
}

// later is for a change of the index that the next start makes as well: it does no
// harm that it cannot be written.
func (s *Store) later(err error) error {
	if errors.Is(err, ErrNoSpace) || errors.Is(err, ErrDisk) {
		return nil
	}
	return err
}

// tendIndex goes back to an index that could not be written, or was removed.
func (s *Store) tendIndex() error {
	var lost error
	if s.present() == nil { // else the index may be away with its disk
		lost = s.index.Renew()
	}
	if s.index.Tend() {
		return errors.Join(lost, s.recordAgain())
	}
	return lost
}

// recordAgain gives to the index what the tables in memory have, after writes had
// been refused. What went meanwhile the next start finds gone.
func (s *Store) recordAgain() error {
	s.mu.RLock()
	changes := make([]index.Change, 0, len(s.files)+len(s.images)+len(s.aliases))
	for _, f := range s.files {
		changes = append(changes, index.PutFile(index.File{Info: f.Info, Stamp: f.stamp.Load()}))
	}
	for id, im := range s.images {
		changes = append(changes, index.PutImage(id, im))
	}
	for key, sum := range s.aliases {
		changes = append(changes, index.PutAlias(key, sum))
	}
	s.mu.RUnlock()
	return s.index.Write(changes...)
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
		err = s.index.Aliases(func(key string, sum verify.Sum) { s.aliases[key] = sum })
	}
	return err
}

// loadFiles drops records without a file and notes files without a record. It
// gives the names of folders that cannot be looked into: nothing in them is
// known to be absent.
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
			if err != nil || sum.String() != n.Name() || !strings.HasPrefix(n.Name(), parent.Name()) || !n.Type().IsRegular() {
				s.log.Warn("not a file of the cache, left alone", "path", filepath.Join(dir, n.Name()))
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
			s.space.foundFile(info.Size())
		}
	}
	for sum, f := range s.files {
		if there[sum] || unknown[sum.String()[:2]] {
			s.space.foundFile(f.Digests.Size)
			continue
		}
		s.log.Warn("a file is gone from the disk", "sum", sum)
		delete(s.files, sum)
		gone = append(gone, index.DropFile(sum), index.DropUse(sum))
	}
	return unknown, s.later(s.index.Write(gone...))
}

// openFile gives a Reader on a verified file whose hold the caller has taken;
// without a Reader it lets it go. If the file is not there, or not what it was, it
// leaves the cache and the result is nil: it will be filled again. A file that may
// be another one is hashed first: then, too, the result is nil if it is right.
func (s *Store) openFile(ctx context.Context, sum verify.Sum, f *stored) (r *Reader, err error) {
	defer func() {
		if r == nil {
			f.hold.n.Add(-1)
		}
	}()
	if f.wrong.Load() {
		return nil, s.awaitGone(sum, f)
	}
	file, size, now, err := openRegular(s.dir.file(sum))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if gone, err := s.gone(sum); err != nil || !gone {
			return nil, err
		}
		return nil, s.forget(sum, f, "it is gone from the disk")
	case damaged(err):
		return nil, s.reject(sum, f, whereUnreadable, err)
	case err != nil:
		return nil, disk.Error(err)
	case size != f.Digests.Size:
		file.Close() // unread
		return nil, s.reject(sum, f, whereSize, fmt.Errorf("on disk there are %d bytes", size))
	case !f.unchanged(now):
		file.Close() // unread
		return nil, s.rehash(ctx, sum, f)
	}
	f.touch()
	return &Reader{
		store: s, file: file, stored: f, hold: f.hold, info: f.Info, size: f.Digests.Size, end: f.Digests.Size, result: Hit,
		served: s.metrics.served[Hit],
	}, nil
}

// awaitGone waits until a file with wrong bytes is out of the cache, and fails if
// the disk does not let it go.
func (s *Store) awaitGone(sum verify.Sum, f *stored) error {
	door := s.fileDoors.of(sum[0])
	door.Lock()
	defer door.Unlock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files[sum] == f {
		return fmt.Errorf("%w: file %s was found wrong and cannot be moved away", ErrDisk, sum)
	}
	return nil
}

// forget drops what is known of a file that is no longer on the disk.
func (s *Store) forget(sum verify.Sum, f *stored, why string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	gone, err := s.discard(sum, f, func() bool { return true }, func(string) error { return fs.ErrNotExist })
	if gone {
		s.log.Error("a file of the cache is lost: "+why, "sum", sum, "size", f.Digests.Size)
	}
	return err
}

// Run adopts files without a record, then scrubs; beside that it makes room where
// a limit is passed, records when files were used, removes stale partial files
// collects badger's garbage, and goes back to an index that could not be written,
// until ctx ends. Call it once.
func (s *Store) Run(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() { s.watchFolders(ctx) })
	reading.Go(func() {
		s.adoptAll(ctx)
		s.scrub(ctx)
	})
	tidy, flush, room := time.NewTicker(tidyEvery), time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	tend := time.NewTicker(tendEvery)
	defer tend.Stop()
	due := tend.C
	if s.tend != nil {
		due = s.tend
	}
	defer tidy.Stop()
	defer flush.Stop()
	defer room.Stop()
	s.wakeRoom() // the limits may be other ones than last time
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-flush.C:
			err = s.flushUses()
		case <-due:
			err = s.tendIndex()
		case <-room.C:
			err = s.sweep()
		case <-s.wakeRun:
			err = s.sweep()
		case <-tidy.C:
			s.removeStale()
			err = s.index.Collect()
		}
		if err != nil {
			s.log.Warn("housekeeping failed", "error", err)
		}
	}
}
