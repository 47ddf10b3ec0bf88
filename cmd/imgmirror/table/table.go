// Package table prints what verbs list: rows as columns or as JSON, with imgadm's options.
package table

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
)

// Column is one field of rows of type T.
type Column[T any] struct {
	name  string // as -o and -s have it; the header is in upper case
	value func(T) any
}

// Field makes a column. value gives a string, bool, int, Size, Rate, Percent, time.Duration or
// time.Time: the same type for every row, since rows are ordered by the values.
func Field[T any](name string, value func(T) any) Column[T] { return Column[T]{name, value} }

// Size is a number of bytes, printed as a person reads it; a negative one is not known.
type Size int64

// Rate is a number of bytes per second, printed as a person reads it; a negative one is not known.
type Rate int64

// Percent is a share of a whole; a negative one is not known.
type Percent int

// Share is the share of part in whole; without a whole the share is not known.
func Share(part, whole int64) Percent {
	if whole <= 0 {
		return -1
	}
	return Percent(min(max(part, 0), whole) * 100 / whole)
}

// Table is what a verb prints rows with.
type Table[T any] struct {
	columns  []Column[T]
	defaults string
}

// New makes a table; defaults are the fields that are printed without -o, with commas.
func New[T any](defaults string, columns ...Column[T]) Table[T] {
	return Table[T]{columns, defaults}
}

// Flags are imgadm's options for tables.
type Flags struct {
	NoHeader bool
	JSON     bool
	Fields   string // to print, with commas
	order    string
}

// Flags adds the options -H -o -s -j to cmd, and the names of the fields to the help of cmd.
func (t Table[T]) Flags(cmd *cobra.Command) *Flags {
	f := &Flags{}
	flags := cmd.Flags()
	flags.BoolVarP(&f.NoHeader, "no-header", "H", false, "print no header row")
	flags.BoolVarP(&f.JSON, "json", "j", false, "print JSON")
	flags.StringVarP(&f.Fields, "output", "o", t.defaults, "`FIELD,...` to print")
	flags.StringVarP(&f.order, "sort", "s", "", "`FIELD,...` to sort by; -FIELD sorts downwards")
	names := t.names()
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
	Column[T]
	down bool
}

// Layout is a table with its options understood.
type Layout[T any] struct {
	Flags
	columns []Column[T]
	order   []sorting[T]
}

// Layout reads the options, nil for none. Its errors are usage errors.
func (t Table[T]) Layout(f *Flags) (Layout[T], error) {
	if f == nil {
		f = &Flags{Fields: t.defaults}
	}
	l := Layout[T]{Flags: *f}
	for name := range strings.SplitSeq(f.Fields, ",") {
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
		l.order = append(l.order, sorting[T]{Column: c, down: down})
	}
	return l, nil
}

// Run gives cmd the options of t, and has cmd do its work with the layout that they ask for. An option
// that makes no sense is an error before do is called.
func (t Table[T]) Run(cmd *cobra.Command, do func(cmd *cobra.Command, args []string, out Layout[T]) error) {
	flags := t.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, err := t.Layout(flags)
		if err != nil {
			return err
		}
		return do(cmd, args, out)
	}
}

func (t Table[T]) column(name string) (Column[T], error) {
	name = strings.ToLower(strings.TrimSpace(name))
	i := slices.IndexFunc(t.columns, func(c Column[T]) bool { return c.name == name })
	if i < 0 {
		return Column[T]{}, failure.Usage("%s (the fields are %s)", Unknown("field", name, t.names()), strings.Join(t.names(), ", "))
	}
	return t.columns[i], nil
}

// names are those of all columns, in their order.
func (t Table[T]) names() []string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	return names
}

// Print writes rows in the order of -s, else in their own: as JSON, or as columns with two
// spaces between them.
func (l Layout[T]) Print(w io.Writer, rows []T) error {
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
	if l.JSON {
		return JSON(w, rows)
	}

	out := bufio.NewWriter(w)
	columns := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	texts := make([]string, len(l.columns))
	line := func(text func(Column[T]) string) {
		for i, c := range l.columns {
			texts[i] = text(c)
		}
		fmt.Fprintln(columns, strings.Join(texts, "\t")) //nolint:errcheck // Flush tells
	}
	if !l.NoHeader {
		line(func(c Column[T]) string { return strings.ToUpper(c.name) })
	}
	for _, r := range rows {
		line(func(c Column[T]) string { return Cell(c.value(r)) })
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	return out.Flush()
}

// Cell is v, a value of a column, in a table: "-" for nothing, and always one line.
func Cell(v any) string {
	var s string
	switch v := v.(type) {
	case Size:
		if v >= 0 {
			s = humanize.Bytes(uint64(v))
		}
	case Rate:
		if v >= 0 {
			s = humanize.Bytes(uint64(v)) + "/s"
		}
	case Percent:
		if v >= 0 {
			s = strconv.Itoa(int(v)) + "%"
		}
	case time.Duration: // a negative one is not known
		if v >= 0 {
			s = v.Round(time.Second).String()
		}
	case time.Time:
		if !v.IsZero() {
			s = v.UTC().Format(time.RFC3339)
		}
	default:
		s = fmt.Sprint(v)
	}
	return Printable(cmp.Or(s, "-"))
}

// Printable is s without what could move a terminal's cursor or split a line.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
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
	case Size:
		return cmp.Compare(a, b.(Size))
	case Rate:
		return cmp.Compare(a, b.(Rate))
	case Percent:
		return cmp.Compare(a, b.(Percent))
	case time.Duration:
		return cmp.Compare(a, b.(time.Duration))
	case time.Time:
		return a.Compare(b.(time.Time))
	}
	panic(fmt.Sprintf("a column of %T cannot be ordered", a))
}

// AsSent are options of package json that let pass what sources send in manifests: a key that
// comes twice, text that is not UTF-8.
var AsSent = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// JSON writes v as imgadm writes JSON: two spaces, a newline at the end.
func JSON(w io.Writer, v any) error {
	out := bufio.NewWriter(w)
	if err := json.MarshalWrite(out, v, AsSent, jsontext.WithIndent("  ")); err != nil {
		return err
	}
	out.WriteByte('\n') //nolint:errcheck // Flush tells
	return out.Flush()
}
