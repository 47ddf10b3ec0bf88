package index

import (
	"maps"
	"strings"
	"testing"
)

func mustNote(t testing.TB, kind, key, value string) Change {
	t.Helper()
	c, err := PutNote(kind, key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantNotes(t testing.TB, ix *Index, kind string, want map[string]string) {
	t.Helper()
	all, err := ix.Notes(kind)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for key, value := range all {
		got[key] = string(value)
	}
	if !maps.Equal(got, want) {
		t.Errorf("notes of %s: %.300q, want %.300q", kind, got, want)
	}
}

// Notes of one kind are apart from those of another one, whatever the kinds and the keys are; an
// empty note is a note.
func TestNotes(t *testing.T) {
	ix := open(t, Options{})
	empty, err := PutNote("a", "empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = ix.Write(mustNote(t, "a", "x", "1"), mustNote(t, "ab", "x", "2"), mustNote(t, "a", "b\x00x", "3"),
		mustNote(t, "a/b", "x", "4"), mustNote(t, "a", "gone", "5"), empty, DropNote("a", "gone"), DropNote("a", "never"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantNotes(t, ix, "a", map[string]string{"x": "1", "b\x00x": "3", "empty": ""})
		wantNotes(t, ix, "ab", map[string]string{"x": "2"})
		wantNotes(t, ix, "a/b", map[string]string{"x": "4"})
		wantNotes(t, ix, "none", map[string]string{})
		ix = reopen(t, ix)
	}
}

// A note that the index would have to keep as a large value, and one that is in no kind, is
// refused.
func TestNotesRefused(t *testing.T) {
	for what, note := range map[string]struct{ kind, key, value string }{
		"no kind":     {"", "k", "v"},
		"a long kind": {strings.Repeat("k", kindBytes+1), "k", "v"},
		"zero byte":   {"a\x00b", "k", "v"},
		"no key":      {"a", "", "v"},
		"a long key":  {"a", strings.Repeat("k", 1025), "v"},
		"large":       {"a", "k", strings.Repeat("v", noteBytes)},
	} {
		if _, err := PutNote(note.kind, note.key, []byte(note.value)); err == nil {
			t.Errorf("%s: taken", what)
		} else {
			wantError(t, err, ErrNote)
		}
	}
	ix := open(t, Options{})
	if _, err := ix.Notes("a\x00"); err == nil {
		t.Error("notes of a kind that cannot be written are given")
	}
	largest := mustNote(t, strings.Repeat("k", kindBytes), "k", strings.Repeat("v", noteBytes-1))
	if err := ix.Write(largest, largest); err != nil {
		t.Errorf("the largest note: %v", err)
	}
}
