package index

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// each calls f with each key that starts with prefix, without the prefix, and its value. Both are
// valid during the call only. A value that cannot be read is left out, and logged.
func (ix *Index) each(prefix string, f func(key, value []byte) error) error {
	ix.state.RLock()
	defer ix.state.RUnlock()
	return ix.eachLocked(prefix, f)
}

// eachLocked is each; state is held.
func (ix *Index) eachLocked(prefix string, f func(key, value []byte) error) (err error) {
	if errors.Is(ix.why, ErrClosed) {
		return ErrClosed
	}
	if ix.db == nil {
		return ix.saved.each(prefix, f)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
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

// has tells whether the index has that key.
func (ix *Index) has(key string) (known bool, err error) {
	err = ix.each(key, func(rest, _ []byte) error {
		known = known || len(rest) == 0
		return nil
	})
	return known, err
}
