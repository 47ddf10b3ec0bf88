package index

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/table"

	"imgmirror/cache/disk"
)

// checkFiles fails where something else than a file stands in the place of one of
// badger's: an open of a pipe may wait for ever.
func checkFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch path := filepath.Join(dir, e.Name()); filepath.Ext(e.Name()) {
		case "", ".sst", ".vlog", logSuffix:
			if name := e.Name(); name == "KEYREGISTRY" || name == "DISCARD" { // mend makes them anew
				continue
			}
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, disk.ErrIrregular)
			}
		}
	}
	return nil
}

// checkTables reads all tables of the database in dir. badger does so as well,
// but on goroutines of its own, where a table that makes it panic ends the
// process: at this start and at every later one.
func checkTables(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := table.ParseFileID(e.Name())
		if !ok {
			continue // not a table
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := checkTable(data, id); err != nil {
			return fmt.Errorf("%w: table %s: %w", ErrCorrupt, path, err)
		}
	}
	return nil
}

func checkTable(data []byte, id uint64) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%.200v", p)
		}
	}()
	t, err := table.OpenInMemoryTable(data, id, &table.Options{})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}
