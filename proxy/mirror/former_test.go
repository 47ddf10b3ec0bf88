package mirror

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// formerOptions are a mirror on a copy of testdata/former, which asks no source.
func formerOptions(t *testing.T) Options {
	t.Helper()
	const url = "http://127.0.0.1:29871"
	o := testOptions(t, Source{Server: upstream.Options{Name: "source", URL: url, Kind: "imgapi"}, URL: url})
	o.Sources.Offline = true
	copyFolder(t, o.Cache.Dir, "testdata/former/data")
	return o
}

func copyFolder(t *testing.T, to, from string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// records are the files of published and imported images.
func records(t *testing.T, o Options) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, folder := range []string{"published", "imported"} {
		entries, err := os.ReadDir(filepath.Join(o.Cache.Dir, folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(o.Cache.Dir, folder, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all[folder+"/"+e.Name()] = string(text)
		}
	}
	return all
}

func idsOf(all ...int) (ids []uuid.UUID) {
	for _, n := range all {
		ids = append(ids, upstreamtest.ID(n))
	}
	return ids
}

// A data folder of the former layout opens in silence, with all that it has: lists, pins, published
// and imported images, an unfinished download. Another opening changes nothing.
func TestFormerFolder(t *testing.T) {
	o := formerOptions(t)
	var was map[string]string
	for range 3 {
		log := logged(&o)
		m, stop := runMirror(t, o)
		if got := slices.SortedFunc(maps.Keys(listed(m)), compareIDs); !slices.Equal(got, idsOf(1, 2, 3, 4, 5, 6)) {
			t.Errorf("listed are %v", got)
		}
		if got := slices.SortedFunc(maps.Keys(m.Pinned()), compareIDs); !slices.Equal(got, idsOf(1, 3)) {
			t.Errorf("pinned are %v", got)
		}
		publishes(t, m, o, idsOf(5, 6)...)
		if from, ok := m.Provenance(upstreamtest.ID(4)); !ok || from.Bundle != "38709d4a-592d-4c32-bdf8-83f696e3841c" || from.Created.IsZero() {
			t.Errorf("imported from %+v", from)
		}
		for _, id := range idsOf(1, 4, 5, 6) {
			if !cached(t, m, id) || !m.Kept(id) {
				t.Errorf("image %s: on disk: %t, kept: %t", id, cached(t, m, id), m.Kept(id))
			}
		}
		if left := m.store.Unfinished(cache.Blob{Want: wantOf(t, m, upstreamtest.ID(2))}); left != 30000 {
			t.Errorf("of the unfinished download are %d bytes", left)
		}
		now := records(t, o)
		if was != nil {
			if diff := cmp.Diff(was, now); diff != "" {
				t.Errorf("records (-before +after):\n%s", diff)
			}
		}
		was = now
		stop()
		for _, level := range []string{"level=WARN", "level=ERROR"} {
			if lines := log.lines(level); len(lines) > 0 {
				t.Errorf("log:\n%s", strings.Join(lines, ""))
			}
		}
	}
	if len(was) != 3 {
		t.Errorf("records are %v", slices.Sorted(maps.Keys(was)))
	}

	// The unfinished download goes on at its offset.
	server, source := newSource(t)
	file := upstreamtest.Bytes(2, 60000)
	if err := server.Add(upstreamtest.Manifest(upstreamtest.ID(2), "image-2", "1.0.0", nil, file), file); err != nil {
		t.Fatal(err)
	}
	o.Sources = Sources{List: []Source{source}}
	m, _ := runMirror(t, o)
	if _, err := m.bringFile(t.Context(), entryOf(t, m, upstreamtest.ID(2)), 0, cache.Client, cache.ByClient, nil); err != nil {
		t.Fatal(err)
	}
	if n := server.Bytes("/file"); n != 30000 {
		t.Errorf("the source was asked for %d bytes", n)
	}
}

// A process that ends while it takes a former folder over loses nothing; an image that is unpublished
// afterwards stays so, although the saved list is one of before.
func TestFormerFolderCutShort(t *testing.T) {
	o := formerOptions(t)
	half := filepath.Join(o.Cache.Dir, "published.new")
	err := errors.Join(os.Mkdir(half, 0o755), os.WriteFile(filepath.Join(half, upstreamtest.ID(5).String()+".json"), []byte("{"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	m, stop := runMirror(t, o)
	publishes(t, m, o, idsOf(5, 6)...)
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", half, err)
	}
	if _, err := m.Unpublish(t.Context(), upstreamtest.ID(6)); err != nil {
		t.Fatal(err)
	}
	stop()
	index := filepath.Join(o.Cache.Dir, "index")
	if err := os.RemoveAll(index); err != nil {
		t.Fatal(err)
	}
	copyFolder(t, index, "testdata/former/data/index")
	m, _ = runMirror(t, o)
	if _, err := m.Check(t.Context(), "published"); err != nil { // a start does so by and by
		t.Fatal(err)
	}
	publishes(t, m, o, idsOf(5)...)
}

// What a former folder has lost counts as it did: one of the index, the saved list in it, and the
// copies of manifests is enough. An image of the list without a file was unpublished.
func TestFormerFolderDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		lost []string
		want []uuid.UUID
	}{
		"index":  {[]string{"index"}, idsOf(5, 6)},
		"copies": {[]string{"manifests"}, idsOf(5, 6)},
		"copy":   {[]string{"manifests/" + upstreamtest.ID(6).String() + ".json"}, idsOf(5, 6)},
		"file":   {[]string{pathOf(Options{}, sha1.Sum(upstreamtest.Bytes(6, 4000)))}, idsOf(5)}, // which takes the copy along
	} {
		t.Run(name, func(t *testing.T) {
			o := formerOptions(t)
			for _, path := range c.lost {
				path = filepath.Join(o.Cache.Dir, path)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				m, stop := runMirror(t, o)
				if _, err := m.Check(t.Context(), "published"); err != nil { // a start does so by and by
					t.Fatal(err)
				}
				publishes(t, m, o, c.want...)
				if name == "copies" && !copied(o, upstreamtest.ID(6)) {
					t.Error("no copy was made anew")
				}
				stop()
			}
		})
	}
}

func compareIDs(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

// wantOf is the file of an image.
func wantOf(t *testing.T, m *Mirror, id uuid.UUID) verify.Want {
	t.Helper()
	f := entryOf(t, m, id).Manifest.Files[0]
	return verify.Want{SHA1: f.SHA1, Size: f.Size, MD5: f.MD5}
}
