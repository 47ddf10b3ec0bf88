package index

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
)

const (
	// logBytes is how much of badger's current log gets its blocks at once: up to
	// where badger turns it, and a transaction more.
	logBytes = memTable + 2<<20
	// nearTurn is how full a log is said to be full: what badger counts is not known exactly.
	nearTurn = memTable - 2<<20
	// leastSpare and mostSpare bound what stays free beside what is known to be written, a
	// 64th of the disk: other programs take of it between a look at it and badger's writing.
	leastSpare, mostSpare = 8 << 20, 1 << 30
	// spareFiles is how many files badger may open at a time when a log turns.
	spareFiles = 8
)

// room knows what badger is about to write through memory maps, and makes sure of the room for
// that. The current log gets its blocks when it is made, so that a write into it finds them on a
// full disk, too. A log that turns becomes a table, tables are merged into new ones, and a new log
// is made: a write that may bring that about begins only if there is room for all tables once more,
// and much to spare. It is used by one goroutine at a time.
type room struct {
	dir string
	now func() (disk.Room, error)

	log       int   // number of the current log
	filled    int64 // of it, at most
	allocated bool  // it has its blocks
}

// atOpen finds badger's logs, and fails if the disk has no room for an open.
func (r *room) atOpen() (logs []*logFile, err error) {
	if logs, err = readLogs(r.dir); err != nil {
		return nil, err
	}
	size := int64(0)
	for _, l := range logs {
		size += int64(l.end)
	}
	return logs, r.forTable(size)
}

// opened looks for the log that badger has made when it was opened.
func (r *room) opened() {
	r.log, r.filled = 0, 0
	entries, _ := os.ReadDir(r.dir) // without it there are no blocks in advance
	for _, e := range entries {
		if n, ok := logNumber(e.Name()); ok {
			r.log = max(r.log, n)
		}
	}
	r.allocate()
}

// allocate gives the current log its blocks, if that leaves enough for the tables.
func (r *room) allocate() {
	r.allocated = false
	if r.forTable(logBytes+memTable) != nil {
		return
	}
	f, err := os.OpenFile(logName(r.dir, r.log), os.O_RDWR, 0)
	if err != nil {
		return
	}
	r.allocated = preallocate(f, logBytes) == nil
	f.Close() //nolint:errcheck // nothing was written to it
}

// forWrite fails if there is no room for a write of that size. turn: the log may turn with it.
func (r *room) forWrite(size int64) (turn bool, err error) {
	turn = r.filled+size > nearTurn
	if r.allocated && !turn && size < valueThreshold {
		room, err := r.now()
		if err != nil {
			return false, err
		}
		if room.ReadOnly {
			return false, unix.EROFS
		}
		return false, nil
	}
	if !turn {
		r.allocate()
	}
	return turn, r.forTable(max(r.filled, size) + size)
}

// wrote notes a write of that size.
func (r *room) wrote(size int64) {
	r.filled += size
	if _, err := os.Stat(logName(r.dir, r.log+1)); err == nil {
		r.log++
		r.filled = size
		r.allocate()
	}
}

// forTable fails if there is no room for a table of that size, for the tables once
// more and a new log, or if no files can be made.
func (r *room) forTable(size int64) error {
	room, err := r.now()
	if err != nil {
		return err
	}
	switch {
	case room.ReadOnly:
		return unix.EROFS
	case room.NoNames:
		return fmt.Errorf("%w: no more files", unix.ENOSPC)
	}
	need := max(size, r.filled) + min(max(room.Total/64, leastSpare), mostSpare)
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".sst") {
			continue
		}
		if info, err := e.Info(); err == nil {
			need += info.Size()
		}
	}
	if room.Free < need {
		return fmt.Errorf("%w: %d bytes are free, the index needs %d to be written safely", unix.ENOSPC, room.Free, need)
	}
	return r.mayMakeFiles()
}

// mayMakeFiles fails unless this process may make as many files in the index as badger may have to.
func (r *room) mayMakeFiles() (err error) {
	probe, err := os.CreateTemp(r.dir, disk.NewPrefix+"*")
	if err != nil {
		return err
	}
	files := []*os.File{probe}
	for err == nil && len(files) < spareFiles {
		var f *os.File
		if f, err = os.Open(r.dir); err == nil {
			files = append(files, f)
		}
	}
	for _, f := range files {
		f.Close() //nolint:errcheck // nothing was written to it
	}
	return errors.Join(err, os.Remove(probe.Name()))
}
