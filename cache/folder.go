package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// folder is the data folder's path; its methods name what is in it. Beside that
// there may be index.broken, the last index that could not be read.
type folder string

func (d folder) index() string     { return filepath.Join(string(d), "index") }
func (d folder) files() string     { return filepath.Join(string(d), "files") }
func (d folder) partials() string  { return filepath.Join(string(d), "partial") }
func (d folder) manifests() string { return filepath.Join(string(d), "manifests") }
func (d folder) lockFile() string  { return filepath.Join(string(d), "lock") }
func (d folder) pins() string      { return filepath.Join(string(d), "pins") }

// quarantine is where files go whose bytes were found wrong. It is made when the first one does.
func (d folder) quarantine() string { return filepath.Join(string(d), "quarantine") }

// file is where the verified bytes of sum live.
func (d folder) file(sum verify.Sum) string {
	name := sum.String()
	return filepath.Join(d.files(), name[:2], name)
}

// partial is where a download of the blobs with that fill key grows.
func (d folder) partial(name string) string { return filepath.Join(d.partials(), name) }

// make makes the folders that are not there yet, but for that of the index.
func (d folder) make() error {
	for _, dir := range []string{d.files(), d.partials(), d.manifests()} {
		err := disk.MakeFolder(dir)
		if disk.TakesNothing(err) && (dir == d.partials() || dir == d.manifests()) {
			continue // what is there is served without them, until they can be made
		}
		if err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	return nil
}

// readMade is os.ReadDir of a folder that make may have left out.
func readMade(dir string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// lock keeps other processes off a data folder: DATA/lock, which says which process holds the folder (nil: that file
// cannot be made), and the folder itself, whose lock stays whatever is removed in the folder.
type lock []*os.File

// ErrBusy says that another process has the data folder.
var ErrBusy = errors.New("in use by another imgmirror")

// acquire takes the lock that keeps a second process off the folder, which it makes
// if need be. It is held until close; the end of the process closes it too. The error matches
// ErrBusy when another process has the lock.
func (d folder) acquire() (lock, error) {
	if err := disk.MakeFolder(string(d)); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	l, err := disk.LockFolder(string(d))
	if err == nil {
		var name *os.File
		if name, err = d.lockName(); err == nil {
			return lock{name, l}, nil
		}
		l.Close() //nolint:errcheck // nothing was written
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := os.ReadFile(d.lockFile()) // only to say more
		return nil, fmt.Errorf("data folder %s is %w (process %s)", string(d), ErrBusy, strings.TrimSpace(string(holder)))
	}
	return nil, fmt.Errorf("data folder: %w", err)
}

// lockName takes DATA/lock, the only lock of other versions, and writes the owner into the file. On
// a disk that cannot be written, lockName uses the existing file.
func (d folder) lockName() (*os.File, error) {
	f, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		full := disk.TakesNothing(err)
		if f, err = os.Open(d.lockFile()); full && errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // nothing was written
		return nil, fmt.Errorf("lock %s: %w", d.lockFile(), err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for people: a failure does no harm
	}
	return f, nil
}

func (l lock) close() (err error) {
	for _, f := range l {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// makeParent makes the folder that a verified file goes to, and makes that last.
func (d folder) makeParent(file string) error {
	err := os.Mkdir(filepath.Dir(file), 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return disk.SyncFolder(d.files())
}

// removeUnended removes from dir what a process left there that ended during a
// write of a whole file. No write may be under way. A failure does no harm, and is logged.
func removeUnended(dir string, log *slog.Logger) {
	if err := disk.RemoveUnended(dir); err != nil {
		log.Warn("files that were never completed cannot be removed", "error", err)
	}
}
