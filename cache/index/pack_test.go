package index

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/klauspost/compress/s2"

	"imgmirror/manifest"
)

// manyManifests gives n small manifests in order of their uuids.
func manyManifests(t testing.TB, n int) []manifest.Manifest {
	t.Helper()
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, `,{"v":2,"uuid":%q,"name":"many","version":"1.0","type":"zone-dataset","os":"smartos","public":true,`+
			`"state":"active","published_at":"2012-05-02T15:15:24Z","future":{"number":%d},"files":[{"size":1,"compression":"none"}]}`, testID(i), i)
	}
	images, skipped, err := manifest.ParseList([]byte("["+strings.TrimPrefix(list.String(), ",")+"]"), manifest.ParseOptions{})
	if err != nil || len(skipped) > 0 {
		t.Fatal(err, skipped)
	}
	return images
}

func mustSave(t testing.TB, ix *Index, l manifest.Listing) {
	t.Helper()
	if err := ix.SaveListing(l); err != nil {
		t.Fatal(err)
	}
}

// wantImages fails unless source's saved list has images, byte for byte.
func wantImages(t testing.TB, ix *Index, source string, images []manifest.Manifest) {
	t.Helper()
	l, err := ix.Listing(source)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(raws(images), raws(l.Images)); d != "" {
		t.Error(d)
	}
}

// An image that comes, changes or goes costs the packs that it is in, and no other.
func TestPacksThatStay(t *testing.T) {
	ix := open(t, Options{})
	m := manyManifests(t, 3000)
	written := func(images []manifest.Manifest) (gone, news int) {
		t.Helper()
		before := versions(t, ix, "a")
		mustSave(t, ix, manifest.Listing{Source: "a", Images: images})
		after := versions(t, ix, "a")
		for key, version := range after {
			if before[key] != version {
				news++
			}
			delete(before, key)
		}
		wantImages(t, ix, "a", images)
		return len(before), news
	}
	_, all := written(m)
	if all < 10 || all > 60 {
		t.Fatalf("%d packs of %d manifests", all, len(m))
	}
	if gone, news := written(m); gone+news != 0 {
		t.Errorf("the same list: %d packs gone, %d written", gone, news)
	}
	less := slices.Delete(slices.Clone(m), 1500, 1501)
	if gone, news := written(less); gone > 1 || news != 1 {
		t.Errorf("one image less: %d packs gone, %d written", gone, news)
	}
	if gone, news := written(m); gone > 1 || news != 1 {
		t.Errorf("one image more: %d packs gone, %d written", gone, news)
	}
	changed := slices.Clone(m)
	changed[7] = testManifest(t, 7, `"description":"other",`)
	if gone, news := written(changed); gone != 0 || news != 1 {
		t.Errorf("one image changed: %d packs gone, %d written", gone, news)
	}
	shuffled := slices.Clone(changed)
	slices.Reverse(shuffled)
	mustSave(t, ix, manifest.Listing{Source: "a", Images: shuffled})
	wantImages(t, ix, "a", changed)
	if gone, news := written(nil); gone != all || news != 0 {
		t.Errorf("no images: %d packs gone, %d written", gone, news)
	}
}

// asBeforePacks puts l into the index as versions did that knew no packs.
func asBeforePacks(t testing.TB, ix *Index, l manifest.Listing) {
	t.Helper()
	for kind, images := range map[byte][]manifest.Manifest{
		entryListed: l.Images, entryUnlisted: l.Unlisted, entryRetired: l.Retired,
	} {
		for _, m := range images {
			err := ix.Write(Change{manifestPrefix(l.Source) + string(m.UUID[:]), slices.Concat([]byte{kind}, m.Raw())})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := ix.Write(Change{keyListing + l.Source, []byte(`{"kind":"imgapi"}`)}); err != nil {
		t.Fatal(err)
	}
}

// The index of an earlier version is read as it is; the next save makes packs of
// it, and wherever that is cut short nothing is missing.
func TestIndexBeforePacks(t *testing.T) {
	m := manyManifests(t, 600)
	l := manifest.Listing{Source: "a", Kind: "imgapi", Images: m[:500], Unlisted: m[500:550], Retired: m[550:]}
	check := func(ix *Index) {
		t.Helper()
		got, err := ix.Listings()
		if err != nil || len(got) != 1 || got[0].Kind != "imgapi" {
			t.Fatalf("%d listings, %v", len(got), err)
		}
		for _, d := range []string{
			cmp.Diff(raws(l.Images), raws(got[0].Images)), cmp.Diff(raws(l.Unlisted), raws(got[0].Unlisted)), cmp.Diff(raws(l.Retired), raws(got[0].Retired)),
		} {
			if d != "" {
				t.Fatal(d)
			}
		}
	}
	ix := open(t, Options{})
	asBeforePacks(t, ix, l)
	check(ix)
	mustSave(t, ix, l)
	for key := range versions(t, ix, "a") {
		if strings.HasPrefix(key, keyManifest) {
			t.Fatalf("%q is still there", key)
		}
	}
	check(ix)
	asBeforePacks(t, ix, l) // the packs are there and the old entries not yet gone
	check(ix)
	ix = reopen(t, ix)
	check(ix)

	// An entry of its own is newer than any pack.
	newer := testManifest(t, 520, `"description":"newer",`)
	if err := ix.SaveUnlisted("a", newer); err != nil {
		t.Fatal(err)
	}
	if err := ix.SaveUnlisted("a", m[3]); err != nil {
		t.Fatal(err)
	}
	l.Images = slices.Delete(slices.Clone(l.Images), 3, 4)
	l.Unlisted = slices.Insert(slices.Clone(l.Unlisted), 0, m[3])
	l.Unlisted[21] = newer
	check(ix)
	mustSave(t, ix, l)
	check(ix)
}

// A crash in the middle of a save leaves packs of both lists, which overlap: what
// is in both lists is there, once.
func TestPacksOfTwoLists(t *testing.T) {
	m := manyManifests(t, 1000)
	for name, lists := range map[string][2][]manifest.Manifest{
		"the ends go":   {m, m[100:900]},
		"the ends come": {m[100:900], m},
		"every third":   {m, slices.DeleteFunc(slices.Clone(m), func(m manifest.Manifest) bool { return m.UUID[15]%3 == 0 })},
		"an end goes":   {m, slices.DeleteFunc(slices.Clone(m), func(m manifest.Manifest) bool { return ends(m.UUID) })},
		"an end comes":  {slices.DeleteFunc(slices.Clone(m), func(m manifest.Manifest) bool { return ends(m.UUID) }), m},
	} {
		t.Run(name, func(t *testing.T) {
			both := raws(lists[0])
			of := make(map[string]bool)
			for _, raw := range raws(lists[1]) {
				of[raw] = true
			}
			both = slices.DeleteFunc(both, func(raw string) bool { return !of[raw] })
			var news []Change
			for p := range packs("a", entryListed, inOrder(lists[1])) {
				news = append(news, Change{p.key, p.value()})
			}
			for n := range news {
				ix := open(t, Options{})
				mustSave(t, ix, manifest.Listing{Source: "a", Images: lists[0]})
				for _, p := range slices.Backward(news[n:]) {
					if err := ix.Write(p); err != nil {
						t.Fatal(err)
					}
				}
				l, err := ix.Listing("a")
				if err != nil {
					t.Fatal(err)
				}
				got := raws(l.Images)
				if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
					t.Fatalf("%d of %d packs written: the list is not in order", len(news)-n, len(news))
				}
				left := slices.DeleteFunc(slices.Clone(both), func(raw string) bool { _, found := slices.BinarySearch(got, raw); return found })
				if len(left) > 0 {
					t.Fatalf("%d of %d packs written: %d manifests of both lists are missing", len(news)-n, len(news), len(left))
				}
				mustClose(t, ix)
			}
		})
	}
}

// A pack that is not what it was is left out, whatever has become of it: it
// never gives manifests that no source sent.
func TestDamagedPack(t *testing.T) {
	ix := open(t, Options{})
	m := manyManifests(t, 1000)
	mustSave(t, ix, manifest.Listing{Source: "a", Images: m})
	keys := slices.Sorted(maps.Keys(versions(t, ix, "a")))
	var good []byte
	err := ix.each(keys[1], func(_, value []byte) error { good = bytes.Clone(value); return nil })
	if err != nil || len(good) == 0 {
		t.Fatal(len(good), err)
	}
	first := func(key string) int { // of the pack's manifests in m
		id, err := uuid.FromBytes([]byte(key[len(packPrefix("a"))+1:]))
		if err != nil {
			t.Fatal(err)
		}
		return slices.IndexFunc(m, func(m manifest.Manifest) bool { return m.UUID == id })
	}
	rest := slices.Delete(slices.Clone(m), first(keys[1]), first(keys[2]))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 0x20
	content, err := s2.Decode(nil, good[sha256.Size:])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, []byte(`"owner":"`)) + len(`"owner":"`)
	content[at] ^= 1 // between two digits
	other := append(bytes.Clone(good[:sha256.Size]), s2.Encode(nil, content)...)
	for name, value := range map[string][]byte{
		"other bytes that are manifests": other, "empty": {}, "a sum alone": good[:32], "half a sum": good[:16], "cut": good[:len(good)-1], "flipped": flipped, "longer": append(bytes.Clone(good), 0),
	} {
		t.Run(name, func(t *testing.T) {
			if err := ix.Write(Change{keys[1], value}); err != nil {
				t.Fatal(err)
			}
			wantImages(t, ix, "a", rest)
			mustSave(t, ix, manifest.Listing{Source: "a", Images: m})
			wantImages(t, ix, "a", m)
		})
	}
}

// Whatever the index gives, unpack finds its way.
func FuzzUnpack(f *testing.F) {
	for p := range packs("a", entryListed, inOrder(manyManifests(f, 3))) {
		f.Add(p.content)
	}
	f.Add([]byte{})
	f.Add([]byte("\x05ab"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if texts, _, err := unpack(content, nil); err == nil {
			t.Fatalf("without a sum: %q", texts)
		}
		p := pack{content: content, sum: sha256.Sum256(content)}
		texts, _, err := unpack(p.value(), make([]byte, 0, 100))
		if err != nil {
			return
		}
		length := 0
		for _, text := range texts {
			if !bytes.Contains(content, text) {
				t.Fatalf("%q is not in %q", text, content)
			}
			length += len(text) + 1 // at least
		}
		if length > len(content) || len(texts) == 0 && len(content) > 0 {
			t.Fatalf("%q of %q", texts, content)
		}
	})
}
