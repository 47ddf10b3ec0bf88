package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// adopt hashes a file that has no record and gives it one, or removes it.
func (s *Store) adopt(ctx context.Context, sum verify.Sum) error {
	return s.once(ctx, sum.String(), func() error { return s.hashOrphan(sum) })
}

// once does work on a file once for all calls that ask for the same at the same time. The work goes on when ctx ends.
func (s *Store) once(ctx context.Context, what string, work func() error) error {
	done := s.adoptions.DoChan(what, func() (any, error) {
		if err := s.enter(); err != nil {
			return nil, err
		}
		defer s.work.Done()
		return nil, work()
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
	digests, mark, err := s.hashFile(s.ctx, sum, pace{}, nil)
	if err == nil {
		err = verify.Want{SHA1: sum}.Check(digests)
	}
	if err == nil && mark == nil {
		err = fmt.Errorf("%s changes while it is read", s.dir.file(sum))
	}
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case errors.Is(err, verify.ErrMismatch):
		s.log.Error("a file on disk is not what its name says: removed", "sum", sum, "error", err)
		s.metrics.failure(sourceDisk, whereDigest)
		_, err = s.discard(sum, nil, nil, os.Remove)
		return err
	case errors.Is(err, fs.ErrNotExist):
		if gone, err := s.gone(sum); err != nil || !gone {
			return err
		}
		_, err = s.discard(sum, nil, nil, absent)
		return err
	case damaged(err):
		s.log.Error("a file on disk cannot be read: it is moved to the quarantine", "sum", sum, "error", err)
		s.metrics.failure(sourceDisk, whereUnreadable)
		return s.putAway(sum, nil)
	case err != nil:
		return disk.Error(err)
	}
	door := s.fileDoors.of(sum[0])
	door.Lock()
	defer door.Unlock()
	s.mu.RLock()
	_, orphan = s.orphans[sum]
	s.mu.RUnlock()
	if !orphan { // a fill of other name has brought the same bytes
		return nil
	}
	info := Info{Digests: digests, Added: time.Now().UTC()}
	if err := s.index.Write(index.PutFile(index.File{Info: info, Stamp: mark})); err != nil {
		return err
	}
	s.log.Info("a file on disk was checked and taken in", "sum", sum, "size", digests.Size)
	used := info.Added
	if st, err := os.Stat(s.dir.file(sum)); err == nil && st.ModTime().Before(used) { // nothing better is known
		used = st.ModTime()
	}
	f := newStored(info, new(hold), used)
	f.stamp.Store(mark)
	s.mu.Lock()
	f.images = slices.Clone(s.images.having[sum])
	s.files[sum] = f
	s.changes.Add(1)
	delete(s.orphans, sum)
	s.mu.Unlock()
	s.space.addFile(digests.Size - size)
	return nil
}

// adoptAll adopts the files without a record.
func (s *Store) adoptAll(ctx context.Context) {
	s.mu.RLock()
	orphans := maps.Clone(s.orphans)
	s.mu.RUnlock()
	for sum := range orphans {
		if err := s.adopt(ctx, sum); err != nil && ctx.Err() == nil {
			s.log.Error("a file on disk cannot be checked", "sum", sum, "error", err)
		}
	}
}
