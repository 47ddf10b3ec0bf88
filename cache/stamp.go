package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

func stampOf(st *unix.Stat_t) index.Stamp {
	return index.Stamp{
		Modified: unix.TimespecToNsec(st.Mtim), Changed: unix.TimespecToNsec(st.Ctim),
		Inode: uint64(st.Ino), //nolint:unconvert // the types differ between systems
	}
}

// stampOfFile gives the stamp of an open file for a record; nil when it cannot be told, so that the next open of the
// file tells it.
func stampOfFile(file *os.File) *index.Stamp {
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil {
		return nil
	}
	stamp := stampOf(&st)
	return &stamp
}

// openRegular opens a file of the cache to read, and tells its size and stamp. It
// waits for no pipe or device and follows no link: these are disk.ErrIrregular.
func openRegular(path string) (*os.File, int64, index.Stamp, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		if info, lost := os.Lstat(path); lost == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s: %w", path, disk.ErrIrregular)
		}
		return nil, 0, index.Stamp{}, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(file.Fd()), &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s: %w", path, disk.ErrIrregular)
	}
	if err != nil {
		file.Close() // unread
		return nil, 0, index.Stamp{}, err
	}
	return file, st.Size, stampOf(&st), nil
}

// readRegular is os.ReadFile, and fails at once where a pipe, device or folder stands.
func readRegular(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close() // read only
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s: %w", path, disk.ErrIrregular))
	}
	return io.ReadAll(file)
}

// damaged tells whether err is about these bytes on the disk, and not about the
// folder, this process or the machine: asking again brings nothing.
func damaged(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG) || errors.Is(err, disk.ErrIrregular)
}

// unchanged tells whether the file with that stamp still is the one that was
// hashed last. A file of which no stamp was kept (the record is of an older
// version) counts as unchanged, and has one from then on.
func (f *stored) unchanged(now index.Stamp) bool {
	if f.stamp.CompareAndSwap(nil, &now) {
		f.unsaved.Store(true)
		return true
	}
	return *f.stamp.Load() == now
}

// stamped notes the stamp of the file whose bytes have been found right.
func (f *stored) stamped(now index.Stamp) {
	if before := f.stamp.Swap(&now); before == nil || *before != now {
		f.unsaved.Store(true)
	}
}

// rehash reads a file whose stamp has changed. Right bytes give it its new stamp; wrong ones
// leave the cache. Without an error the caller looks again.
func (s *Store) rehash(ctx context.Context, sum verify.Sum, f *stored) error {
	return s.once(ctx, "again "+sum.String(), func() error { return s.hashAgain(sum, f) })
}

func (s *Store) hashAgain(sum verify.Sum, f *stored) error {
	file, _, now, err := openRegular(s.dir.file(sum))
	if err == nil {
		file.Close() // unread
		if f.unchanged(now) {
			return nil // another call was faster
		}
	}
	s.log.Info("a file has changed on the disk: it is hashed again", "sum", sum, "size", f.Digests.Size)
	result, err := s.look(s.ctx, sum, f, pace{}, nil)
	switch result {
	case CheckOK:
		return nil
	case CheckQuarantined, CheckAbsent: // it is filled again
		s.log.Error("a file of the cache has failed its check", "sum", sum, "result", string(result), "error", err)
		s.tellOf(f, EventLost, err)
		return nil
	}
	return err
}

// reject takes a file that cannot be used as it stands out of the cache, into the
// quarantine: it will be filled again.
func (s *Store) reject(sum verify.Sum, f *stored, where string, why error) error {
	s.tellOf(f, EventLost, why)
	return s.lose(sum, f, where, why)
}

// lose is reject for a caller that tells of the file itself.
func (s *Store) lose(sum verify.Sum, f *stored, where string, why error) error {
	s.log.Error("a file of the cache is lost", "sum", sum, "size", f.Digests.Size, "error", why)
	s.metrics.failure(sourceDisk, where)
	return s.putAway(sum, f)
}

// clearWay moves what is no file out of the place of a file that is to come.
func (s *Store) clearWay(sum verify.Sum) error {
	path := s.dir.file(sum)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	s.log.Warn("not a file of the cache, moved to the quarantine", "path", path)
	return s.quarantine.take(path)
}
