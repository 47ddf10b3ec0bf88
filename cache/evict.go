package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// Reason says why a file was removed.
type Reason string

// The reasons.
const (
	ReasonMaxSize Reason = "max_size" // the cache was to stay within Options.MaxSize
	ReasonMinFree Reason = "min_free" // the file system was to keep Options.MinFree
	ReasonDelete  Reason = "delete"   // an operator asked for it
)

// Evicted is a file that was removed, or would be.
type Evicted struct {
	File
	Partial bool // an unfinished download: of File only Sum and Size are known
	Reason  Reason

	name     string // of the partial file
	children int    // images on top of its images that may be there when it goes
}

// Vacuum brings the cache down to its low water, which is 5 % below MaxSize and
// above MinFree, just as a fill does that finds no room: what is not pinned, not
// in use and no origin of what stays goes, least recently used first. It tells
// what has gone, in that order; with dryRun what would go now. A wait for room that a download
// makes just now ends with ctx.
func (s *Store) Vacuum(ctx context.Context, dryRun bool) ([]Evicted, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.work.Done()
	if err := s.evicting.take(ctx); err != nil {
		return nil, err
	}
	defer s.evicting.leave()
	d, err := s.space.need(0)
	if err != nil {
		return nil, err
	}
	d.must = 0
	plan := s.plan(d)
	if dryRun || ctx.Err() != nil {
		return plan, ctx.Err()
	}
	return s.evict(plan), nil
}

// sweep makes room when a limit is passed without a fill: the limit was lowered,
// or others fill the disk.
func (s *Store) sweep() error {
	if s.o.NoSweep {
		return nil
	}
	if s.evicting.take(s.ctx) != nil { // the store ends
		return nil
	}
	defer s.evicting.leave()
	d, err := s.space.need(0)
	if err != nil || d.must == 0 {
		return err
	}
	if d.reason == ReasonMaxSize {
		// Downloads that broke off beyond the limit go first. Then no verified file goes for the low water.
		s.evict(s.leftovers(d.must, d.reason))
		if d, err = s.space.need(0); err != nil || d.must == 0 {
			return err
		}
	}
	if d.reason == ReasonMaxSize {
		d.must = 0 // what can be done is better than nothing
	} // else others take what we would give up: only if that is enough
	s.evict(s.plan(d))
	return nil
}

// SetLimits changes Options.MaxSize and MinFree. What is stored beyond them goes soon.
func (s *Store) SetLimits(maxSize, minFree int64) {
	s.space.setLimits(maxSize, minFree)
	s.wakeRoom()
}

// wakeRoom lets Run look at the limits now.
func (s *Store) wakeRoom() {
	select {
	case s.wakeRun <- struct{}{}:
	default: // it is about to
	}
}

// Remove removes the file, which no pin keeps, or the unfinished download, by hand. The removal outlives
// a loss of power. Readers of the file read on; the next request for the file begins a new fill. The error
// matches ErrPinned, or fs.ErrNotExist if neither is there.
func (s *Store) Remove(_ context.Context, sum verify.Sum) (Evicted, error) {
	if err := s.enter(); err != nil {
		return Evicted{}, err
	}
	defer s.work.Done()
	e := Evicted{File: File{Sum: sum}, Reason: ReasonDelete}
	s.mu.RLock()
	f := s.files[sum]
	if f != nil {
		e.File = f.describe()
	}
	parts := maps.Clone(s.partials)
	s.mu.RUnlock()
	if f == nil {
		for name, left := range parts {
			if left.Sum != sum {
				continue
			}
			gone, err := s.removePartial(name)
			if err != nil {
				return Evicted{}, err
			}
			if gone { // else a fill goes on with it
				e.Partial, e.Size = true, e.Size+left.Have
			}
		}
		if !e.Partial {
			return Evicted{}, fmt.Errorf("file %s: %w", sum, fs.ErrNotExist)
		}
		s.removed(e)
		return e, nil
	}
	if id, pinned := s.pinnedUser(f); pinned {
		return Evicted{}, fmt.Errorf("%w: %s needs file %s", ErrPinned, id, sum)
	}
	gone, err := s.discard(sum, f, nil, os.Remove)
	if err == nil && !gone {
		err = fmt.Errorf("file %s: %w", sum, fs.ErrNotExist) // another removal was faster
	}
	if err != nil {
		return Evicted{}, err
	}
	s.removed(e)
	// What the index has of the file goes by itself at the next start.
	err = disk.SyncFolder(filepath.Dir(s.dir.file(sum)))
	if errors.Is(err, fs.ErrNotExist) { // the file went with its folder
		err = nil
	}
	return e, disk.Error(errors.Join(err, disk.SyncFolder(s.dir.manifests())))
}

// pinnedUser finds a pinned image that needs f: it is its file, or one of an ancestor.
func (s *Store) pinnedUser(f *stored) (uuid.UUID, bool) {
	s.mu.RLock()
	users := slices.Clone(f.images)
	for i := 0; i < len(users); i++ {
		if s.images.children[users[i]] == 0 {
			continue
		}
		for id, im := range s.images.known {
			if im.Origin == users[i] && !slices.Contains(users, id) {
				users = append(users, id)
			}
		}
	}
	s.mu.RUnlock()
	if i := slices.IndexFunc(users, s.Kept); i >= 0 {
		return users[i], true
	}
	return uuid.Nil, false
}

// evict removes what plan says, in its order, but for what has come into use
// since. It tells what has gone. The turn of evicting is held.
func (s *Store) evict(plan []Evicted) []Evicted {
	var gone []Evicted
	for _, e := range plan {
		var done bool
		var err error
		s.mu.RLock()
		f := s.files[e.Sum]
		s.mu.RUnlock()
		switch {
		case e.Partial:
			done, err = s.removePartial(e.name)
		case f != nil && !slices.ContainsFunc(e.Images, s.Kept):
			done, err = s.discard(e.Sum, f, func() bool {
				return f.used.Load() == e.LastUsed.UnixNano() && f.hold.readers() == 0 && len(f.images) == len(e.Images) &&
					s.images.childrenOf(f.images) <= e.children
			}, os.Remove)
		}
		if err != nil {
			s.log.Error("a file cannot be removed to make room", "sum", e.Sum, "error", err)
		}
		if done {
			s.removed(e)
			gone = append(gone, e)
		}
	}
	return gone
}

// removed tells everyone of a file that has gone.
func (s *Store) removed(e Evicted) {
	s.metrics.evictions[e.Reason].Inc()
	s.log.Info("file removed", "sum", e.Sum, "size", e.Size, "reason", string(e.Reason), "partial", e.Partial, "last_used", e.LastUsed)
	if s.o.OnRemove != nil {
		s.o.OnRemove(e)
	}
}

// discard takes the file sum out of the cache: from the tables, so that no request
// finds it any more; with away from its place on the disk; from the index. It does
// nothing if the file is f no longer (nil: a file without a record), or if still,
// unless nil, says no, which is asked with s.mu held.
func (s *Store) discard(sum verify.Sum, f *stored, still func() bool, away func(path string) error) (done bool, err error) {
	door := s.fileDoors.of(sum[0])
	door.Lock()
	defer door.Unlock()
	if err := s.present(); err != nil { // what is away is not taken out
		return false, err
	}
	s.mu.Lock()
	size, orphan := s.orphans[sum]
	if s.files[sum] != f || f == nil && !orphan || still != nil && !still() {
		s.mu.Unlock()
		return false, nil
	}
	var images []uuid.UUID
	if orphan {
		images = slices.Clone(s.images.having[sum])
	} else {
		size, images = f.Digests.Size, f.images
	}
	delete(s.files, sum)
	s.changes.Add(1)
	delete(s.orphans, sum)
	s.mu.Unlock()
	err = away(s.dir.file(sum))
	if errors.Is(err, fs.ErrNotExist) {
		var gone bool
		if gone, err = s.gone(sum); err == nil && !gone {
			err = fmt.Errorf("%s comes and goes", s.dir.file(sum))
		}
	}
	if err != nil { // the file is where it was
		s.mu.Lock()
		if orphan {
			s.orphans[sum] = size
		} else {
			s.files[sum] = f
			s.changes.Add(1)
		}
		s.mu.Unlock()
		return false, disk.Error(err)
	}
	s.step("unlink")
	s.space.addFile(-size)
	changes := []index.Change{index.DropFile(sum), index.DropUse(sum)}
	s.mu.Lock()
	for _, key := range s.aliases.drop(sum) {
		changes = append(changes, index.DropAlias(key))
	}
	s.mu.Unlock()
	// From here on failures leave traces in the index that the next start removes.
	if err := s.index.Write(changes...); err != nil {
		s.log.Error("the record of a removed file cannot be removed", "sum", sum, "error", err)
	}
	s.step("unrecord")
	for _, id := range images {
		if err := s.unnoteImage(id, sum, false); err != nil {
			s.log.Error("the record of a removed file's image cannot be removed", "sum", sum, "uuid", id, "error", err)
		}
	}
	return true, nil
}

// absent is how discard takes away a file that is gone from the disk.
func absent(string) error { return fs.ErrNotExist }

// plan says what goes, and in which order, so that d is met: nothing if d.must
// cannot be. Unfinished downloads without a fill are the first.
func (s *Store) plan(d need) []Evicted {
	if d.should <= 0 {
		return nil
	}
	var freed int64
	plan := s.leftovers(d.should, d.reason)
	for _, e := range plan {
		freed += e.Size
	}
	for q := s.queue(); freed < d.should; {
		f, children, ok := q.next()
		if !ok {
			break
		}
		plan = append(plan, Evicted{File: f, Reason: d.reason, children: children})
		freed += f.Size
	}
	if freed < d.must {
		return nil
	}
	return plan
}

// leftovers gives unfinished downloads without a fill, as many as are enough.
func (s *Store) leftovers(enough int64, reason Reason) (all []Evicted) {
	s.mu.RLock()
	for name, left := range s.partials {
		all = append(all, Evicted{File: File{Sum: left.Sum, Size: left.Have}, Partial: true, Reason: reason, name: name})
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b Evicted) int { return strings.Compare(a.name, b.name) })
	for i := range all {
		if enough <= 0 {
			return all[:i]
		}
		enough -= all[i].Size
	}
	return all
}
