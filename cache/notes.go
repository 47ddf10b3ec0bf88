package cache

import (
	"fmt"
	"maps"
	"slices"

	"imgmirror/cache/index"
)

// Notes are what another part of the mirror keeps in the index: values of one kind, by their keys.
// The store gives them no meaning. A lost index loses the notes. Notes are valid as long as their
// Store, also while the store is closing.
type Notes struct {
	s    *Store
	kind string
}

// Notes gives the notes of a kind: a short name of the caller's own, at most 32 bytes without a
// zero byte.
func (s *Store) Notes(kind string) Notes { return Notes{s, kind} }

// All gives all notes of the kind. An index that cannot be written is read all the same.
func (n Notes) All() (map[string][]byte, error) {
	if err := n.s.enterIndex(); err != nil {
		return nil, err
	}
	defer n.s.calls.Done()
	all, err := n.s.index.Notes(n.kind)
	if err != nil {
		return nil, fmt.Errorf("notes of %s: %w", n.kind, err)
	}
	return all, nil
}

// Write puts notes, then removes notes; removing one that is not there does no harm. Changes of
// half a megabyte together are made at once. Of a larger write a crash, or an error, may leave the
// later keys undone, in the order of the keys. A key has at most 1 KiB, and less than half a
// megabyte with its value: one that is larger is refused, with all others. While the index cannot
// be written, the error matches ErrNoSpace or ErrDisk. What Write has taken lasts through the end
// of the process; a power failure may take it back.
func (n Notes) Write(put map[string][]byte, remove []string) error {
	if err := n.s.enterIndex(); err != nil {
		return err
	}
	defer n.s.calls.Done()
	changes := make([]index.Change, 0, len(put)+len(remove))
	for _, key := range slices.Sorted(maps.Keys(put)) {
		change, err := index.PutNote(n.kind, key, put[key])
		if err != nil {
			return fmt.Errorf("notes of %s: %w", n.kind, err)
		}
		changes = append(changes, change)
	}
	for _, key := range remove {
		changes = append(changes, index.DropNote(n.kind, key))
	}
	if err := n.s.index.Write(changes...); err != nil {
		return fmt.Errorf("notes of %s: %w", n.kind, err)
	}
	return nil
}
