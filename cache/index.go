package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"imgmirror/verify"
)

// The keys of the index. Names that come from outside end with a zero byte
// where something follows.
const (
	keyComplete = "v"  // present: what disk alone can tell has been taken in
	keyFile     = "f/" // + sum: record
	keyUse      = "u/" // + sum: when it was last used, and last found right; Unix nanoseconds, 8 bytes each
	keyImage    = "i/" // + uuid: image as JSON
	keyAlias    = "a/" // + Blob.Key: sum
	keyFacts    = "c/" // + uuid + index, 4 bytes: manifest.Facts as JSON
	keyListing  = "l/" // + source: listingMeta
	keyPack     = "p/" // + source + 0 + kind of entry, one byte, + uuid: see pack
	keyManifest = "m/" // + source + 0 + uuid: kind of entry, one byte, then the manifest as its source sent it; newer than any pack
)

// index is the badger database: what is known of files, and what sources said.
type index struct {
	db *badger.DB
}

// record is what the index holds of a file.
type record struct {
	MD5         []byte    `json:"md5"`
	SHA256      []byte    `json:"sha256"`
	Size        int64     `json:"size"`
	Format      string    `json:"format,omitempty"`
	ModTime     time.Time `json:"mod_time,omitzero"`
	ContentType string    `json:"content_type,omitempty"`
	Added       time.Time `json:"added"`
	Stamp       *stamp    `json:"stamp,omitempty"`
}

// errCorrupt is matched by errors that speak against the index itself, and not
// against the circumstances in which it was to be read.
var errCorrupt = errors.New("unreadable index")

// openIndex opens or makes the database in dir.
func openIndex(dir string, log *slog.Logger) (ix *index, err error) {
	defer func() {
		if p := recover(); p != nil { // badger does panic on some broken files
			ix, err = nil, fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	if err := checkTables(dir); err != nil {
		return nil, judgeIndex(err)
	}
	// Small: the index holds some thousand values of at most some 10 KB.
	o := badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(256 << 10).
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
	db, err := badger.Open(o)
	if err != nil {
		return nil, judgeIndex(err)
	}
	return &index{db: db}, nil
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

func (ix *index) close() error { return ix.db.Close() }

// each calls f with each key that starts with prefix, without the prefix, and
// its value. Both are valid during the call only.
func (ix *index) each(prefix string, f func(key, value []byte) error) (err error) {
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
			if err := item.Value(func(v []byte) error { return f(item.Key()[len(prefix):], v) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func (ix *index) has(key string) (bool, error) {
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
func (ix *index) put(pairs ...pair) error {
	return ix.db.Update(func(txn *badger.Txn) error {
		for _, p := range pairs {
			if err := txn.Set([]byte(p.key), p.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// remove removes all keys at once; those that are not there do no harm.
func (ix *index) remove(keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	batch := ix.db.NewWriteBatch()
	defer batch.Cancel()
	for _, key := range keys {
		if err := batch.Delete([]byte(key)); err != nil {
			return err
		}
	}
	return batch.Flush()
}

type pair struct {
	key   string
	value []byte
}

// filePair is the record of a file; mark is nil when its stamp is not known.
func filePair(info *Info, mark *stamp) pair {
	d := info.Digests
	v, err := json.Marshal(record{
		MD5: d.MD5[:], SHA256: d.SHA256[:], Size: d.Size, Format: d.Format,
		ModTime: info.ModTime, ContentType: info.ContentType, Added: info.Added, Stamp: mark,
	})
	if err != nil {
		panic(err) // a struct of plain values, years within range: see cleanTime
	}
	return pair{keyFile + string(d.SHA1[:]), v}
}

// cleanTime gives the zero time for one that JSON cannot write.
func cleanTime(t time.Time) time.Time {
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC()
}

func aliasPair(key string, sum verify.Sum) pair { return pair{keyAlias + key, sum[:]} }

// readFile is the opposite of filePair; key comes without its prefix.
func readFile(key, value []byte) (*Info, *stamp, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, nil, fmt.Errorf("%w: record %x: %w", errCorrupt, key, err)
	}
	info := &Info{ModTime: cleanTime(r.ModTime), ContentType: r.ContentType, Added: cleanTime(r.Added)}
	info.Digests = verify.Digests{Size: r.Size, Format: r.Format}
	d := &info.Digests
	if copy(d.SHA1[:], key) != len(key) || len(key) != len(d.SHA1) ||
		len(r.MD5) != len(d.MD5) || len(r.SHA256) != len(d.SHA256) || r.Size < 0 {
		return nil, nil, fmt.Errorf("%w: record %x", errCorrupt, key)
	}
	copy(d.MD5[:], r.MD5)
	copy(d.SHA256[:], r.SHA256)
	return info, r.Stamp, nil
}

// collect lets badger give back disk space, until it finds nothing more to do.
func (ix *index) collect() error {
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

// moveIndexAside makes room for a new index. One broken index is kept, for
// those who want to know what happened.
func (d folder) moveIndexAside() error {
	aside := d.index() + ".broken"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(d.index(), aside); err != nil {
		return err
	}
	return os.Mkdir(d.index(), 0o755)
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
