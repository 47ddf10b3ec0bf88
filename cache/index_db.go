package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
)

const (
	// memTable is the size at which badger turns a log into a table.
	memTable = 8 << 20
	// valueThreshold is the size of a value that does not go into the log, but into a file
	// of large values, which has no blocks of its own.
	valueThreshold = 1 << 20
	// chunkBytes bounds one transaction of several values.
	chunkBytes = 512 << 10
	// entryCost is what badger keeps of a pair beside its key and its value, at most.
	entryCost = 192
)

// errCorrupt is matched by errors that speak against the index itself, and not
// against the circumstances in which it was to be read.
var errCorrupt = errors.New("unreadable index")

// index is the badger database: what is known of files, and what sources said.
// All writes pass one door, write, which lets none begin that could find the disk
// full under badger's hands: badger writes through memory maps, and a page that
// has no room ends the process. While it cannot be written, an index is what it
// was when it was read.
type index struct {
	dir  string
	log  *slog.Logger
	lock *os.File // keeps other processes off the folder
	room *indexRoom

	writing sync.Mutex // one write at a time; taken before state
	missed  error      // why a write was refused: the tables in memory know more

	state sync.RWMutex // held shared while db and saved are used
	db    *badger.DB   // nil: the index cannot be written
	saved *snapshot    // what it held when it was read; nil with a db
	why   error        // why there is no db
}

// openIndex opens or makes the database in dir. Where it cannot be written now, its
// content is read, and tend opens it later.
func openIndex(dir string, room func() (disk.Room, error), log *slog.Logger) (_ *index, err error) {
	ix := &index{dir: dir, log: log, room: &indexRoom{dir: dir, now: room}}
	if ix.lock, err = disk.LockFolder(dir); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer func() {
		if err != nil {
			ix.lock.Close() //nolint:errcheck // nothing was written to it
		}
	}()
	if err := checkFiles(dir); err != nil {
		return nil, judgeIndex(err)
	}
	if err := checkTables(dir); err != nil {
		return nil, judgeIndex(err)
	}
	if ix.db, err = ix.openDB(); err == nil {
		return ix, nil
	}
	if errors.Is(err, errCorrupt) {
		return nil, err
	}
	saved, unread := readSnapshot(dir)
	if unread != nil {
		return nil, errors.Join(err, unread)
	}
	log.Error("the index cannot be written: what is in it is served, and nothing new is recorded until it can be", "error", err)
	ix.saved, ix.why = saved, err
	return ix, nil
}

// openDB opens the database for writing. An error that matches errCorrupt says that
// it is broken, any other one that this cannot be now.
func (ix *index) openDB() (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil { // badger does panic on some broken files
			db, err = nil, fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	logs, err := ix.room.atOpen()
	if err != nil {
		return nil, err
	}
	if err := mendIndex(ix.dir, logs, ix.log); err != nil {
		return nil, judgeIndex(err)
	}
	// Small: the index holds some thousand values of at most some 10 KB.
	o := badger.DefaultOptions(ix.dir).
		WithLogger(badgerLog{ix.log}).
		WithBypassLockGuard(true). // ix.lock is the same lock
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(valueThreshold).
		WithVerifyValueChecksum(true).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithCompression(options.None).
		WithNumCompactors(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumGoroutines(2).
		WithMetricsEnabled(false).
		WithChecksumVerificationMode(options.NoVerification). // checkTables has just done it
		WithDetectConflicts(false)
	if db, err = badger.Open(o); err != nil {
		return nil, judgeIndex(err)
	}
	ix.room.opened()
	return db, nil
}

// judgeIndex tells a broken index from one that cannot be looked at just now,
// which must not be given up.
func judgeIndex(err error) error {
	if errors.Is(err, errCorrupt) {
		return err
	}
	for _, circumstance := range []error{
		fs.ErrPermission, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EWOULDBLOCK,
	} {
		if errors.Is(err, circumstance) {
			return fmt.Errorf("index: %w", err)
		}
	}
	return fmt.Errorf("%w: %w", errCorrupt, err)
}

// close makes what was written last, and closes the database. Where badger would
// not find the room that this takes, its log is synced and the rest left to the
// next start, as after a kill.
func (ix *index) close() error {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	ix.state.Lock()
	defer ix.state.Unlock()
	var err error
	if ix.db != nil {
		if err = ix.room.forTable(0); err == nil {
			err = ix.db.Close()
		} else {
			ix.log.Warn("the index is left as it is: the next start tidies it up", "error", err)
			err = ix.db.Sync()
		}
		ix.db, ix.saved, ix.why = nil, &snapshot{}, ErrClosed
	}
	return errors.Join(err, ix.lock.Close())
}

// each calls f with each key that starts with prefix, without the prefix, and
// its value. Both are valid during the call only. A value that cannot be read is
// left out, and logged.
func (ix *index) each(prefix string, f func(key, value []byte) error) error {
	ix.state.RLock()
	defer ix.state.RUnlock()
	return ix.eachLocked(prefix, f)
}

// eachLocked is each; state is held.
func (ix *index) eachLocked(prefix string, f func(key, value []byte) error) (err error) {
	if ix.db == nil {
		return ix.saved.each(prefix, f)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	return ix.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte(prefix)
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			var stop error
			err := item.Value(func(v []byte) error {
				stop = f(item.Key()[len(prefix):], v)
				return nil
			})
			if err != nil {
				ix.log.Error("a value of the index cannot be read", "key", fmt.Sprintf("%.80q", item.Key()), "error", err)
			}
			if stop != nil {
				return stop
			}
		}
		return nil
	})
}

func (ix *index) has(key string) (bool, error) {
	ix.state.RLock()
	defer ix.state.RUnlock()
	if ix.db == nil {
		return ix.saved.has(key), nil
	}
	err := ix.db.View(func(txn *badger.Txn) error {
		_, err := txn.Get([]byte(key))
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

// put writes all pairs at once.
func (ix *index) put(pairs ...pair) error { return ix.write(pairs) }

// remove removes all keys at once; those that are not there do no harm.
func (ix *index) remove(keys ...string) error {
	changes := make([]pair, len(keys))
	for i, key := range keys {
		changes[i].key = key
	}
	return ix.write(changes)
}

// write makes changes in their order, at once if they are of half a megabyte
// together; else a crash may leave the later ones undone. It is the only way into the
// database. While that cannot be written, the error matches ErrNoSpace or
// ErrDisk.
func (ix *index) write(changes []pair) error {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	ix.state.RLock()
	defer ix.state.RUnlock()
	return ix.writeLocked(changes)
}

// writeLocked is write; the locks are held.
func (ix *index) writeLocked(changes []pair) error {
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
func (ix *index) writeChunk(changes []pair, size int64) error {
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
func (ix *index) down(why error) error {
	if errors.Is(why, ErrClosed) {
		return why
	}
	return fmt.Errorf("the index cannot be written: %w", disk.Error(why))
}

// sync makes all that was written last, a power failure included.
func (ix *index) sync() error {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	ix.state.RLock()
	defer ix.state.RUnlock()
	if ix.db == nil {
		return ix.down(ix.why)
	}
	if err := errors.Join(ix.db.Sync(), disk.SyncFolder(ix.dir)); err != nil {
		ix.missed = ix.down(err)
		return ix.missed
	}
	return nil
}

// collect lets badger give back disk space, until it finds nothing more to do.
func (ix *index) collect() error {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	ix.state.RLock()
	defer ix.state.RUnlock()
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

// tend opens an index that could not be written, if it can be by now. It tells
// whether writes have been refused and would be taken now: once for each time.
func (ix *index) tend() (again bool) {
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

// moveIndexAside makes room for a new index. One broken index is kept, for
// those who want to know what happened. An index that a process has open stays.
func (d folder) moveIndexAside() error {
	lock, err := disk.LockFolder(d.index())
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing was written to it
	if err := d.moveAside(); err != nil {
		return err
	}
	return os.Mkdir(d.index(), 0o755)
}

// moveAside moves away what is in the place of the index.
func (d folder) moveAside() error {
	aside := d.index() + ".broken"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	return os.Rename(d.index(), aside)
}

// badgerLog lets badger speak through slog. What it calls info is of interest
// to nobody but its authors.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(format string, a ...any)   { l.say(l.log.Error, format, a) }
func (l badgerLog) Warningf(format string, a ...any) { l.say(l.log.Warn, format, a) }
func (l badgerLog) Infof(format string, a ...any)    { l.say(l.log.Debug, format, a) }
func (l badgerLog) Debugf(string, ...any)            {}

func (l badgerLog) say(print func(string, ...any), format string, a []any) {
	print("badger: " + strings.TrimSpace(fmt.Sprintf(format, a...)))
}
