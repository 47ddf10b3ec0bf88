package index

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"imgmirror/cache/disk"
)

// Write makes changes in their order, at once if they are of half a megabyte
// together; else a crash may leave the later ones undone. Write is the only way into the
// database. While that cannot be written, the error matches disk.ErrNoSpace or disk.ErrUnusable. What Write
// has taken lasts through the end of the process, and once Sync has returned through a power failure.
func (ix *Index) Write(changes ...Change) error {
	defer ix.lock()()
	return ix.writeLocked(changes)
}

// lock holds off other writes, and what would change db or saved, until its result is called.
func (ix *Index) lock() (unlock func()) {
	ix.writing.Lock()
	ix.state.RLock()
	return func() {
		ix.state.RUnlock()
		ix.writing.Unlock()
	}
}

// writeLocked is Write; the locks are held.
func (ix *Index) writeLocked(changes []Change) error {
	for len(changes) > 0 {
		n, size := 0, int64(0)
		for ; n < len(changes); n++ {
			more := int64(len(changes[n].key) + len(changes[n].value) + entryCost)
			if n > 0 && size+more > chunkBytes {
				break
			}
			size += more
		}
		if err := ix.writeChunk(changes[:n], size); err != nil {
			ix.missed = err
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// writeChunk makes changes at once. The locks are held.
func (ix *Index) writeChunk(changes []Change, size int64) error {
	if ix.db == nil {
		return ix.down(ix.why)
	}
	turn, err := ix.room.forWrite(size)
	if err != nil {
		return ix.down(err)
	}
	if turn { // what is in this log must not be less durable than what comes into the next
		if err := ix.db.Sync(); err != nil {
			return ix.down(err)
		}
	}
	err = ix.db.Update(func(txn *badger.Txn) error {
		for _, c := range changes {
			var err error
			if c.value == nil {
				err = txn.Delete([]byte(c.key))
			} else {
				err = txn.Set([]byte(c.key), c.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	ix.room.wrote(size)
	if err != nil {
		return ix.down(err)
	}
	return nil
}

// down says that the index cannot be written, and why. The result never matches fs.ErrNotExist.
func (ix *Index) down(why error) error {
	if errors.Is(why, ErrClosed) {
		return why
	}
	return fmt.Errorf("the index cannot be written: %w", disk.Error(why))
}

// Sync makes all that was written last, a power failure included.
func (ix *Index) Sync() error {
	defer ix.lock()()
	if ix.db == nil {
		return ix.down(ix.why)
	}
	if err := errors.Join(ix.db.Sync(), disk.SyncFolder(ix.dir)); err != nil {
		ix.missed = ix.down(err)
		return ix.missed
	}
	return nil
}

// Collect lets badger give back disk space, until badger finds nothing more to do.
func (ix *Index) Collect() error {
	defer ix.lock()()
	if ix.db == nil || ix.room.forTable(memTable) != nil {
		return nil
	}
	for {
		switch err := ix.db.RunValueLogGC(0.5); {
		case err == nil:
		case errors.Is(err, badger.ErrNoRewrite), errors.Is(err, badger.ErrRejected):
			return nil
		default:
			return fmt.Errorf("index: collect garbage: %w", err)
		}
	}
}

// Tend opens an index that could not be written, if the index can be by now. Tend tells
// whether writes have been refused and would be taken now: once for each time.
func (ix *Index) Tend() (again bool) {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	ix.state.Lock()
	defer ix.state.Unlock()
	if ix.db == nil && !errors.Is(ix.why, ErrClosed) {
		db, err := ix.openDB()
		if err != nil {
			ix.why = err
			return false
		}
		ix.log.Info("the index can be written again")
		ix.db, ix.saved, ix.why = db, nil, nil
		ix.missed = errReopened
	}
	if ix.db == nil || ix.missed == nil {
		return false
	}
	if _, err := ix.room.forWrite(chunkBytes); err != nil {
		return false
	}
	ix.missed = nil
	return true
}
