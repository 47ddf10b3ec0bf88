package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// lookEvery is the time between two looks at the folders of the data folder.
const lookEvery = 2 * time.Second

// place tells a folder from another of the same name: a disk that is mounted
// there, or taken away, changes it.
type place struct{ device, inode uint64 }

func placeOf(dir string) (place, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return place{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return place{}, fmt.Errorf("%s is no folder", dir)
	}
	return place{uint64(st.Dev), uint64(st.Ino)}, nil //nolint:unconvert // the types differ between systems
}

// places are the folders that the store began with.
type places struct {
	mu          sync.Mutex // guards what follows; held over I/O
	data, files place
}

// learnPlaces notes where the folders are. It runs before the store is shared.
func (s *Store) learnPlaces() (err error) {
	if s.places.data, err = placeOf(string(s.dir)); err == nil {
		s.places.files, err = placeOf(s.dir.files())
	}
	return err
}

// present fails, with ErrDisk, unless DATA and DATA/files are the folders that the
// tables tell of. One that is gone, or another one of that name, may be a disk that is not
// mounted just now: then nothing is known to be absent, and nothing may be stored.
// Another DATA/files with most of the known files is taken for the same.
func (s *Store) present() error {
	err := s.lookPlaces()
	if err != nil {
		s.setHealth(err) // readiness need not wait for the next look
	}
	return err
}

func (s *Store) lookPlaces() error {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	if err := s.sameData(); err != nil {
		return err
	}
	at, err := placeOf(s.dir.files())
	if err != nil {
		return disk.Error(err)
	}
	if at == s.places.files {
		return nil
	}
	if !s.recognised() {
		return fmt.Errorf("%w: %s is another folder than before, and most known files are not in it; is its disk mounted?", ErrDisk, s.dir.files())
	}
	s.log.Info("the folder of files is another one, with the known files in it", "path", s.dir.files())
	s.places.files = at
	return nil
}

// sameData fails unless DATA is the folder that the store was opened on.
// s.places.mu is held.
func (s *Store) sameData() error {
	at, err := placeOf(string(s.dir))
	if err == nil && at != s.places.data {
		err = fmt.Errorf("%s is another folder than before; is its disk mounted?", s.dir)
	}
	return disk.Error(err)
}

// recognised tells whether most of the known files are in DATA/files.
func (s *Store) recognised() bool {
	parents, err := os.ReadDir(s.dir.files())
	if err != nil {
		return false
	}
	there := make(map[string]bool, len(parents))
	for _, p := range parents {
		there[p.Name()] = true
	}
	s.mu.RLock()
	known := make([]verify.Sum, 0, len(s.files)+len(s.orphans))
	for sum := range s.files {
		known = append(known, sum)
	}
	for sum := range s.orphans {
		known = append(known, sum)
	}
	s.mu.RUnlock()
	found := 0
	for _, sum := range known {
		if !there[sum.String()[:2]] {
			continue
		}
		if _, err := os.Lstat(s.dir.file(sum)); err == nil {
			found++
		}
	}
	return 2*found >= len(known)
}

// gone tells whether a file that was just not found at its place is known to be
// absent. Without an error and not gone, it is there by now.
func (s *Store) gone(sum verify.Sum) (bool, error) {
	if err := s.present(); err != nil {
		return false, err
	}
	path := s.dir.file(sum)
	parent, err := os.Lstat(filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist): // it was removed with all that was in it
		return true, nil
	case err != nil:
		return false, disk.Error(err)
	case !parent.IsDir():
		return false, fmt.Errorf("%w: %s is no folder", ErrDisk, filepath.Dir(path))
	}
	// Its disk may have come back between the two looks.
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, disk.Error(err)
	}
	return false, nil
}

// remake makes a folder of DATA anew that has been removed. It fails where DATA
// itself may be away, and where something else is in the folder's place.
func (s *Store) remake(dir string) error {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	if err := s.sameData(); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		s.log.Warn("a folder was gone, and is made anew", "path", dir)
		return disk.SyncFolder(string(s.dir))
	}
	if errors.Is(err, fs.ErrExist) {
		_, err = placeOf(dir)
	}
	return err
}

// Health is what the last look at the data folder has found: nil, or an error that
// matches ErrDisk and says why files cannot be served or stored. It does not wait.
func (s *Store) Health() error {
	if err := s.health.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *Store) setHealth(err error) {
	var now *error
	if err != nil {
		now = &err
	}
	before := s.health.Swap(now)
	switch {
	case err != nil && (before == nil || (*before).Error() != err.Error()):
		s.log.Error("the data folder cannot be used", "error", err)
	case err == nil && before != nil:
		s.log.Info("the data folder can be used again")
	}
}

// Look looks at the data folder now. Folders that hold nothing of worth are made anew when
// they are gone, and so is the file of pins. The errors match ErrDisk: down says
// why files cannot be served or stored, and is what Health tells from now on;
// hampered what else is wrong with the folder while files are being served.
func (s *Store) Look() (down, hampered error) {
	defer func() { s.setHealth(down) }()
	if down = s.lookPlaces(); down != nil {
		return down, nil
	}
	for _, dir := range []string{s.dir.partials(), s.dir.files(), s.dir.manifests(), s.dir.quarantine()} {
		err := s.usable(dir)
		switch {
		case err == nil:
		case (dir == s.dir.partials() || dir == s.dir.files()) && !disk.TakesNothing(err):
			down = errors.Join(down, disk.Error(err))
		default:
			hampered = errors.Join(hampered, disk.Error(err))
		}
	}
	if down == nil && s.suspect.Load() {
		err := s.tryDisk(s.dir.partials())
		switch {
		case err == nil:
			s.suspect.Store(false)
		case disk.TakesNothing(err), errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
			// what is there is served
		default:
			down = disk.Error(err)
		}
	}
	if err := s.index.Trouble(); err != nil {
		hampered = errors.Join(hampered, err)
	}
	if err := s.pins.restore(); err != nil {
		hampered = errors.Join(hampered, disk.Error(err))
	}
	return down, hampered
}

// usable fails unless files can be found in dir, and be put there. A folder that
// is gone is made anew; DATA/files never is, and DATA/quarantine when it is needed.
func (s *Store) usable(dir string) error {
	_, err := placeOf(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != s.dir.files() {
		if dir == s.dir.quarantine() {
			if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
		err = s.remake(dir)
		if err == nil && dir == s.dir.manifests() {
			s.forgetCopies()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// suspectDisk notes that a request has failed by the disk: the next looks try it. A disk
// that fails may well say of its folders what it has in memory.
func (s *Store) suspectDisk(err error) {
	if errors.Is(err, ErrDisk) {
		s.suspect.Store(true)
	}
}

func tryDisk(dir string) error {
	f, err := os.CreateTemp(dir, disk.NewPrefix+"*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// forgetCopies notes that no image has a copy of its manifest any more: each is
// copied again when it is asked for.
func (s *Store) forgetCopies() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.copies)
}

// watchFolders looks at the data folder, again and again, until ctx ends.
func (s *Store) watchFolders(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var last string
	for {
		_, hampered := s.Look()
		text := ""
		if hampered != nil {
			text = hampered.Error()
		}
		if text != last && text != "" {
			s.log.Warn("something is wrong with the data folder", "error", hampered)
		}
		last = text
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// openPartial opens the file that a download grows in, or makes it; with have > 0
// it has at least that many bytes already, else it is empty. DATA/partial is made
// anew if it is gone.
func (s *Store) openPartial(path string, have int64) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE | unix.O_NONBLOCK | unix.O_NOFOLLOW
	if have == 0 {
		flags |= os.O_TRUNC
	}
	s.names.Lock()
	defer s.names.Unlock()
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() { // of no use to a download
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.remake(filepath.Dir(path)); err != nil {
			return nil, err
		}
		file, err = os.OpenFile(path, flags, 0o644)
	}
	return file, err
}

// sizeOf is the size of an open file; -1 when it cannot be told.
func sizeOf(file *os.File) int64 {
	info, err := file.Stat()
	if err != nil {
		return -1
	}
	return info.Size()
}
