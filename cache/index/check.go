package index

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/table"

	"imgmirror/cache/disk"
)

// check fails where something else than a file stands in the place of one of badger's, as an open of a pipe may wait
// for ever, and where a table is broken. badger reads all tables as well, but on goroutines of its own, where a
// table that makes badger panic ends the process: at this start and at every later one.
func check(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case "", ".sst", ".vlog", logSuffix:
		default:
			continue
		}
		if e.Name() == "KEYREGISTRY" || e.Name() == "DISCARD" { // mend makes them anew
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, disk.ErrIrregular)
		}
		if _, ok := table.ParseFileID(e.Name()); ok {
			if err := withTable(path, (*table.Table).VerifyChecksum); err != nil {
				return err
			}
		}
	}
	return nil
}

// withTable calls f with a table. badger panics on some broken ones: this, too, is an error that matches ErrCorrupt.
func withTable(path string, f func(*table.Table) error) (err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%.200v", p)
		}
		if err != nil {
			err = fmt.Errorf("%w: table %s: %w", ErrCorrupt, path, err)
		}
	}()
	id, _ := table.ParseFileID(filepath.Base(path))
	t, err := table.OpenInMemoryTable(data, id, &table.Options{})
	if err != nil {
		return err
	}
	return f(t)
}
