package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"imgmirror/verify"
)

// partialLife is how long an unfinished download that nobody goes on with is kept.
const partialLife = 7 * 24 * time.Hour

// Partial is a download that an earlier process, or a fill that failed, left unfinished.
type Partial struct {
	Sum     verify.Sum
	Have    int64
	Dropped bool // in this process, because nobody wanted it any more (Blob.Droppable)
}

// leftover is what is known of a partial file that no fill is working on.
type leftover struct {
	have    int64
	dropped bool
}

// Partials lists the unfinished downloads that no fill is working on; the
// caller resumes them by calling File with sources.
func (s *Store) Partials() []Partial {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Partial, 0, len(s.partials))
	for sum, left := range s.partials {
		all = append(all, Partial{Sum: sum, Have: left.have, Dropped: left.dropped})
	}
	return all
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
		s.partials[sum] = leftover{have: info.Size()}
		s.space.foundPartial(info.Size())
	}
	return nil
}

// removeStale removes unfinished downloads that nobody went on with.
func (s *Store) removeStale() {
	for _, p := range s.Partials() {
		st, err := os.Stat(s.dir.partial(p.Sum.String()))
		if err == nil && time.Since(st.ModTime()) < partialLife {
			continue
		}
		if err != nil && (!errors.Is(err, fs.ErrNotExist) || s.Health() != nil) { // that it is gone is not known
			continue
		}
		if _, err := s.removePartial(p.Sum); err != nil {
			s.log.Warn("a stale download cannot be removed", "sum", p.Sum, "error", err)
		}
	}
}

// removePartial removes an unfinished download; false: a fill goes on with it,
// or it cannot be removed, and is still there.
func (s *Store) removePartial(sum verify.Sum) (bool, error) {
	s.names.Lock()
	defer s.names.Unlock()
	s.mu.Lock()
	left, free := s.partials[sum]
	delete(s.partials, sum)
	s.mu.Unlock()
	if !free {
		return false, nil
	}
	err := os.Remove(s.dir.partial(sum.String()))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.space.removedPartial(left.have)
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fills[sum.String()] == nil {
		s.partials[sum] = left
	} else { // one that began meanwhile, and overwrites it
		s.space.removedPartial(left.have)
	}
	return false, diskError(err)
}
