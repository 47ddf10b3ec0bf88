package cache

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
)

func wantNotes(t testing.TB, n Notes, want map[string]string) {
	t.Helper()
	all, err := n.All()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for key, value := range all {
		got[key] = string(value)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d notes %.300q, want %d", len(got), got, len(want))
	}
}

// Many notes are more than one transaction; they last through a restart and a lost folder of the
// index. A note that is too large is refused, with all others.
func TestNotes(t *testing.T) {
	s := openStore(t, Options{})
	want, many := make(map[string]string), make(map[string][]byte)
	for i := range 3000 {
		key := fmt.Sprint("key ", i)
		many[key] = noise(byte(i), 1000)
		want[key] = string(many[key])
	}
	if err := s.Notes("many").Write(many, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Notes("few").Write(map[string][]byte{"x": []byte("1"), "y": []byte("2")}, []string{"y", "none"}); err != nil {
		t.Fatal(err)
	}
	err := s.Notes("few").Write(map[string][]byte{"a": nil, "x": make([]byte, 1<<20)}, []string{"x"})
	wantError(t, err, index.ErrNote)
	check := func() {
		t.Helper()
		wantNotes(t, s.Notes("many"), want)
		wantNotes(t, s.Notes("few"), map[string]string{"x": "1"})
	}
	check()
	closeStore(t, s)
	if _, err := s.Notes("few").All(); !errors.Is(err, ErrClosed) {
		t.Errorf("notes of a closed store: %v", err)
	}
	wantError(t, s.Notes("few").Write(nil, []string{"x"}), ErrClosed)
	s = reopen(t, s)
	check()
	if err := os.RemoveAll(s.dir.index()); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Notes("few").Write(many, nil), ErrDisk)
	if err := s.tendIndex(); err != nil {
		t.Fatal(err)
	}
	check()
}

// A broken index loses the notes, and nothing else.
func TestNotesOfBrokenIndex(t *testing.T) {
	s := openStore(t, Options{})
	one := newSample(t, 1, 1000, nil)
	one.store(t, s)
	if err := s.Notes("few").Write(map[string][]byte{"x": []byte("1")}, nil); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := os.WriteFile(filepath.Join(s.dir.index(), "MANIFEST"), noise(1, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	wantNotes(t, s.Notes("few"), map[string]string{})
	wantData(t, s, one.blob, one.data, Hit)
	if err := s.Notes("few").Write(map[string][]byte{"x": []byte("2")}, nil); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, s.Notes("few"), map[string]string{"x": "2"})
}

// An index that cannot be written gives its notes, and takes none.
func TestNotesOfUnwritableIndex(t *testing.T) {
	s := openStore(t, Options{})
	if err := s.Notes("few").Write(map[string][]byte{"x": []byte("1")}, nil); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	o := s.o
	o.Registerer = nil
	o.diskRoom = func(string) (disk.Room, error) { return disk.Room{}, nil }
	s = openStore(t, o)
	wantNotes(t, s.Notes("few"), map[string]string{"x": "1"})
	wantError(t, s.Notes("few").Write(map[string][]byte{"x": []byte("2")}, nil), ErrNoSpace)
	wantNotes(t, s.Notes("few"), map[string]string{"x": "1"})
}
