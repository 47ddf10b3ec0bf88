// Package index owns the badger database in DATA/index: the records of files and images, the saved lists of sources,
// facts, and the notes of other parts of the mirror. It knows nothing of the files themselves, and of what is in a
// manifest no more than its uuid. All in the index but the notes can be made up from DATA/files and DATA/manifests, or
// comes from the sources again.
package index

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
	// memTable is the size at which badger turns a log into a table. In memory badger has three tables
	// at most, a current one and two that are being written, of 10.4 MiB each, and no caches.
	memTable = 8 << 20
	// valueThreshold is the size of a value that does not go into the log, but into a file
	// of large values, which has no blocks of its own.
	valueThreshold = 1 << 20
	// chunkBytes bounds one transaction of several values.
	chunkBytes = 512 << 10
	// entryCost is what badger keeps of a pair beside its key and its value, at most.
	entryCost = 192
)

var (
	// ErrCorrupt is matched by errors that speak against the index itself, and not against the circumstances in which
	// the index was to be read.
	ErrCorrupt = errors.New("unreadable index")
	// ErrClosed says that the index is closed.
	ErrClosed = errors.New("cache is closed")
)

// Options of Open. Required: Dir.
type Options struct {
	Dir    string
	Room   func() (disk.Room, error) // what the disk has left; nil: the disk is asked
	Logger *slog.Logger              // nil: silent
}

// Index is the badger database: what is known of files and images, and what sources said.
// All writes pass one door, Write, which lets none begin that could find the disk
// full under badger's hands: badger writes through memory maps, and a page that
// has no room ends the process. While it cannot be written, an index is what it
// was when it was read. All methods may be called concurrently.
type Index struct {
	dir   string
	log   *slog.Logger
	flock *os.File // keeps other processes off the folder
	room  *room

	lists sync.Mutex // held while saved lists are read or replaced: two generations of a catalogue may do so at once; taken first

	writing sync.Mutex // one write at a time; taken before state
	missed  error      // why a write was refused: the tables in memory know more

	state sync.RWMutex // held shared while db and saved are used
	db    *badger.DB   // nil: the index cannot be written
	saved *snapshot    // what it held when it was read; nil with a db
	why   error        // why there is no db
}

// Open opens or makes the database in Dir; what stands in the place of the folder is moved aside. Where the database
// cannot be written now, its content is read, and Tend opens it later. An error that matches ErrCorrupt says that the
// database is broken: MoveAside makes room for a new one. The error matches unix.EWOULDBLOCK when another process has
// the index. Open starts nothing but badger's own goroutines.
func Open(o Options) (_ *Index, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Room == nil {
		o.Room = func() (disk.Room, error) { return disk.RoomOf(o.Dir) }
	}
	if info, err := os.Stat(o.Dir); err == nil && !info.IsDir() {
		if err := moveAside(o.Dir); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
	}
	if err := disk.MakeFolder(o.Dir); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	ix := &Index{dir: o.Dir, log: o.Logger, room: &room{dir: o.Dir, now: o.Room}}
	if ix.flock, err = disk.LockFolder(o.Dir); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer func() {
		if err != nil {
			ix.flock.Close() //nolint:errcheck // nothing was written to it
		}
	}()
	if err := check(o.Dir); err != nil {
		return nil, judged(err)
	}
	if ix.db, err = ix.openDB(); err == nil {
		return ix, nil
	}
	if errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	saved, unread := readSnapshot(o.Dir)
	if unread != nil {
		return nil, errors.Join(err, unread)
	}
	ix.log.Error("the index cannot be written: what is in it is served, and nothing new is recorded until it can be", "error", err)
	ix.saved, ix.why = saved, err
	return ix, nil
}

// openDB opens the database for writing. An error that matches ErrCorrupt says that
// it is broken, any other one that this cannot be now.
func (ix *Index) openDB() (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil { // badger does panic on some broken files
			db, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	logs, err := ix.room.atOpen()
	if err != nil {
		return nil, err
	}
	if err := mend(ix.dir, logs, ix.log); err != nil {
		return nil, judged(err)
	}
	// Small: the index holds some thousand values of at most some 10 KB.
	o := badger.DefaultOptions(ix.dir).
		WithLogger(badgerLog{ix.log}).
		WithBypassLockGuard(true). // ix.flock is the same lock
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
		WithChecksumVerificationMode(options.NoVerification). // check has just done it
		WithDetectConflicts(false)
	if db, err = badger.Open(o); err != nil {
		return nil, judged(err)
	}
	ix.room.opened()
	return db, nil
}

// judged tells a broken index, by ErrCorrupt, from one that cannot be looked at just now, which must not be given up.
func judged(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrClosed) {
		return err
	}
	for _, circumstance := range []error{
		fs.ErrPermission, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EWOULDBLOCK,
	} {
		if errors.Is(err, circumstance) {
			return fmt.Errorf("index: %w", err)
		}
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// Close makes what was written last, and closes the database, once the calls under way have ended. Where badger would
// not find the room that this takes, its log is synced and the rest left to the
// next start, as after a kill.
func (ix *Index) Close() error {
	ix.lists.Lock()
	defer ix.lists.Unlock()
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
	return errors.Join(err, ix.flock.Close())
}

// MoveAside makes room for a new index in the place of dir. One broken index is kept, in DIR.broken. An index that a
// process has open stays: the error matches unix.EWOULDBLOCK.
func MoveAside(dir string) error {
	lock, err := disk.LockFolder(dir)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing was written to it
	if err := moveAside(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o755)
}

// moveAside moves away what is in the place of the index.
func moveAside(dir string) error {
	aside := dir + ".broken"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	return os.Rename(dir, aside)
}

// badgerLog lets badger speak through slog. What badger calls info is for its authors alone.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(format string, a ...any)   { l.say(l.log.Error, format, a) }
func (l badgerLog) Warningf(format string, a ...any) { l.say(l.log.Warn, format, a) }
func (l badgerLog) Infof(format string, a ...any)    { l.say(l.log.Debug, format, a) }
func (l badgerLog) Debugf(string, ...any)            {}

func (l badgerLog) say(print func(string, ...any), format string, a []any) {
	print("badger: " + strings.TrimSpace(fmt.Sprintf(format, a...)))
}
