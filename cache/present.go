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
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// lookEvery is the time between two looks at the folders of the data folder.
const lookEvery = 2 * time.Second

// present fails, with ErrDisk, unless DATA and DATA/files are the folders that the
// tables tell of. One that is gone, or another one of that name, may be a disk that is not
// mounted just now: then nothing is known to be absent, and nothing may be stored.
// Another DATA/files with most of the known files is taken for the same.
func (s *Store) present() error {
	err := s.places.look(s.known)
	if err != nil {
		s.setHealth(err) // readiness need not wait for the next look
	}
	return err
}

// known gives the sums of all files on disk.
func (s *Store) known() []verify.Sum {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(slices.Collect(maps.Keys(s.files)), maps.Keys(s.orphans))
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

// Absent tells whether the file is known not to be there. Without even its folder that is
// not known: all files may be on a disk that is to be mounted yet.
func (s *Store) Absent(sum verify.Sum) bool {
	path := s.dir.file(sum)
	_, folder := os.Stat(filepath.Dir(path))
	_, err := os.Lstat(path)
	return folder == nil && errors.Is(err, fs.ErrNotExist)
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
	defer func() {
		s.setHealth(down)
		if hampered != nil {
			s.hampered.Store(&hampered)
		} else {
			s.hampered.Store(nil)
		}
	}()
	if down = s.places.look(s.known); down != nil {
		return down, nil
	}
	for _, dir := range []string{s.dir.partials(), s.dir.files(), s.dir.manifests(), s.dir.quarantine()} {
		made, err := s.places.usable(dir)
		if made && dir == s.dir.manifests() {
			s.copies.forgetAll()
		}
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

// Trouble tells what the last look at the data folder has found wrong, in the words of Look. It does
// not wait.
func (s *Store) Trouble() (all []string) {
	for _, err := range []*error{s.health.Load(), s.hampered.Load()} {
		if err != nil {
			all = append(all, (*err).Error())
		}
	}
	return all
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

// openPartial opens the file that a download grows in, or makes it; with have > 0 it has at least
// that many bytes already, else it is empty. DATA/partial is made anew if it is gone.
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
		if err := s.places.remake(filepath.Dir(path)); err != nil {
			return nil, err
		}
		file, err = os.OpenFile(path, flags, 0o644)
	}
	return file, err
}
