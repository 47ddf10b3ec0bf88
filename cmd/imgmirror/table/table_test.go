package table

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
)

type fruit struct {
	Name   string    `json:"name"`
	Weight int64     `json:"weight"`
	Ripe   bool      `json:"ripe"`
	Picked time.Time `json:"picked"`
}

var fruitTable = New("name,weight,ripe",
	Field("name", func(f fruit) any { return f.Name }),
	Field("weight", func(f fruit) any { return Size(f.Weight) }),
	Field("ripe", func(f fruit) any { return f.Ripe }),
	Field("picked", func(f fruit) any { return f.Picked }),
)

var fruits = []fruit{
	{Name: "plum", Weight: 1500, Ripe: true, Picked: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	{Name: "äpple", Weight: 900},
	{Name: "", Weight: -1, Ripe: true},
	{Name: "fig\x1b[2J\nroot", Weight: 20e6},
}

func printed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := &cobra.Command{Use: "x", SilenceErrors: true, SilenceUsage: true}
	flags := fruitTable.Flags(cmd)
	var b bytes.Buffer
	cmd.RunE = func(*cobra.Command, []string) error {
		out, err := fruitTable.Layout(flags)
		if err != nil {
			return err
		}
		return out.Print(&b, fruits)
	}
	cmd.SetArgs(args)
	err := cmd.Execute()
	return b.String(), err
}

func TestTable(t *testing.T) {
	f := func(args string, lines ...string) {
		t.Helper()
		got, err := printed(t, strings.Fields(args)...)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(strings.Join(lines, "\n")+"\n", got); diff != "" {
			t.Errorf("%q:\n%s", args, diff)
		}
	}
	f("",
		"NAME          WEIGHT  RIPE",
		"plum          1.5 kB  true",
		"äpple         900 B   false",
		"-             -       true",
		"fig?[2J?root  20 MB   false")
	f("-H -o NAME", "plum", "äpple", "-", "fig?[2J?root")
	f("-o picked,name -s -weight",
		"PICKED                NAME",
		"-                     fig?[2J?root",
		"2026-01-02T03:04:05Z  plum",
		"-                     äpple",
		"-                     -")
	f("-H -o name,ripe -s ripe,-name",
		"äpple         false",
		"fig?[2J?root  false",
		"plum          true",
		"-             true")
	f("-H -o name -s picked,weight", "-", "äpple", "fig?[2J?root", "plum")
}

func TestTableJSON(t *testing.T) {
	got, err := printed(t, "-j", "-s", "name", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	want := `[
  {
    "name": "",
    "weight": -1,
    "ripe": true,
    "picked": "0001-01-01T00:00:00Z"
  },
`
	if !strings.HasPrefix(got, want) {
		t.Errorf("got %s", got)
	}
}

func TestTableUsage(t *testing.T) {
	f := func(field string, args ...string) {
		t.Helper()
		out, err := printed(t, args...)
		var e *failure.Error
		if !errors.As(err, &e) || e.Code != failure.CodeUsage || !strings.Contains(err.Error(), `"`+field+`"`) || out != "" {
			t.Errorf("%q: %v, printed %q", args, err, out)
		}
	}
	f("colour", "-o", "name,colour")
	f("colour", "-s", "-colour")
	f("", "-o", "")
	f("", "-s", "name,")
}
