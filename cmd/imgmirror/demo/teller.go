package demo

import (
	"fmt"
	"io"
	"os"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// The colours of a terminal.
const (
	bold  = "1"
	dim   = "2"
	green = "32"
	red   = "31"
)

// teller writes the story, 80 columns wide: titles, what happens, and figures that are checked. A
// failed write is no failure of the teller: the verb's output remembers the failure.
type teller struct {
	out      io.Writer
	coloured bool
	chapters int
	figures  int // that were as expected
}

// newTeller writes on out, in colours if out is a terminal that has some.
func newTeller(out io.Writer) *teller {
	f, _ := out.(*os.File)
	if o, ok := out.(interface{ File() *os.File }); ok {
		f = o.File()
	}
	coloured := f != nil && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &teller{out: out, coloured: coloured}
}

// paint gives text in a colour.
func (t *teller) paint(colour, text string) string {
	if !t.coloured {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// chapter begins a chapter.
func (t *teller) chapter(title string) {
	t.chapters++
	fmt.Fprintf(t.out, "\n%s\n", t.paint(bold, fmt.Sprintf("%d. %s", t.chapters, title)))
}

// say tells what happens.
func (t *teller) say(format string, args ...any) {
	fmt.Fprintln(t.out, t.paint(dim, "   "+fmt.Sprintf(format, args...)))
}

// figure shows a measured figure. A figure that is not the one expected is the error.
func (t *teller) figure(name string, got, want int64) error {
	if got != want {
		fmt.Fprintf(t.out, "   %s  %-52s %12s\n", t.paint(red, "wrong"), name, humanize.Comma(got))
		return fmt.Errorf("%s: %s, expected %s", name, humanize.Comma(got), humanize.Comma(want))
	}
	t.figures++
	fmt.Fprintf(t.out, "   %s     %-52s %12s\n", t.paint(green, "ok"), name, humanize.Comma(got))
	return nil
}
