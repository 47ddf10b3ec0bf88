//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecord: the command has a terminal of the film's size; a command that fails makes no film.
func TestRecord(t *testing.T) {
	text, err := record([]string{"sh", "-c", "stty size; test -t 1 && test -t 2 && echo both"})
	if want := fmt.Sprintf("%d %d\nboth\n", rows, columns); err != nil || text != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
	output := filepath.Join(t.TempDir(), "film.svg")
	err = film(output, []string{"sh", "-c", "echo no mirror; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no mirror") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(output); err == nil {
		t.Error("there is a film of a failure")
	}
}

// TestParse: only what the picture can show becomes lines.
func TestParse(t *testing.T) {
	f := func(text, want, fault string) {
		t.Helper()
		lines, err := parse(text)
		if fault != "" {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%q: %v, want %q", text, err, fault)
			}
			return
		}
		if got := fmt.Sprint(lines); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	f("a\n\nb\n", "[[{ a}] [] [{ b}]]", "")
	f("a \x1b[32mok\x1b[0m b\n", "[[{ a } {g ok} {  b}]]", "")
	f("\x1b[35mx\x1b[0m\n", "", `unknown colour "35"`)
	f("one\n\x1b[2Jtwo\n", "", "line 2 moves the cursor")
	f("one\rtwo\n", "", "line 1 moves the cursor")
	f(strings.Repeat("ä", columns)+"\n", "[[{ "+strings.Repeat("ä", columns)+"}]]", "")
	f(strings.Repeat("ä", columns+1)+"\n", "", "81 columns")
}

// TestDraw: each line has its moment, and the film rests where it ends.
func TestDraw(t *testing.T) {
	lines, err := parse("\x1b[1m$ a <b>\x1b[0m\n" + strings.Repeat("line\n", 40) + "\n   \x1b[32mok\x1b[0m  1\n")
	if err != nil {
		t.Fatal(err)
	}
	picture := draw(lines)
	last := fmt.Sprintf("{transform:translateY(%dpx)}\n}", (rows-len(lines))*lineHeight)
	rest := fmt.Sprintf("#roll{transform:translateY(%dpx);", (rows-len(lines))*lineHeight)
	for _, want := range []string{"a &lt;b&gt;", last, rest, "prefers-reduced-motion", `<tspan x="25.3" class="g">ok</tspan>`} {
		if !strings.Contains(picture, want) {
			t.Errorf("no %q in\n%s", want, picture)
		}
	}
	if n := strings.Count(picture, "%{transform"); n != 42 { // none for the empty line
		t.Errorf("%d moments", n)
	}
}
