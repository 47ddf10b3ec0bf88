package progress

import (
	"bytes"
	"testing"
)

// Elsewhere than on a terminal all texts stay, with a free line between tables.
func TestScreenOfNoTerminal(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out)
	for _, text := range []string{"A\n1\n", "A\n1\n", "A\n2\n", "[]\n", ""} {
		if err := s.Show(text); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := out.String(), "A\n1\n\nA\n2\n[]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// On a terminal a text takes the place of the one before, and never more than the window.
func TestScreenOfTerminal(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out)
	s.terminal = func() (int, int) { return 6, 4 }
	f := func(text, want string) {
		t.Helper()
		out.Reset()
		if err := s.Show(text); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	f("A\n1\n", "A\n1\n")
	f("A\n1\n", "")
	f("A\n12345678\n", "\r\x1b[2A\x1b[JA\n12345\n")
	f("A\n1\n2\n3\n4\n", "\r\x1b[2A\x1b[JA\n1\n… 3 m\n")
	f("A\n", "\r\x1b[3A\x1b[JA\n")
}
