package table

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	words := []string{"uuid", "name", "version", "os", "size", "published", "public", "verify"}
	f := func(typed, want string) {
		t.Helper()
		if got := Nearest(typed, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", typed, got, want)
		}
	}
	f("name", "name")
	f("NAME", "name")
	f("nmae", "name") // swapped
	f("nam", "name")  // one is missing
	f("namee", "name")
	f("nane", "name")
	f("nnae", "") // two slips in four letters
	f("vresoin", "version")
	f("o", "") // one letter is near to too much
	f("uuids", "uuid")
	f("publ", "") // the beginning of two words
	f("pub", "")  // likewise
	f("publi", "public")
	f("publis", "public") // a slip counts for more than the beginning
	f("publish", "published")
	f("versi", "version")
	f("colour", "")
	f("", "")
	f("ñame", "name") // letters, not bytes
	f(strings.Repeat("n", 10_000), "")
	if got := Nearest("x", nil); got != "" {
		t.Errorf("of no words: %q", got)
	}
}

func TestUnknown(t *testing.T) {
	words := []string{"smartos", "danube"}
	if got, want := Unknown("source", "smratos", words), `no source "smratos": did you mean "smartos"?`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Unknown("source", "x\n", words), `no source "x\n"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
