package index

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/verify"
)

// The records lie on disk as earlier versions wrote them, and are read as what was recorded.
func TestRecords(t *testing.T) {
	ix := open(t, Options{})
	if err := ix.Write(someRecords()...); err != nil {
		t.Fatal(err)
	}
	ix = reopen(t, ix)
	const sum, id = "\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x01\xb2\xc8\x98\x94\x5f\x11\xe1\xa5\x23\x00\x00\x00\x00\x00\x01"
	want := map[string]string{
		"v": "1",
		"f/" + sum: `{"md5":"AAAAAAAAAAAAAAAAAAAAAA==","sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","size":7,` +
			`"added":"2001-09-09T01:46:40Z","stamp":{"mtime":1,"ctime":2,"inode":3}}`,
		"u/" + sum:                     "\x0d\xe0\xb6\xb3\xa7\x64\x00\x05\x0d\xe0\xb6\xb3\xa7\x64\x00\x06\x01",
		"i/" + id:                      `{"source":"joyent","sums":["0102030000000000000000000000000000000000"]}`,
		"a/a key":                      sum,
		"c/" + id + "\x00\x00\x01\x2c": `{"SHA1":"0000000000000000000000000000000000000000","Size":7,"Compression":""}`,
		"n/kind\x00a key":              "a note",
	}
	if d := cmp.Diff(want, contents(t, ix.each)); d != "" {
		t.Error(d)
	}
	records := someRecords()
	check := func(again ...Change) {
		t.Helper()
		for _, c := range again {
			if !slices.ContainsFunc(records, func(r Change) bool { return r.key == c.key && string(r.value) == string(c.value) }) {
				t.Errorf("read: %q %q", c.key, c.value)
			}
		}
		if len(again) != 1 {
			t.Errorf("%d records", len(again))
		}
	}
	var files, uses, aliases, images, facts []Change
	if err := ix.Files(func(f File) { files = append(files, PutFile(f)) }); err != nil {
		t.Error(err)
	}
	if err := ix.Uses(func(sum verify.Sum, u Use) { uses = append(uses, PutUse(sum, u)) }); err != nil {
		t.Error(err)
	}
	if err := ix.Aliases(func(key string, sum verify.Sum) { aliases = append(aliases, PutAlias(key, sum)) }); err != nil {
		t.Error(err)
	}
	byID, err := ix.Images()
	for id, im := range byID {
		images = append(images, PutImage(id, im))
	}
	known, failed := ix.Facts()
	for id, f := range known {
		facts = append(facts, PutFacts(id, f))
	}
	if err != nil || failed != nil {
		t.Error(err, failed)
	}
	check(files...)
	check(uses...)
	check(aliases...)
	check(images...)
	check(facts...)

	s := verify.Sum([]byte(sum))
	if err := ix.Write(DropFile(s), DropUse(s), DropImage(uuid.MustParse(testID(1))), DropAlias("a key"), DropAlias("none"), DropNote("kind", "a key")); err != nil {
		t.Fatal(err)
	}
	if left := slices.Sorted(maps.Keys(contents(t, ix.each))); len(left) != 2 {
		t.Errorf("left are %q", left)
	}
	if complete, err := ix.Complete(); !complete || err != nil {
		t.Errorf("Complete = %t, %v", complete, err)
	}
}

// BenchmarkFiles reads the records of 10,000 files, and of as many images.
func BenchmarkFiles(b *testing.B) {
	ix := open(b, Options{})
	var all []Change
	for i := range 10_000 {
		d := verify.Digests{Size: int64(i), Format: "gzip"}
		binary.BigEndian.PutUint32(d.SHA1[:], uint32(i))
		id := uuid.UUID{byte(i >> 8), byte(i)}
		all = append(all, PutFile(File{Info: Info{Digests: d, ModTime: time.Unix(1e9, 0), Added: time.Unix(1e9, 5)}, Stamp: &Stamp{1e18, 1e18, 7}}),
			PutImage(id, &Image{Source: "source", Sums: []verify.Sum{d.SHA1}}))
	}
	if err := ix.Write(all...); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		files := 0
		if err := ix.Files(func(File) { files++ }); err != nil || files != 10_000 {
			b.Fatal(files, err)
		}
		if images, err := ix.Images(); err != nil || len(images) != 10_000 {
			b.Fatal(len(images), err)
		}
	}
}
