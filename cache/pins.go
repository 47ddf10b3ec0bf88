package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

// ErrPinned says that a file must stay: an image that it belongs to, or one that
// has that image for an ancestor and a file on disk, is pinned.
var ErrPinned = errors.New("image is pinned")

// pins are the images that an operator has pinned by hand. They are kept in
// DATA/pins, one uuid a line, and not in the index: no loss of that may lose
// them. While the file cannot be read every image counts as pinned.
type pins struct {
	path    string
	unknown error // why the file could not be read; never changes

	write sync.Mutex // held over the writing of the file
	ids   atomic.Pointer[map[uuid.UUID]bool]
}

// loadPins reads DATA/pins. A line that is no uuid is skipped, and said in the
// error, which is for the log: pins are of use all the same.
func loadPins(path string) (*pins, error) {
	p, ids := &pins{path: path}, make(map[uuid.UUID]bool)
	p.ids.Store(&ids)
	data, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		p.unknown = disk.Error(err)
		return p, fmt.Errorf("every image counts as pinned: %w", err)
	}
	var faults []error
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		line := strings.ToLower(strings.TrimSpace(lines.Text()))
		id, ok := manifest.ParseUUID(line)
		switch {
		case ok:
			ids[id] = true
		case line != "":
			faults = append(faults, fmt.Errorf("%s: %.50q is not a uuid", path, line))
		}
	}
	return p, errors.Join(faults...)
}

func (p *pins) has(id uuid.UUID) bool { return p.unknown != nil || (*p.ids.Load())[id] }

func (p *pins) all() map[uuid.UUID]bool { return maps.Clone(*p.ids.Load()) }

// set pins id, or unpins it, and makes that last.
func (p *pins) set(id uuid.UUID, pinned bool) error {
	p.write.Lock()
	defer p.write.Unlock()
	ids := p.all()
	if p.unknown != nil || ids[id] == pinned {
		return p.unknown
	}
	if pinned {
		ids[id] = true
	} else {
		delete(ids, id)
	}
	err := p.save(ids)
	if err == nil {
		p.ids.Store(&ids)
	}
	return err
}

// restore writes the file again if it has been removed.
func (p *pins) restore() error {
	p.write.Lock()
	defer p.write.Unlock()
	ids := *p.ids.Load()
	if _, err := os.Lstat(p.path); len(ids) == 0 || p.unknown != nil || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return p.save(ids)
}

// save writes the file. p.write is held.
func (p *pins) save(ids map[uuid.UUID]bool) error {
	lines := make([]string, 0, len(ids))
	for id := range ids {
		lines = append(lines, id.String()+"\n")
	}
	slices.Sort(lines)
	if err := disk.Write(p.path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		return fmt.Errorf("pins: %w", disk.Error(err))
	}
	return nil
}

// Pin keeps eviction off the files of an image, now or once they are stored,
// and so off those of its ancestors. It lasts until Unpin, restarts and a loss
// of the index included. Pinning what is pinned does nothing.
func (s *Store) Pin(id uuid.UUID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	return s.pins.set(id, true)
}

// Unpin takes back Pin. It does not touch what Options.Keep says.
func (s *Store) Unpin(id uuid.UUID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	return s.pins.set(id, false)
}

// Pinned is the set of images pinned by hand, stored or not. It is the caller's.
func (s *Store) Pinned() map[uuid.UUID]bool { return s.pins.all() }

// AllPinned tells that every image counts as pinned, because DATA/pins cannot be read.
func (s *Store) AllPinned() bool { return s.pins.unknown != nil }

// Kept tells whether the image's files are kept from eviction: it is pinned by
// hand, or Options.Keep says so.
func (s *Store) Kept(id uuid.UUID) bool {
	return s.pins.has(id) || s.o.Keep != nil && s.o.Keep(id)
}
