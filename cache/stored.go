package cache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// flushEvery is how often the times of use go to the index: a kill loses no more of them.
const flushEvery = 30 * time.Second

// stored is one verified file on disk.
type stored struct {
	Info                // immutable
	images  []uuid.UUID // whose file it is; guarded by Store.mu, replaced and never changed
	hold    *hold
	used    atomic.Int64 // when it was last opened, or a reader left it; Unix nanoseconds
	checked atomic.Int64 // when its bytes were last found right; Unix nanoseconds
	idle    atomic.Bool  // the file was brought ahead of need, and no request has come since
	dirty   atomic.Bool  // used, checked or idle are newer than what the index has
	wrong   atomic.Bool  // the bytes were found wrong: no open Reader may go on

	stamp   atomic.Pointer[index.Stamp] // of the file whose bytes were hashed; nil: not known yet
	unsaved atomic.Bool                 // stamp is newer than what the index has
}

func newStored(info Info, h *hold, used time.Time) *stored {
	f := &stored{Info: info, hold: h}
	f.used.Store(used.UnixNano())
	f.checked.Store(info.Added.UnixNano())
	return f
}

// touch makes it the most recently used.
func (f *stored) touch() {
	f.used.Store(time.Now().UnixNano())
	f.idle.Store(false)
	f.dirty.Store(true)
}

// hold counts the readers of the bytes of one sum, and the readers about to begin. A file
// with readers is never evicted.
type hold struct {
	n    atomic.Int64
	prev *hold // of the file that a later fill of the same bytes has replaced; guarded by Store.mu
}

// readers is how many there are. Store.mu is held.
func (h *hold) readers() (n int64) {
	for ; h != nil; h = h.prev {
		n += h.n.Load()
	}
	return n
}

// follow takes over those who still read the file before. Store.mu is held.
func (h *hold) follow(before *hold) {
	for before != nil && before.n.Load() == 0 { // no request can take it any more
		before = before.prev
	}
	h.prev = before
}

// File is what is known of one file on disk.
type File struct {
	Sum      verify.Sum
	Size     int64
	Added    time.Time
	LastUsed time.Time
	Idle     bool        // the file was brought ahead of need, and no request has come since
	Checked  time.Time   // when its bytes were last found right: at its download, by a scrub or by Check
	Readers  int         // who have it open now
	Images   []uuid.UUID // whose file it is, sorted; empty for icons
}

// describe gives the public view of f. s.mu is held.
func (f *stored) describe() File {
	images := slices.Clone(f.images)
	slices.SortFunc(images, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return File{
		Sum: f.Digests.SHA1, Size: f.Digests.Size, Added: f.Added,
		LastUsed: time.Unix(0, f.used.Load()).UTC(), Checked: time.Unix(0, f.checked.Load()).UTC(),
		Idle: f.idle.Load(), Readers: int(f.hold.readers()), Images: images,
	}
}

// before orders files as eviction does: files without a request first, then the
// least recently used. It is negative if f goes before g.
func (f File) before(g File) int {
	if f.Idle != g.Idle {
		if f.Idle {
			return -1
		}
		return 1
	}
	return cmp.Or(f.LastUsed.Compare(g.LastUsed), bytes.Compare(f.Sum[:], g.Sum[:]))
}

// Files lists the verified files in the order of File.before.
func (s *Store) Files() []File {
	s.mu.RLock()
	all := make([]File, 0, len(s.files))
	for _, f := range s.files {
		all = append(all, f.describe())
	}
	s.mu.RUnlock()
	slices.SortFunc(all, File.before)
	return all
}

// Unrecorded lists the files on disk that have no record in the index, in no order. Only Sum, Size and Images of such a
// file are known. Run takes these files in, one after the other. Check takes in its file at once.
func (s *Store) Unrecorded() []File {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]File, 0, len(s.orphans))
	for sum, size := range s.orphans {
		all = append(all, File{Sum: sum, Size: size, Images: slices.Clone(s.images.having[sum])})
	}
	return all
}

// Describe tells of the verified file with that sum.
func (s *Store) Describe(sum verify.Sum) (File, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, ok := s.files[sum]
	if !ok {
		return File{}, false
	}
	return f.describe(), true
}

// Changes grows with each file that comes or goes: between two equal values Peek gives the same
// answers.
func (s *Store) Changes() uint64 { return s.changes.Load() }

// flushUses writes what of the files' use, and of their stamps, is newer than the index.
func (s *Store) flushUses() error {
	var news []index.Change
	var again []*atomic.Bool // what is to be set again if that cannot be written
	s.mu.RLock()
	for sum, f := range s.files {
		if f.unsaved.Swap(false) {
			news, again = append(news, index.PutFile(index.File{Info: f.Info, Stamp: f.stamp.Load()})), append(again, &f.unsaved)
		}
		if f.dirty.Swap(false) {
			use := index.Use{Used: time.Unix(0, f.used.Load()), Checked: time.Unix(0, f.checked.Load()), Idle: f.idle.Load()}
			news, again = append(news, index.PutUse(sum, use)), append(again, &f.dirty)
		}
	}
	s.mu.RUnlock()
	err := s.index.Write(news...)
	if err != nil {
		for _, unsaved := range again {
			unsaved.Store(true)
		}
	}
	return err
}

// loadUses reads what flushUses wrote, and drops the records of files that are gone.
func (s *Store) loadUses() error {
	now := time.Now().UnixNano()
	var gone []index.Change
	err := s.index.Uses(func(sum verify.Sum, u index.Use) {
		f := s.files[sum]
		if f == nil {
			gone = append(gone, index.DropUse(sum))
			return
		}
		// A clock that was ahead must not keep a file for ever.
		f.used.Store(min(now, u.Used.UnixNano()))
		f.checked.Store(min(now, u.Checked.UnixNano()))
		f.idle.Store(u.Idle)
	})
	if err != nil {
		return err
	}
	return s.later(s.index.Write(gone...))
}

// doors are locks that many keys share: of each key one at a time is worked on.
// They are held over I/O.
type doors [64]sync.Mutex

func (d *doors) of(key byte) *sync.Mutex { return &d[int(key)%len(d)] }

// openFile gives a Reader on a verified file whose hold the caller has taken;
// without a Reader it lets it go. If the file is not there, or not what it was, it
// leaves the cache and the result is nil: it will be filled again. A file that may
// be another one is hashed first: then, too, the result is nil if it is right.
func (s *Store) openFile(ctx context.Context, sum verify.Sum, f *stored, by By) (r *Reader, err error) {
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
		_, err := s.forget(sum, f)
		return nil, err
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
		served: &s.metrics.traffic.tally(by, Hit).bytes,
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

// forget drops what is known of a file that is no longer on the disk; false: f is not in the cache any
// more.
func (s *Store) forget(sum verify.Sum, f *stored) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.work.Done()
	gone, err := s.discard(sum, f, nil, absent)
	if gone {
		s.log.Error("a file of the cache is lost: it is gone from the disk", "sum", sum, "size", f.Digests.Size)
	}
	return gone, err
}
