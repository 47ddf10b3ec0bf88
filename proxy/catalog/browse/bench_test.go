package browse

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"imgmirror/manifest"
)

// large makes rows as large mirrors have them: few operating systems, some hundred names, versions
// by date, a description for each name, two sources.
func large(t testing.TB, n int) []Row {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	bytes := func(size int) string {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return hex.EncodeToString(b)
	}
	var list strings.Builder
	for i := range n {
		name := i % 700
		id := bytes(16)
		fmt.Fprintf(&list, `%s{"v":2,"uuid":"%s-%s-4%s-8%s-%s","name":"image-%d-64","version":"%d.%d.%d","type":%q,"os":%q,`+
			`"state":"active","disabled":false,"public":true,"owner":"00000000-0000-0000-0000-000000000000",`+
			`"published_at":"2024-%02d-%02dT%02d:00:%02dZ","description":"Image %d with packages, number %d of %s.",`+
			`"homepage":"https://example.com/%d","requirements":{"networks":[{"name":"net0","description":"public"}]},`+
			`"tags":{"role":"r%d","group":"%d"},"files":[{"sha1":"%s","size":%d,"compression":"gzip"}]}`,
			map[bool]string{true: "[", false: ","}[i == 0], id[:8], id[8:12], id[13:16], id[17:20], id[20:], name, i%23, i%5, i,
			[]string{"zone-dataset", "lx-dataset", "zvol"}[name%3], []string{"smartos", "linux", "bsd"}[name%3],
			1+i%12, 1+i%28, i%24, i%60, name, i%9, strings.Repeat("words ", 1+name%20), name, i%7, i%1000, bytes(20), 1000+random.IntN(1<<30))
	}
	list.WriteString("]")
	images, skipped, err := manifest.ParseList([]byte(list.String()), manifest.ParseOptions{})
	if err != nil || len(skipped) > 0 {
		t.Fatal(err, skipped)
	}
	rows := make([]Row, n)
	for i := range images {
		rows[i] = Row{Image: &images[i], Source: []string{"first", "second"}[i%2]}
	}
	return rows
}

const largeSize = 100_000

func BenchmarkNew(b *testing.B) {
	rows := large(b, largeSize)
	for b.Loop() {
		New(rows)
	}
}

func BenchmarkFind(b *testing.B) {
	rows := large(b, largeSize)
	table := New(rows)
	cached := NewSet(len(rows))
	for i := 0; i < len(rows); i += 3 {
		cached.Add(i)
	}
	filter := func(text string) []manifest.Filter {
		f, err := manifest.ParseFilter(text)
		if err != nil {
			b.Fatal(err)
		}
		return []manifest.Filter{f}
	}
	for _, x := range []struct {
		name string
		Query
	}{
		{"all", Query{}},
		{"last page", Query{Offset: largeSize - 50}},
		{"letter", Query{Words: []string{"a"}}},
		{"words", Query{Words: []string{"image-17", "words", "smartos"}}},
		{"nothing", Query{Words: []string{"no such word"}}},
		{"uuid", Query{Words: []string{rows[5].Image.UUID.String()[:8]}}},
		{"by name", Query{Sort: ByName, Desc: true, Offset: largeSize / 2}},
		{"by state", Query{Sort: ByState}},
		{"tag", Query{Filters: filter("tag.group=7")}},
		{"everything", Query{Words: []string{"i", "2"}, Filters: filter("public=true"), OS: "linux", Type: "lx-dataset", Source: "second", State: "cached", Sort: BySize}},
	} {
		x.States, x.Limit = []State{{"cached", cached}, {"uncached", Set(nil).Without(cached, len(rows))}}, 50
		b.Run(x.name, func(b *testing.B) {
			for b.Loop() {
				table.Find(x.Query)
			}
		})
	}
	b.Run("filter, first time", func(b *testing.B) {
		for b.Loop() {
			table.filtered = nil
			table.Find(Query{Filters: filter("tag.group=7"), Limit: 50})
		}
	})
}

// A table with all of its orders takes little beside the list that it is of.
func TestMemory(t *testing.T) {
	rows := large(t, largeSize)
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	table := New(slices.Clone(rows))
	for _, field := range Fields {
		table.Find(Query{Sort: field, Limit: 1})
	}
	if used := heap() - before; used > 20<<20 {
		t.Errorf("%d KiB for a table of %d rows", used>>10, table.Len())
	} else {
		t.Logf("%d KiB", used>>10)
	}
	runtime.KeepAlive(rows)
}
