package cache

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// partialLife is how long an unfinished download stays that no fill goes on with.
const partialLife = 7 * 24 * time.Hour

// Partial is a download that an earlier process, or a fill that failed, left unfinished.
type Partial struct {
	Sum     verify.Sum
	Size    int64 // of the whole file; 0: not known
	Have    int64
	Dropped bool // in this process, because the jobs that wanted it were cancelled
}

// Partials lists the unfinished downloads that no fill is working on; the
// caller resumes them by calling File with sources.
func (s *Store) Partials() []Partial {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.partials))
}

// partialName is the name of a download's partial file: no two that may run at the same time have one name. Only of
// those that are named by a sum more than the name survives a restart.
func (b Blob) partialName() string {
	key := b.fillKey()
	if b.Want.SHA1.IsZero() {
		sum := sha1.Sum([]byte(key))
		return "key-" + hex.EncodeToString(sum[:])
	}
	return key
}

// partialNames are SUM-SIZE and SUM-SIZE-MD5; SUM alone is what earlier versions left.
var partialNames = regexp.MustCompile(`^([0-9a-f]{40})(?:-(0|[1-9][0-9]*)(?:-[0-9a-f]{32})?)?$`)

func parsePartial(name string) (left Partial, ok bool) {
	parts := partialNames.FindStringSubmatch(name)
	if parts == nil {
		return left, false
	}
	sum, err := verify.ParseSum(parts[1])
	size, tooLong := strconv.ParseInt(cmp.Or(parts[2], "0"), 10, 64)
	return Partial{Sum: sum, Size: size}, err == nil && tooLong == nil
}

// leftoverFor gives the name of the unfinished download that a fill of b goes on with; "": there is none. What an earlier
// version left, whose size is not known, is taken where nothing better is there. s.mu is held.
func (s *Store) leftoverFor(b Blob) string {
	if b.Want.SHA1.IsZero() {
		return ""
	}
	if _, ok := s.partials[b.partialName()]; ok {
		return b.partialName()
	}
	old := b.Want.SHA1.String()
	left, ok := s.partials[old]
	if ok && (b.Want.Size == 0 || left.Have <= b.Want.Size && (left.Size == 0 || left.Size == b.Want.Size)) {
		return old
	}
	return ""
}

// Unfinished tells how many bytes an unfinished download has left for b, with which File goes on.
func (s *Store) Unfinished(b Blob) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.partials[s.leftoverFor(b)].Have
}

// loadPartials notes unfinished downloads and removes what can be of no use.
func (s *Store) loadPartials() error {
	entries, err := readMade(s.dir.partials())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir.partials(), e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		left, ok := parsePartial(e.Name())
		_, orphan := s.orphans[left.Sum]
		useful := ok && info.Mode().IsRegular() && info.Size() > 0 &&
			s.files[left.Sum] == nil && !orphan && time.Since(info.ModTime()) < partialLife
		if !useful {
			if err := os.RemoveAll(path); err != nil {
				s.log.Warn("what is left of a download cannot be removed", "path", path, "error", err)
			}
			continue
		}
		left.Have = info.Size()
		s.partials[e.Name()] = left
		s.space.addPartial(info.Size())
	}
	return nil
}

// removeStale removes unfinished downloads that no fill went on with.
func (s *Store) removeStale() {
	s.removePartials(func(name string, _ Partial) bool {
		st, err := os.Stat(s.dir.partial(name))
		if err != nil {
			return errors.Is(err, fs.ErrNotExist) && s.Health() == nil // else that the file is gone is not known
		}
		return time.Since(st.ModTime()) >= partialLife
	})
}

// removePartials removes the unfinished downloads that are useless. A failure is logged.
func (s *Store) removePartials(useless func(name string, left Partial) bool) {
	s.mu.RLock()
	all := maps.Clone(s.partials)
	s.mu.RUnlock()
	for name, left := range all {
		if !useless(name, left) {
			continue
		}
		if _, err := s.removePartial(name); err != nil {
			s.log.Warn("a download of no more use cannot be removed", "file", name, "error", err)
		}
	}
}

// removePartial removes an unfinished download; false: a fill goes on with it,
// or it cannot be removed, and is still there.
func (s *Store) removePartial(name string) (bool, error) {
	s.names.Lock()
	defer s.names.Unlock()
	s.mu.Lock()
	left, free := s.partials[name]
	delete(s.partials, name)
	s.mu.Unlock()
	if !free {
		return false, nil
	}
	err := os.Remove(s.dir.partial(name))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.space.addPartial(-left.Have)
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fills {
		if f.name == name { // one that began meanwhile, and overwrites it
			s.space.addPartial(-left.Have)
			return false, disk.Error(err)
		}
	}
	s.partials[name] = left
	return false, disk.Error(err)
}

// dropPartial removes the file of a download that has no use for it. A file that was removed by hand is no error.
func (s *Store) dropPartial(path string, have int64) error {
	s.space.addPartial(-have)
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return disk.Error(err)
	}
	return nil
}
