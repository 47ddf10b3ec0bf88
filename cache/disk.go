package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"imgmirror/verify"
)

const (
	// partialLife is how long an unfinished download that nobody goes on with is kept.
	partialLife = 7 * 24 * time.Hour
	// tidyEvery is the time between two rounds of housekeeping.
	tidyEvery = 10 * time.Minute
)

// load opens the index and compares it with what is on disk. It runs before
// the store is shared.
func (s *Store) load(ctx context.Context) error {
	err := s.loadIndex()
	if errors.Is(err, errCorrupt) {
		s.log.Error("the index cannot be read: it is rebuilt from the files", "error", err)
		if s.index != nil {
			_ = s.index.close() // it is lost anyway
			s.index = nil
		}
		clear(s.files)
		clear(s.aliases)
		if err := s.dir.moveIndexAside(); err != nil {
			return err
		}
		err = s.loadIndex()
	}
	if err != nil {
		return err
	}
	if err := s.loadFiles(ctx); err != nil {
		return err
	}
	if err := s.loadPartials(); err != nil {
		return err
	}
	return s.loadCopies(ctx)
}

// loadIndex opens the index and reads what it has of files.
func (s *Store) loadIndex() (err error) {
	if s.index, err = openIndex(s.dir.index(), s.log); err != nil {
		return err
	}
	err = s.index.each(keyFile, func(key, value []byte) error {
		info, err := readFile(key, value)
		if err == nil {
			s.files[info.Digests.SHA1] = info
		}
		return err
	})
	if err == nil {
		err = s.index.each(keyAlias, func(key, value []byte) error {
			var sum verify.Sum
			if copy(sum[:], value) != len(sum) {
				return fmt.Errorf("%w: alias %q", errCorrupt, key)
			}
			s.aliases[string(key)] = sum
			return nil
		})
	}
	if err != nil {
		return judgeIndex(err)
	}
	return nil
}

// loadFiles drops records without a file and notes files without a record.
func (s *Store) loadFiles(ctx context.Context) error {
	parents, err := os.ReadDir(s.dir.files())
	if err != nil {
		return err
	}
	there := make(map[verify.Sum]bool, len(s.files))
	unknown := make(map[string]bool) // folders that cannot be looked into: nothing in them is absent
	for _, parent := range parents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !parent.IsDir() || len(parent.Name()) != 2 {
			continue
		}
		dir := filepath.Join(s.dir.files(), parent.Name())
		names, err := os.ReadDir(dir)
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
				return err
			}
			s.orphans[sum] = info.Size()
			s.space.foundFile(info.Size())
		}
	}
	for sum, info := range s.files {
		if there[sum] || unknown[sum.String()[:2]] {
			s.space.foundFile(info.Digests.Size)
			continue
		}
		s.log.Warn("a file is gone from the disk", "sum", sum)
		delete(s.files, sum)
		if err := s.index.remove(keyFile + string(sum[:])); err != nil {
			return err
		}
	}
	return nil
}

// loadPartials notes unfinished downloads and removes what can be of no use.
func (s *Store) loadPartials() error {
	entries, err := os.ReadDir(s.dir.partials())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir.partials(), e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		sum, err := verify.ParseSum(e.Name())
		_, orphan := s.orphans[sum]
		useful := err == nil && sum.String() == e.Name() && info.Mode().IsRegular() && info.Size() > 0 &&
			s.files[sum] == nil && !orphan && time.Since(info.ModTime()) < partialLife
		if !useful {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		s.partials[sum] = info.Size()
		s.space.foundPartial(info.Size())
	}
	return nil
}

// adopt hashes a file that has no record and gives it one, or removes it. It is
// done once for all who ask at the same time, and goes on when ctx ends.
func (s *Store) adopt(ctx context.Context, sum verify.Sum) error {
	done := s.adoptions.DoChan(sum.String(), func() (any, error) {
		if err := s.enter(); err != nil {
			return nil, err
		}
		defer s.work.Done()
		return nil, s.hashOrphan(sum)
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) hashOrphan(sum verify.Sum) error {
	s.mu.RLock()
	size, orphan := s.orphans[sum]
	s.mu.RUnlock()
	if !orphan {
		return nil // another call was faster
	}
	digests, err := verify.File(s.ctx, s.dir.file(sum), verify.Want{SHA1: sum})
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case errors.Is(err, verify.ErrMismatch):
		s.log.Error("a file on disk is not what its name says: removed", "sum", sum, "error", err)
		s.metrics.failure(sourceDisk, whereDigest)
		if err := os.Remove(s.dir.file(sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return diskError(err)
		}
	case errors.Is(err, fs.ErrNotExist) && s.dir.present() == nil:
	case err != nil:
		return diskError(err)
	default:
		info := &Info{Digests: digests, Added: time.Now().UTC()}
		if err := s.index.put(filePair(info)); err != nil {
			return err
		}
		s.log.Info("a file on disk was checked and taken in", "sum", sum, "size", digests.Size)
		s.mu.Lock()
		s.files[sum] = info
		delete(s.orphans, sum)
		s.mu.Unlock()
		s.space.foundFile(digests.Size - size)
		return nil
	}
	s.mu.Lock()
	delete(s.orphans, sum)
	s.mu.Unlock()
	s.space.removedFile(size)
	return nil
}

// openFile gives a Reader on a verified file. If the file is not there, or not
// as long as it was, its record is dropped and the result is nil: it will be
// filled again.
func (s *Store) openFile(sum verify.Sum, info *Info) (*Reader, error) {
	f, err := os.Open(s.dir.file(sum))
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.dir.present(); err != nil {
			return nil, err
		}
		return nil, s.forget(sum, info, "it is gone from the disk")
	}
	if err != nil {
		return nil, diskError(err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() != info.Digests.Size {
		f.Close()
		return nil, s.forget(sum, info, fmt.Sprintf("it has %d bytes", st.Size()))
	}
	if err != nil {
		f.Close()
		return nil, diskError(err)
	}
	return &Reader{
		file: f, info: *info, size: info.Digests.Size, end: info.Digests.Size, result: Hit,
		served: s.metrics.served[Hit],
	}, nil
}

// forget drops what is known of a file that is not there as it should be.
func (s *Store) forget(sum verify.Sum, info *Info, why string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	s.mu.Lock()
	mine := s.files[sum] == info
	if mine {
		delete(s.files, sum)
	}
	s.mu.Unlock()
	if !mine {
		return nil
	}
	s.log.Error("a file of the cache is lost: "+why, "sum", sum, "size", info.Digests.Size)
	s.space.removedFile(info.Digests.Size)
	return s.index.remove(keyFile + string(sum[:]))
}

// Run adopts files without a record, removes stale partial files and collects
// badger's garbage until ctx ends. Call it once.
func (s *Store) Run(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	s.mu.RLock()
	orphans := make([]verify.Sum, 0, len(s.orphans))
	for sum := range s.orphans {
		orphans = append(orphans, sum)
	}
	s.mu.RUnlock()
	for _, sum := range orphans {
		if err := s.adopt(ctx, sum); err != nil && ctx.Err() == nil {
			s.log.Error("a file on disk cannot be checked", "sum", sum, "error", err)
		}
	}
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.removeStale()
			if err := s.index.collect(); err != nil {
				s.log.Warn("housekeeping failed", "error", err)
			}
		}
	}
}

// removeStale removes unfinished downloads that nobody went on with.
func (s *Store) removeStale() {
	for _, p := range s.Partials() {
		st, err := os.Stat(s.dir.partial(p.Sum.String()))
		if err != nil || time.Since(st.ModTime()) < partialLife {
			continue
		}
		if err := s.removePartial(p); err != nil {
			s.log.Warn("a stale download cannot be removed", "sum", p.Sum, "error", err)
		}
	}
}

func (s *Store) removePartial(p Partial) error {
	s.names.Lock()
	defer s.names.Unlock()
	s.mu.Lock()
	_, free := s.partials[p.Sum] // a fill may have taken it meanwhile
	delete(s.partials, p.Sum)
	s.mu.Unlock()
	if !free {
		return nil
	}
	s.space.removedPartial(p.Have)
	return os.Remove(s.dir.partial(p.Sum.String()))
}
