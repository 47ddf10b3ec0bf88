package progress

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Screen shows a text that changes: on a terminal each text in the place of the one before, cut to the
// window; elsewhere each new text behind the one before. Screen is for one goroutine.
type Screen struct {
	out      io.Writer
	terminal func() (width, height int) // nil: out is no terminal
	last     string
	painted  int // lines above the cursor that are the last text
	shown    bool
}

// NewScreen shows texts on out.
func NewScreen(out io.Writer) *Screen {
	s := &Screen{out: out}
	f, _ := out.(*os.File)
	if o, ok := out.(interface{ File() *os.File }); ok {
		f = o.File()
	}
	if f != nil && term.IsTerminal(int(f.Fd())) {
		s.terminal = func() (int, int) {
			w, h, err := term.GetSize(int(f.Fd()))
			if err != nil || w < 1 || h < 2 {
				return 80, 24
			}
			return w, h
		}
	}
	return s
}

// Show shows text, which is of whole lines without control characters. A text that is shown already is
// not shown again.
func (s *Screen) Show(text string) error {
	if s.shown && text == s.last {
		return nil
	}
	again := s.shown
	s.last, s.shown = text, true
	if s.terminal == nil {
		if again && strings.Count(text, "\n") > 1 { // a table, not a line
			text = "\n" + text
		}
		_, err := io.WriteString(s.out, text)
		return err
	}
	width, height := s.terminal()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if most := height - 1; len(lines) > most {
		left := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("… %d more", left))
	}
	var b strings.Builder
	if s.painted > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA\x1b[J", s.painted)
	}
	for _, l := range lines {
		b.WriteString(cut(l, width-1) + "\n")
	}
	s.painted = len(lines)
	_, err := io.WriteString(s.out, b.String())
	return err
}
