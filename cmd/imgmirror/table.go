package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
)

// column is one field of a table. value gives a string, bool, int, size or
// time.Time: the same type for every row, for that is how rows are ordered.
type column[T any] struct {
	name  string // as -o and -s have it; the header is in upper case
	value func(T) any
}

// size is a number of bytes, printed as a person reads it.
type size int64

// table is what a verb prints rows with.
type table[T any] struct {
	columns  []column[T]
	defaults string // the fields printed without -o, with commas
}

// tableFlags are imgadm's options for tables.
type tableFlags struct {
	noHeader bool
	json     bool
	fields   string
	order    string
}

// flags adds the options -H -o -s -j to cmd, with the names of the fields.
func (t table[T]) flags(cmd *cobra.Command) *tableFlags {
	f := &tableFlags{}
	flags := cmd.Flags()
	flags.BoolVarP(&f.noHeader, "no-header", "H", false, "print no header row")
	flags.BoolVarP(&f.json, "json", "j", false, "print JSON")
	flags.StringVarP(&f.fields, "output", "o", t.defaults, "`FIELD,...` to print")
	flags.StringVarP(&f.order, "sort", "s", "", "`FIELD,...` to sort by; -FIELD sorts downwards")
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	cmd.Long = strings.TrimSpace(cmd.Long+"\n\nFields: ") + " " + strings.Join(names, ", ") + "."
	complete := func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		done := typed[:strings.LastIndexByte(typed, ',')+1]
		var all []string
		for _, n := range names {
			all = append(all, done+n)
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	for _, name := range []string{"output", "sort"} {
		if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return f
}

// sorting is one field of -s.
type sorting[T any] struct {
	column[T]
	down bool
}

// layout is a table with its options understood.
type layout[T any] struct {
	columns []column[T]
	order   []sorting[T]
	flags   *tableFlags
}

// layout reads the options; its errors are usage errors. Verbs call it before
// they ask for anything.
func (t table[T]) layout(f *tableFlags) (layout[T], error) {
	l := layout[T]{flags: f}
	for name := range strings.SplitSeq(f.fields, ",") {
		c, err := t.column(name)
		if err != nil {
			return l, err
		}
		l.columns = append(l.columns, c)
	}
	if f.order == "" {
		return l, nil
	}
	for name := range strings.SplitSeq(f.order, ",") {
		plain, down := strings.CutPrefix(name, "-")
		c, err := t.column(plain)
		if err != nil {
			return l, err
		}
		l.order = append(l.order, sorting[T]{column: c, down: down})
	}
	return l, nil
}

func (t table[T]) column(name string) (column[T], error) {
	name = strings.ToLower(strings.TrimSpace(name))
	i := slices.IndexFunc(t.columns, func(c column[T]) bool { return c.name == name })
	if i < 0 {
		return column[T]{}, failure.Usage("no field %q", name)
	}
	return t.columns[i], nil
}

// print writes rows in the order of -s, else in their own: as JSON, for which
// js gives a row's value, or as columns with two spaces between them.
func (l layout[T]) print(w io.Writer, rows []T, js func(T) any) error {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b T) int {
		for _, s := range l.order {
			c := compare(s.value(a), s.value(b))
			if s.down {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	if l.flags.json {
		all := make([]any, len(rows))
		for i, r := range rows {
			all[i] = js(r)
		}
		return printJSON(w, all)
	}

	cells := make([][]string, 0, len(rows)+1)
	if !l.flags.noHeader {
		var header []string
		for _, c := range l.columns {
			header = append(header, strings.ToUpper(c.name))
		}
		cells = append(cells, header)
	}
	for _, r := range rows {
		var line []string
		for _, c := range l.columns {
			line = append(line, cell(c.value(r)))
		}
		cells = append(cells, line)
	}
	widths := make([]int, len(l.columns))
	for _, line := range cells {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	var b strings.Builder
	for _, line := range cells {
		for i, text := range line {
			b.WriteString(text)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell is v in a table: "-" for nothing, and on one line whatever a source sent.
func cell(v any) string {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case bool:
		s = strconv.FormatBool(v)
	case int:
		s = strconv.Itoa(v)
	case size:
		if v >= 0 {
			s = humanize.Bytes(uint64(v))
		}
	case time.Time:
		if !v.IsZero() {
			s = v.UTC().Format(time.RFC3339)
		}
	default:
		s = fmt.Sprint(v)
	}
	if s == "" {
		return "-"
	}
	return printable(s)
}

// printable is s without what could move a terminal's cursor or split a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// printableLines is printable for a message of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(strings.ReplaceAll(l, "\t", " "))
	}
	return strings.Join(lines, "\n")
}

// compare orders two values of one column.
func compare(a, b any) int {
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case bool:
		return cmp.Compare(strconv.FormatBool(a), strconv.FormatBool(b.(bool)))
	case int:
		return cmp.Compare(a, b.(int))
	case size:
		return cmp.Compare(a, b.(size))
	case time.Time:
		return a.Compare(b.(time.Time))
	}
	panic(fmt.Sprintf("a column of %T cannot be ordered", a))
}

// jsonAsSent lets pass what sources send, whose bytes manifests are: a key that
// comes twice, text that is not UTF-8.
var jsonAsSent = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// printJSON writes v as imgadm writes JSON: two spaces, a newline at the end.
func printJSON(w io.Writer, v any) error {
	out := bufio.NewWriter(w)
	if err := json.MarshalWrite(out, v, jsonAsSent, jsontext.WithIndent("  ")); err != nil {
		return err
	}
	out.WriteByte('\n') //nolint:errcheck // Flush tells
	return out.Flush()
}

// same is for rows that are printed as JSON the way they are.
func same[T any](v T) any { return v }
