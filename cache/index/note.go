package index

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	// noteBytes bounds the key and the value of a note together: a note is never a large value.
	noteBytes = chunkBytes - entryCost - 256
	// kindBytes bounds the name of a kind of notes.
	kindBytes = 32
)

// ErrNote is matched by the error of a note with a kind, a key or a size that the index does not take.
var ErrNote = errors.New("not a note")

func notePrefix(kind string) string { return keyNote + kind + "\x00" }

// PutNote records a note of that kind under key. Key and value have less than half a megabyte
// together; an empty value is a value.
func PutNote(kind, key string, value []byte) (Change, error) {
	if err := checkNote(kind, len(key)+len(value)); err != nil {
		return Change{}, err
	}
	if key == "" || len(key) > 1024 {
		return Change{}, fmt.Errorf("%w: a key of %d bytes", ErrNote, len(key))
	}
	if value == nil {
		value = []byte{} // nil would drop the key
	}
	return Change{notePrefix(kind) + key, value}, nil
}

// DropNote drops the note of that kind under key.
func DropNote(kind, key string) Change { return Change{key: notePrefix(kind) + key} }

// Notes gives all notes of a kind, by their keys. The values are the caller's.
func (ix *Index) Notes(kind string) (map[string][]byte, error) {
	if err := checkNote(kind, 0); err != nil {
		return nil, err
	}
	all := make(map[string][]byte)
	err := ix.each(notePrefix(kind), func(key, value []byte) error {
		all[string(key)] = bytes.Clone(value)
		return nil
	})
	return all, err
}

func checkNote(kind string, size int) error {
	if kind == "" || len(kind) > kindBytes || strings.Contains(kind, "\x00") {
		return fmt.Errorf("%w: kind %.40q", ErrNote, kind)
	}
	if size > noteBytes {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrNote, size, noteBytes)
	}
	return nil
}
