package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// snapshot is what an index held when it was read. It needs nothing of the disk.
type snapshot struct {
	keys   []string // sorted
	values map[string][]byte
}

// readSnapshot reads the database in dir, and writes nothing. It is for when badger
// cannot open it, for it writes in order to read.
func readSnapshot(dir string) (*snapshot, error) {
	newest := make(map[string]logEntry)
	take := func(key []byte, e logEntry) {
		if old, ok := newest[string(key)]; !ok || old.version <= e.version {
			newest[string(key)] = e
		}
	}
	tables, err := liveTables(dir)
	if err != nil {
		return nil, err
	}
	for _, path := range tables {
		err := withTable(path, func(t *table.Table) error {
			it := t.NewIterator(0)
			defer it.Close() //nolint:errcheck // only read
			for it.Rewind(); it.Valid(); it.Next() {
				key, v := it.Key(), it.Value()
				take(key[:len(key)-8], logEntry{version: versionOf(key), flags: v.Meta, value: slices.Clone(v.Value)})
			}
			return nil
		})
		if err != nil {
			return nil, judged(err)
		}
	}
	logs, err := readLogs(dir)
	if err != nil {
		return nil, err
	}
	for _, l := range logs {
		l.each(take)
	}
	s := &snapshot{values: make(map[string][]byte, len(newest))}
	for key, e := range newest {
		value := e.value
		if e.flags&metaPointer != 0 {
			if value, err = readPointer(dir, value); err != nil {
				continue // as of a list of which something is lost
			}
		}
		if e.flags&metaDeleted == 0 && !strings.HasPrefix(key, "!badger!") {
			s.values[key] = slices.Clone(value)
			s.keys = append(s.keys, key)
		}
	}
	slices.Sort(s.keys)
	return s, nil
}

// liveTables gives the paths of the tables that the database consists of.
func liveTables(dir string) (paths []string, err error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for id := range m.Tables {
		paths = append(paths, table.NewFilename(id, dir))
	}
	return paths, nil
}

// readPointer reads a large value, which is in a file of its own kind.
func readPointer(dir string, pointer []byte) ([]byte, error) {
	if len(pointer) != 12 {
		return nil, ErrCorrupt
	}
	number, length, offset := binary.NativeEndian.Uint32(pointer), binary.NativeEndian.Uint32(pointer[4:]), binary.NativeEndian.Uint32(pointer[8:])
	f, err := os.Open(filepath.Join(dir, fmt.Sprintf("%06d.vlog", number)))
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil || int64(offset)+int64(length) > info.Size() {
		return nil, errors.Join(ErrCorrupt, err)
	}
	data := make([]byte, length)
	if _, err := f.ReadAt(data, int64(offset)); err != nil {
		return nil, err
	}
	_, e, n := readEntry(data)
	if n == 0 {
		return nil, ErrCorrupt
	}
	return e.value, nil
}

// each is Index.each.
func (s *snapshot) each(prefix string, f func(key, value []byte) error) error {
	first, _ := slices.BinarySearch(s.keys, prefix)
	for _, key := range s.keys[first:] {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			break
		}
		if err := f([]byte(rest), s.values[key]); err != nil {
			return err
		}
	}
	return nil
}
