package cache

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// leftover is what is known of a partial file that no fill is working on.
type leftover struct {
	sum     verify.Sum
	size    int64 // of the whole file; 0: not known
	have    int64
	dropped bool
}

// Partials lists the unfinished downloads that no fill is working on; the
// caller resumes them by calling File with sources.
func (s *Store) Partials() []Partial {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Partial, 0, len(s.partials))
	for _, left := range s.partials {
		all = append(all, Partial{Sum: left.sum, Size: left.size, Have: left.have, Dropped: left.dropped})
	}
	return all
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

// parsePartial reads SUM-SIZE or SUM-SIZE-MD5; SUM alone is what earlier versions left.
func parsePartial(name string) (left leftover, ok bool) {
	sum, rest, sized := strings.Cut(name, "-")
	left.sum, ok = exactSum(sum)
	if !ok || !sized {
		return left, ok
	}
	size, md5, hashed := strings.Cut(rest, "-")
	left.size, ok = exactSize(size)
	if hashed {
		_, err := hex.DecodeString(md5)
		ok = ok && err == nil && len(md5) == 2*len(verify.Digests{}.MD5) && strings.ToLower(md5) == md5
	}
	return left, ok
}

func exactSum(s string) (verify.Sum, bool) {
	sum, err := verify.ParseSum(s)
	return sum, err == nil && sum.String() == s
}

func exactSize(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
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
	if ok && (b.Want.Size == 0 || left.have <= b.Want.Size && (left.size == 0 || left.size == b.Want.Size)) {
		return old
	}
	return ""
}

// partsOf gives the unfinished downloads of files with that sha1, by their names. s.mu is held.
func (s *Store) partsOf(sum verify.Sum) map[string]leftover {
	parts := make(map[string]leftover)
	for name, left := range s.partials {
		if left.sum == sum {
			parts[name] = left
		}
	}
	return parts
}

// Unfinished tells how many bytes an unfinished download has left for b, with which File goes on.
func (s *Store) Unfinished(b Blob) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.partials[s.leftoverFor(b)].have
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
		_, orphan := s.orphans[left.sum]
		useful := ok && info.Mode().IsRegular() && info.Size() > 0 &&
			s.files[left.sum] == nil && !orphan && time.Since(info.ModTime()) < partialLife
		if !useful {
			if err := os.RemoveAll(path); err != nil {
				s.log.Warn("what is left of a download cannot be removed", "path", path, "error", err)
			}
			continue
		}
		left.have = info.Size()
		s.partials[e.Name()] = left
		s.space.foundPartial(info.Size())
	}
	return nil
}

// removeStale removes unfinished downloads that no fill went on with.
func (s *Store) removeStale() {
	s.mu.RLock()
	all := maps.Clone(s.partials)
	s.mu.RUnlock()
	for name := range all {
		st, err := os.Stat(s.dir.partial(name))
		if err == nil && time.Since(st.ModTime()) < partialLife {
			continue
		}
		if err != nil && (!errors.Is(err, fs.ErrNotExist) || s.Health() != nil) { // that it is gone is not known
			continue
		}
		if _, err := s.removePartial(name); err != nil {
			s.log.Warn("a stale download cannot be removed", "file", name, "error", err)
		}
	}
}

// removeUseless removes unfinished downloads of bytes that are on disk by now.
func (s *Store) removeUseless(sum verify.Sum) {
	s.mu.RLock()
	parts := s.partsOf(sum)
	s.mu.RUnlock()
	for name := range parts {
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
		s.space.removedPartial(left.have)
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fills {
		if f.name == name { // one that began meanwhile, and overwrites it
			s.space.removedPartial(left.have)
			return false, disk.Error(err)
		}
	}
	s.partials[name] = left
	return false, disk.Error(err)
}

// dropPartial removes the file of a download that has no use for it. A file that was removed by hand is no error.
func (s *Store) dropPartial(path string, have int64) error {
	s.space.removedPartial(have)
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return disk.Error(err)
	}
	return nil
}
