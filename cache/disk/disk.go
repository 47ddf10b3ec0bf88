// Package disk owns how this machine's disk is used: files replaced whole and for good, folders locked and synced,
// the room that is left, and what an error of the disk means. It knows nothing of what the files hold.
package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoSpace says that there is no room for what was to be written.
	ErrNoSpace = errors.New("no space in the cache")
	// ErrUnusable says that the data folder cannot be read or written just now: its content is not known.
	ErrUnusable = errors.New("the data folder cannot be used")
	// ErrIrregular says that something else than a file stands in a file's place.
	ErrIrregular = errors.New("a folder, link, pipe or device stands in the place of a file")
)

// Error gives an error of this machine's disk its meaning: ErrNoSpace or ErrUnusable. The result never matches
// fs.ErrNotExist, which is the answer of a source that has no such image.
func Error(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnusable), errors.Is(err, ErrNoSpace): // the meaning is there already
		return err
	case Full(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	default:
		return fmt.Errorf("%w: %v", ErrUnusable, err) //nolint:errorlint // see above
	}
}

// Full tells whether err is that of a disk, or of a quota, without room.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// TakesNothing tells whether err is that of a disk that is full or read-only.
func TakesNothing(err error) bool { return Full(err) || errors.Is(err, unix.EROFS) }

// LockFolder keeps other processes off a folder, whatever becomes of the files in the folder, until the result is
// closed. The error matches unix.EWOULDBLOCK when another process has the lock.
func LockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // nothing was written to it
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// Room is what a file system has left.
type Room struct {
	Free     int64 // bytes that this process may write
	Total    int64 // bytes
	NoNames  bool  // hardly any file can be made
	ReadOnly bool
}
