//go:build linux

package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The terminal, and its picture in pixels.
const (
	columns = 80
	rows    = 30

	cellWidth  = 8.43 // of a monospaced font of fontSize
	fontSize   = 14
	lineHeight = 19
	margin     = 18
)

// The tempo.
const (
	titlePause  = 1300 * time.Millisecond // before a title
	figurePause = 450 * time.Millisecond  // before a figure
	linePause   = 220 * time.Millisecond  // before any other line
	lastPause   = 6 * time.Second         // after the last line
)

// classes are the colours of a terminal by their codes, as classes of the style sheet.
var classes = map[string]string{"1": "b", "2": "d", "32": "g", "31": "r"}

// span is a text in one colour.
type span struct{ class, text string }

// line is a line of the terminal.
type line []span

// plain is the line's text.
func (l line) plain() string {
	var text strings.Builder
	for _, s := range l {
		text.WriteString(s.text)
	}
	return text.String()
}

// pause is how long the line is waited for.
func (l line) pause() time.Duration {
	text := l.plain()
	switch {
	case len(l) > 0 && l[0].class == "b":
		return titlePause
	case strings.HasPrefix(text, "   ok "):
		return figurePause
	case text == "": // comes with the next line
		return 0
	}
	return linePause
}

// codes are the colours in a terminal's text.
var codes = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// parse splits what appeared in a terminal into lines. Text that does more than come line by line,
// in known colours, is an error.
func parse(text string) ([]line, error) {
	var lines []line
	class := ""
	for i, row := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		var l line
		add := func(text string) {
			if text != "" {
				l = append(l, span{class, text})
			}
		}
		from := 0
		for _, at := range codes.FindAllStringSubmatchIndex(row, -1) {
			add(row[from:at[0]])
			code := row[at[2]:at[3]]
			known := false
			if class, known = classes[code]; !known && code != "0" {
				return nil, fmt.Errorf("line %d has the unknown colour %q", i+1, code)
			}
			from = at[1]
		}
		add(row[from:])
		plain := l.plain()
		if strings.ContainsFunc(plain, unicode.IsControl) {
			return nil, fmt.Errorf("line %d moves the cursor: %q", i+1, plain)
		}
		if n := utf8.RuneCountInString(plain); n > columns {
			return nil, fmt.Errorf("line %d has %d columns, at most %d fit: %s", i+1, n, columns, plain)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// draw draws the film: all lines in one column, which moves up behind a window of the terminal's
// size. Without animation the end of the film is seen.
func draw(lines []line) string {
	width, height := 2*margin+columns*cellWidth, 2*margin+rows*lineHeight
	var b strings.Builder
	total := lastPause
	for _, l := range lines {
		total += l.pause()
	}
	offset := func(shown int) int { return (rows - shown) * lineHeight } // the line shown last is the lowest row
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0[1]f" height="%[2]d" role="img" aria-labelledby="t">
<title id="t">%[3]s</title>
<style>
text{font:%[4]dpx ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d5dbe3;white-space:pre}
.b{fill:#fff;font-weight:bold}.d{fill:#9fabb9}.g{fill:#56d364}.r{fill:#ff7b72}
#roll{transform:translateY(%[5]dpx);animation:roll %.2[6]fs step-end infinite}
@media(prefers-reduced-motion:reduce){#roll{animation:none}}
@keyframes roll{
`, width, height, html.EscapeString(lines[0].plain()), fontSize, offset(len(lines)), total.Seconds())
	var at time.Duration
	for i, l := range lines {
		at += l.pause()
		if i == 0 {
			at = 0
		}
		if l.plain() != "" {
			fmt.Fprintf(&b, "%.2f%%{transform:translateY(%dpx)}\n", 100*at.Seconds()/total.Seconds(), offset(i+1))
		}
	}
	fmt.Fprintf(&b, `}
</style>
<rect width="100%%" height="100%%" rx="8" fill="#10151c"/>
<svg x="%d" y="%[1]d" width="%.0f" height="%d"><g id="roll">
`, margin, width-margin, rows*lineHeight)
	for i, l := range lines {
		if len(l) == 0 {
			continue
		}
		fmt.Fprintf(&b, `<text y="%d">`, i*lineHeight+fontSize)
		column := 0
		for _, s := range l {
			at := ""
			if column > 0 { // fonts differ in width: each span begins at its column
				at = fmt.Sprintf(` x="%.1f"`, float64(column)*cellWidth)
			}
			class := ""
			if s.class != "" {
				class = ` class="` + s.class + `"`
			}
			if at+class == "" {
				b.WriteString(html.EscapeString(s.text))
			} else {
				fmt.Fprintf(&b, "<tspan%s%s>%s</tspan>", at, class, html.EscapeString(s.text))
			}
			column += utf8.RuneCountInString(s.text)
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g></svg>\n</svg>\n")
	return b.String()
}
