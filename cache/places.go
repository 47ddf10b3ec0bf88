package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

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
	dir folder
	log *slog.Logger

	mu          sync.Mutex // guards what follows; held over I/O
	data, files place
}

// learnPlaces notes where the folders are.
func learnPlaces(dir folder, log *slog.Logger) (*places, error) {
	p := &places{dir: dir, log: log}
	var err error
	if p.data, err = placeOf(string(dir)); err == nil {
		p.files, err = placeOf(dir.files())
	}
	return p, err
}

// look fails, with ErrDisk, unless DATA and DATA/files are the folders that the store began with. Another DATA/files
// with most of the known files in it is taken for the same.
func (p *places) look(known func() []verify.Sum) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.sameData(); err != nil {
		return err
	}
	at, err := placeOf(p.dir.files())
	if err != nil {
		return disk.Error(err)
	}
	if at == p.files {
		return nil
	}
	if !p.recognise(known()) {
		return fmt.Errorf("%w: %s is another folder than before, and most known files are not in it; is its disk mounted?", ErrDisk, p.dir.files())
	}
	p.log.Info("the folder of files is another one, with the known files in it", "path", p.dir.files())
	p.files = at
	return nil
}

// sameData fails unless DATA is the folder that the store was opened on. p.mu is held.
func (p *places) sameData() error {
	at, err := placeOf(string(p.dir))
	if err == nil && at != p.data {
		err = fmt.Errorf("%s is another folder than before; is its disk mounted?", p.dir)
	}
	return disk.Error(err)
}

// recognise tells whether most of the known files are in DATA/files.
func (p *places) recognise(known []verify.Sum) bool {
	found := 0
	for _, sum := range known {
		if _, err := os.Lstat(p.dir.file(sum)); err == nil {
			found++
		}
	}
	return 2*found >= len(known)
}

// remake makes a folder of DATA anew that has been removed. It fails where DATA
// itself may be away, and where something else is in the folder's place.
func (p *places) remake(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.sameData(); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		p.log.Warn("a folder was gone, and is made anew", "path", dir)
		return disk.SyncFolder(string(p.dir))
	}
	if errors.Is(err, fs.ErrExist) {
		_, err = placeOf(dir)
	}
	return err
}

// usable fails unless files can be found in dir, and be put there. A folder that
// is gone is made anew; DATA/files never is, and DATA/quarantine when it is needed.
func (p *places) usable(dir string) (made bool, err error) {
	_, err = placeOf(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != p.dir.files() {
		if dir == p.dir.quarantine() {
			if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
		}
		err = p.remake(dir)
		made = err == nil
	}
	if err != nil {
		return false, err
	}
	if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return made, &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return made, nil
}
