package browse

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// made describes a row; what is not set has a sensible value.
type made struct {
	name, version, os, typ, description, source, reason string
	size                                                int
	retired                                             bool
}

// table makes a table: row n has the uuid and the date number n.
func table(t *testing.T, all ...made) *Table {
	t.Helper()
	var rows []Row
	for n, m := range all {
		or := func(text, other string) string {
			if text == "" {
				return other
			}
			return text
		}
		text := fmt.Sprintf(`{"v":2,"uuid":%q,"name":%q,"version":%q,"os":%q,"type":%q,"description":%q,"state":"active",`+
			`"public":true,"owner":%q,"published_at":%q,"files":[{"sha1":"%040x","size":%d,"compression":"gzip"}]}`,
			id(n), or(m.name, "image"), or(m.version, "1"), or(m.os, "smartos"), or(m.typ, "zone-dataset"), m.description, uuid.Nil,
			time.Date(2024, 1, 1, 0, 0, n, 0, time.UTC).Format(time.RFC3339), n+1, max(m.size, 1))
		image, err := manifest.Parse([]byte(text), manifest.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, Row{Image: &image, Source: or(m.source, "first"), Reason: m.reason, Retired: m.retired})
	}
	slices.Reverse(rows)
	return New(rows)
}

// id makes the uuid number n; its first digits are n's.
func id(n int) uuid.UUID { return uuid.MustParse(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n)) }

// found tells the rows of a result in one line.
func found(r Result) string { return strings.Trim(fmt.Sprint(r.Rows), "[]") }

func TestWords(t *testing.T) {
	x := table(t,
		made{name: "Base-64", version: "20.4.0", description: "A small ÄRMEL image"},
		made{name: "debian-12", os: "linux", typ: "lx-dataset", version: "20240101"},
		made{name: "base-32", description: "debian's friend"},
		made{name: strings.Repeat("x", maxText) + "hidden"},
	)
	f := func(q, want string) {
		t.Helper()
		r := x.Find(Query{Words: strings.Fields(q), Limit: 10})
		if got := found(r); got != want || r.Total != len(r.Rows) {
			t.Errorf("%q: rows %s of %d, want %s", q, got, r.Total, want)
		}
	}
	f("", "0 1 2 3")
	f("base", "0 2")
	f("BASE 64", "0")
	f("debian", "1 2")
	f("debian linux", "1")
	f("lx-data", "1")
	f("smartos base friend", "2")
	f("ärmel", "0")
	f("20", "0 1")
	f("00000001", "1")
	f("00000001-0000-4000-8000-000000000000", "1")
	f("00000001-0000-4000-8000-000000000001", "")
	f("0000", "0 1 2 3")
	f("000", "") // too short for uuids
	f("hidden", "")
	f("nothing", "")
	f("base\x00", "")
	f("4\x0020.4.0", "") // over the end of a text
}

func TestColumnsAndFacets(t *testing.T) {
	x := table(t,
		made{os: "smartos"},
		made{os: "linux", source: "second"},
		made{os: "linux", typ: "lx-dataset"},
		made{os: "bsd", typ: "zvol", reason: "disabled"},
	)
	pinned, cached := NewSet(4), NewSet(4)
	pinned.Add(2)
	cached.Add(1)
	cached.Add(2)
	f := func(q Query, want, facets string) {
		t.Helper()
		q.Limit = 10
		q.States = []State{{"pinned", pinned}, {"cached", cached}}
		r := x.Find(q)
		var told []string
		for _, facet := range slices.Sorted(maps.Keys(r.Facets)) {
			for _, value := range slices.Sorted(maps.Keys(r.Facets[facet])) {
				told = append(told, fmt.Sprintf("%s %d", value, r.Facets[facet][value]))
			}
		}
		if got := found(r); got != want || r.Total != len(r.Rows) || strings.Join(told, ", ") != facets {
			t.Errorf("%+v: rows %s, want %s\n%s, want\n%s", q, got, want, strings.Join(told, ", "), facets)
		}
	}
	f(Query{}, "0 1 2 3", "bsd 1, linux 2, smartos 1, disabled 1, first 3, second 1, cached 2, pinned 1, lx-dataset 1, zone-dataset 2, zvol 1")
	// The facet of the chosen column tells of the other choices.
	f(Query{OS: "linux"}, "1 2", "bsd 1, linux 2, smartos 1, first 1, second 1, cached 2, pinned 1, lx-dataset 1, zone-dataset 1")
	f(Query{OS: "linux", Type: "lx-dataset"}, "2", "linux 1, first 1, cached 1, pinned 1, lx-dataset 1, zone-dataset 1")
	f(Query{State: "cached"}, "1 2", "linux 2, first 1, second 1, cached 2, pinned 1, lx-dataset 1, zone-dataset 1")
	f(Query{State: "cached", Source: "first"}, "2", "linux 1, first 1, second 1, cached 1, pinned 1, lx-dataset 1")
	f(Query{Reason: "disabled"}, "3", "bsd 1, disabled 1, first 1, cached 0, pinned 0, zvol 1")
	f(Query{OS: "plan9"}, "", "bsd 1, linux 2, smartos 1, cached 0, pinned 0")
	f(Query{State: "unheard of"}, "", "cached 2, pinned 1")
}

// A column with many values is counted in bounded room: the most frequent values stay.
func TestManyValues(t *testing.T) {
	var all []made
	for n := range 3 * maxValues {
		all = append(all, made{os: fmt.Sprintf("os%d", n)})
	}
	all = append(all, made{os: "os299"})
	r := table(t, all...).Find(Query{Limit: 1})
	if n := len(r.Facets["os"]); n != maxValues {
		t.Errorf("%d values", n)
	}
	if n := r.Facets["os"]["os299"]; n != 2 {
		t.Errorf("the most frequent value has %d", n)
	}
}

func TestSort(t *testing.T) {
	x := table(t,
		made{name: "b", version: "9.10", size: 5, os: "x", source: "second"},
		made{name: "a", version: "9.2", size: 70, os: "y"},
		made{name: "B", version: "9.9", size: 6, os: "x", typ: "zvol"},
		made{name: "a", version: "9.10", size: 7, os: "x", reason: "failed"},
	)
	state := NewSet(4)
	state.Add(2)
	f := func(field string, desc bool, want string) {
		t.Helper()
		q := Query{Sort: field, Desc: desc, Limit: 10, States: []State{{"cached", state}}}
		if got := found(x.Find(q)); got != want {
			t.Errorf("by %s, %v: %s, want %s", field, desc, got, want)
		}
		var paged []int // one by one
		for q.Limit = 1; ; q.Offset++ {
			r := x.Find(q)
			if r.Total != 4 {
				t.Errorf("total %d", r.Total)
			}
			if len(r.Rows) == 0 {
				break
			}
			paged = append(paged, r.Rows...)
		}
		if got := found(Result{Rows: paged}); got != want {
			t.Errorf("pages by %s, %v: %s, want %s", field, desc, got, want)
		}
	}
	f("", false, "0 1 2 3")
	f(ByPublished, true, "3 2 1 0")
	f(ByName, false, "1 3 2 0")
	f(ByName, true, "0 2 3 1")
	f(ByVersion, false, "1 2 3 0")
	f(ByOS, false, "3 2 0 1")
	f(ByType, false, "1 3 0 2")
	f(BySize, false, "0 2 3 1")
	f(BySource, false, "1 2 3 0")
	f(ByState, false, "2 0 1 3")
	f(ByState, true, "3 1 0 2")
}

func TestCompare(t *testing.T) {
	for _, pair := range [][2]string{
		{"", "a"}, {"a", "ab"}, {"9.2", "9.10"}, {"1", "01"}, {"01", "2"}, {"a9", "a10b"}, {"99999999999999999999", "100000000000000000000"}, {"1.0", "1.0-rc"},
	} {
		if compare(pair[0], pair[1]) >= 0 || compare(pair[1], pair[0]) <= 0 {
			t.Errorf("%q is not before %q", pair[0], pair[1])
		}
	}
	if compare("a1", "a1") != 0 {
		t.Error("a text differs from itself")
	}
}

func TestRows(t *testing.T) {
	x := table(t, made{}, made{retired: true}, made{})
	if got := x.Rows(id(1)); len(got) != 1 || got[0] != 1 || !x.Retired().Has(1) || x.Retired().Has(0) {
		t.Errorf("rows %v", got)
	}
	if got := x.Rows(id(7)); len(got) != 0 {
		t.Errorf("rows %v of an unknown image", got)
	}
}

// The answer to a filter is remembered, for a bounded number of filters.
func TestFiltersAreRemembered(t *testing.T) {
	x := table(t, made{os: "smartos"}, made{os: "linux"})
	match := func(text string) Set {
		t.Helper()
		f, err := manifest.ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		return x.Match(f)
	}
	first := match("os=linux")
	if first.Has(0) || !first.Has(1) {
		t.Fatal("the filter does not select")
	}
	for n := range 3 * maxFiltered {
		match(fmt.Sprintf("name=%d", n))
		if again := match("os=linux"); &again[0] != &first[0] {
			t.Fatal("the filter was answered anew")
		}
	}
	if n := len(x.filtered); n != maxFiltered {
		t.Errorf("%d filters are remembered", n)
	}
}

// Descriptions have bounded room, names and versions are searched all the same.
func TestDescriptionsAreBounded(t *testing.T) {
	in := newIntake()
	most := maxDescriptions/maxText + 2
	for n := range most {
		in.describe(fmt.Appendf(nil, "%0*d", maxText, n))
	}
	if place := in.describe([]byte("one more")); place != 0 {
		t.Errorf("one more description has place %d", place)
	}
	if in.described > maxDescriptions+maxText+1 {
		t.Errorf("%d bytes", in.described)
	}
	if place := in.add("a name"); place == 0 {
		t.Error("a name is not searched")
	}
}

func TestNote(t *testing.T) {
	x := table(t, made{}, made{})
	calls := 0
	f := func(name string, version any, want int) {
		t.Helper()
		rows := x.Note(name, version, func() Set {
			calls++
			rows := NewSet(2)
			rows.Add(1)
			return rows
		})
		if calls != want || !rows.Has(1) {
			t.Errorf("%s %v: made %d times, want %d", name, version, calls, want)
		}
	}
	f("cached", uint64(1), 1)
	f("cached", uint64(1), 1)
	f("cached", uint64(2), 2)
	f("kept", uint64(2), 3)
	f("cached", uint64(2), 3)
}

// A long value counts as its beginning.
func TestLongValues(t *testing.T) {
	rows := large(t, 2)
	image := *rows[0].Image
	image.OS = strings.Repeat("x", 1<<20)
	rows[0].Image = &image
	table := New(rows)
	for _, os := range []string{image.OS, image.OS[:256]} {
		found := table.Find(Query{OS: os, Limit: 5})
		if found.Total != 1 {
			t.Errorf("an os of %d bytes: %d rows", len(os), found.Total)
		}
		for value := range found.Facets["os"] {
			if len(value) > 256 {
				t.Errorf("a facet has a value of %d bytes", len(value))
			}
		}
	}
}
