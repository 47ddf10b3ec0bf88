package index

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// versions gives the version of each of a list's entries in the index: it changes
// with each write.
func versions(t testing.TB, ix *Index, source string) map[string]uint64 {
	all := make(map[string]uint64)
	err := ix.db.View(func(txn *badger.Txn) error {
		for _, prefix := range []string{packPrefix(source), manifestPrefix(source)} {
			o := badger.DefaultIteratorOptions
			o.Prefix = []byte(prefix)
			it := txn.NewIterator(o)
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				all[string(it.Item().Key())] = it.Item().Version()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func raws(images []manifest.Manifest) []string {
	var all []string
	for _, m := range images {
		all = append(all, string(m.Raw()))
	}
	return all
}

func TestListings(t *testing.T) {
	ix := open(t, Options{})
	if got, err := ix.Listings(); err != nil || len(got) != 0 {
		t.Fatalf("of a new store: %v, %v", got, err)
	}
	m := someManifests(t, 10)
	a := manifest.Listing{
		Source: "a", Kind: "imgapi", Images: m[:5], Unlisted: m[5:7],
		ETag: `"x"`, LastModified: "yesterday", Fetched: time.Date(2022, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	b := manifest.Listing{Source: "b", Images: m[3:9], From: "http://b dev"}
	b.Refusals.Refused, b.Refusals.First = 7, []manifest.Refusal{{UUID: m[0].UUID, Reason: "no name"}, {Skip: true, Reason: "nuked"}}
	check := func(want ...manifest.Listing) {
		t.Helper()
		got, err := ix.Listings()
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d lists, %v; want %d", len(got), err, len(want))
		}
		for i, w := range want {
			g := got[i]
			if d := cmp.Diff(raws(w.Images), raws(g.Images)); d != "" {
				t.Errorf("%s, images: %s", w.Source, d)
			}
			if d := cmp.Diff(raws(w.Unlisted), raws(g.Unlisted)); d != "" {
				t.Errorf("%s, unlisted: %s", w.Source, d)
			}
			if g.Source != w.Source || g.Kind != w.Kind || g.ETag != w.ETag || g.LastModified != w.LastModified || !g.Fetched.Equal(w.Fetched) ||
				g.From != w.From || !g.Refusals.Equal(w.Refusals) {
				t.Errorf("%s: got %+v", w.Source, g)
			}
			for j := range g.Images {
				if !bytes.Equal(g.Images[j].V2(), w.Images[j].V2()) || g.Images[j].UUID != w.Images[j].UUID {
					t.Errorf("%s, image %d is read otherwise", w.Source, j)
				}
			}
		}
	}
	save := func(l manifest.Listing) {
		t.Helper()
		if err := ix.SaveListing(l); err != nil {
			t.Fatal(err)
		}
	}
	save(b)
	save(a)
	check(a, b)

	changed := testManifest(t, 1, `"description":"other",`)
	a.Images = []manifest.Manifest{m[0], changed, m[2], m[5]} // 3 and 4 are gone, 5 is listed now
	a.Unlisted = m[6:7]
	a.ETag = ""
	save(a)
	check(a, b)
	if err := ix.SaveUnlisted("b", m[9]); err != nil {
		t.Fatal(err)
	}
	if err := ix.SaveUnlisted("new", m[0]); err != nil {
		t.Fatal(err)
	}
	b.Unlisted = m[9:10]
	check(a, b, manifest.Listing{Source: "new", Unlisted: m[:1]})

	ix = reopen(t, ix)
	check(a, b, manifest.Listing{Source: "new", Unlisted: m[:1]})
	save(manifest.Listing{Source: "b"})
	check(a, manifest.Listing{Source: "b"}, manifest.Listing{Source: "new", Unlisted: m[:1]})
}

func TestFacts(t *testing.T) {
	ix := open(t, Options{})
	id := uuid.MustParse(testID(1))
	want := map[manifest.FileID]manifest.Facts{
		{Image: id, Index: 0}:   {SHA1: verify.Sum{1}, Size: 1, Compression: "gzip"},
		{Image: id, Index: 300}: {SHA1: verify.Sum{2}, Size: 1 << 40, Compression: "none"},
	}
	for id, f := range want {
		if err := ix.Write(PutFacts(id, manifest.Facts{Size: 7})); err != nil {
			t.Fatal(err)
		}
		if err := ix.Write(PutFacts(id, f)); err != nil {
			t.Fatal(err)
		}
	}
	ix = reopen(t, ix)
	got, err := ix.Facts()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The record of a file is either read as it was written or refused.
func FuzzRecord(f *testing.F) {
	good := PutFile(File{Info: Info{Added: time.Now()}, Stamp: &Stamp{Modified: 1, Changed: 2, Inode: 3}})
	f.Add([]byte(good.key[len(keyFile):]), good.value)
	f.Add([]byte("x"), []byte("{}"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		file, err := readFile(key, value)
		if err != nil {
			return
		}
		p := PutFile(file)
		again, err := readFile([]byte(p.key[len(keyFile):]), p.value)
		if err != nil || again.Info != file.Info {
			t.Fatalf("%+v was read again as %+v, %v", file, again, err)
		}
	})
}

func BenchmarkListings(b *testing.B) {
	ix := open(b, Options{})
	l := manifest.Listing{Source: "a", Images: someManifests(b, 100_000)}
	b.Run("first save of 100000", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i++
			l.Source = fmt.Sprint(i)
			if err := ix.SaveListing(l); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("save of 100000 unchanged", func(b *testing.B) {
		for b.Loop() {
			if err := ix.SaveListing(l); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a source has no more is told apart from what it lists and what it gave by
// uuid, until it is one of these again.
func TestListingRetired(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	ix := open(t, Options{Dir: dir})
	m := someManifests(t, 3)
	save := func(l manifest.Listing) {
		t.Helper()
		l.Source = "a"
		if err := ix.SaveListing(l); err != nil {
			t.Fatal(err)
		}
	}
	want := func(images, unlisted, retired []manifest.Manifest) {
		t.Helper()
		got, err := ix.Listings()
		if err != nil || len(got) != 1 {
			t.Fatalf("%d listings, %v", len(got), err)
		}
		for _, d := range []string{
			cmp.Diff(raws(images), raws(got[0].Images)),
			cmp.Diff(raws(unlisted), raws(got[0].Unlisted)),
			cmp.Diff(raws(retired), raws(got[0].Retired)),
		} {
			if d != "" {
				t.Error(d)
			}
		}
	}
	save(manifest.Listing{Images: m[:1], Unlisted: m[1:2], Retired: m[2:]})
	want(m[:1], m[1:2], m[2:])
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	ix = open(t, Options{Dir: dir})
	want(m[:1], m[1:2], m[2:])
	save(manifest.Listing{Images: m[2:], Retired: m[:1]})
	want(m[2:], nil, m[:1])
}

// Two that save lists of one source at the same time, as two generations of the
// catalogue may at a reload, leave the list of one of them, whole.
func TestListingSavedByTwo(t *testing.T) {
	ix := open(t, Options{})
	m := someManifests(t, 1500)
	lists := map[string]manifest.Listing{
		"one": {Source: "a", ETag: "one", Images: m[:1000]},
		"two": {Source: "a", ETag: "two", Images: m[500:]},
	}
	for range 10 {
		var saving sync.WaitGroup
		for _, l := range lists {
			saving.Go(func() {
				if err := ix.SaveListing(l); err != nil {
					t.Error(err)
				}
			})
		}
		saving.Wait()
		got, err := ix.Listings()
		if err != nil || len(got) != 1 {
			t.Fatalf("%d lists, %v", len(got), err)
		}
		if want := lists[got[0].ETag]; !slices.EqualFunc(got[0].Images, inOrder(want.Images), func(a manifest.Manifest, b *manifest.Manifest) bool {
			return a.UUID == b.UUID
		}) {
			t.Fatalf("%d images are saved under the validators of list %s, which has %d", len(got[0].Images), got[0].ETag, len(want.Images))
		}
	}
}

// What a source told by uuid of an image of its list is kept beside what the list says.
func TestListingDetails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	ix := open(t, Options{Dir: dir})
	entry := someManifests(t, 1)[0]
	detail, err := manifest.Parse(bytes.Replace(entry.Raw(), []byte("{"), []byte(`{"description":"more",`), 1), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := ix.SaveListing(manifest.Listing{Source: "a", Images: []manifest.Manifest{entry}, Details: []manifest.Manifest{detail}}); err != nil {
			t.Fatal(err)
		}
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
		ix = open(t, Options{Dir: dir})
		got, err := ix.Listings()
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		if diff := cmp.Diff(raws([]manifest.Manifest{entry}), raws(got[0].Images)) + cmp.Diff(raws([]manifest.Manifest{detail}), raws(got[0].Details)); diff != "" {
			t.Error(diff)
		}
	}
}
