package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// frozen is a data folder as it is on disk at one moment.
type frozen map[string]frozenFile

type frozenFile struct {
	data []byte // without the zeros at its end
	size int64
}

// freeze takes what is in dir, as a kill -9 would leave it.
func freeze(t testing.TB, dir string) frozen {
	t.Helper()
	all := make(frozen)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = frozenFile{bytes.Clone(bytes.TrimRight(data, "\x00")), int64(len(data))}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// thaw makes the folder anew.
func (f frozen) thaw(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, file := range f {
		path := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, file.data, 0o644), os.Truncate(path, file.size))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"files", "partial", "manifests"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// kept is a folder with three images that are cached, of which the first is listed, the
// second in no list, and the third's manifest does not tell what its file is called.
type kept struct {
	folder frozen
	blobs  []Blob
	data   [][]byte
}

// keepImages makes such a folder whose index has a table, a log and large values.
func keepImages(t testing.TB) kept {
	t.Helper()
	var k kept
	for i := range 3 {
		data := noise(byte(i+1), 40_000)
		k.data, k.blobs = append(k.data, data), append(k.blobs, imageBlob(t, testID(i), data))
	}
	last := &k.blobs[2]
	raw := strings.Replace(string(last.Manifest.Raw()), `"sha1":"`+last.Want.SHA1.String()+`",`, "", 1)
	m, err := manifest.Parse([]byte(raw), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	last.Manifest, last.Key, last.Want.SHA1, last.Want.MD5 = m, "third", [20]byte{}, md5Of(k.data[2])

	s := openStore(t, Options{})
	list := manifest.Listing{Source: "joyent", Kind: "imgapi", ETag: `"x"`, Images: append(someManifests(t, 400)[3:], k.blobs[0].Manifest, k.blobs[2].Manifest)}
	big := []byte(strings.Replace(string(k.blobs[1].Manifest.Raw()), `"name"`, `"description":"`+fmt.Sprintf("%x", noise(9, 700<<10))+`","name"`, 1))
	large, err := manifest.Parse(big, manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	save := func() {
		t.Helper()
		if err := errors.Join(s.Lists().SaveListing(list), s.Lists().SaveUnlisted("other", large)); err != nil {
			t.Fatal(err)
		}
	}
	save()
	wantData(t, s, k.blobs[0], k.data[0], Miss, always("joyent", k.data[0], reply{}))
	s.Idle()
	closeStore(t, s) // makes a table
	s = reopen(t, s)
	list.Images = list.Images[2:]
	save()
	for i := 1; i < 3; i++ {
		wantData(t, s, k.blobs[i], k.data[i], Miss, always("joyent", k.data[i], reply{}))
	}
	s.Idle()
	k.folder = freeze(t, s.o.Dir)
	return k
}

// want fails the test unless each image is served without a source, and listed.
func (k kept) want(t testing.TB, s *Store) {
	t.Helper()
	listings, err := s.Lists().Listings()
	if err != nil {
		t.Errorf("Listings: %v", err)
	}
	var known []uuid.UUID
	for _, l := range listings {
		if l.Source == "joyent" {
			for _, m := range slices.Concat(l.Images, l.Unlisted, l.Retired) {
				known = append(known, m.UUID)
			}
		}
	}
	for i, b := range k.blobs {
		wantData(t, s, b, k.data[i], Hit)
		if !slices.Contains(known, b.Image) {
			t.Errorf("image %d is in no saved list of its source", i)
		}
	}
}

// Whatever is damaged in the index, and wherever: the store opens, and images that are
// cached are served with their source down, now and after the next start.
func TestIndexDamaged(t *testing.T) {
	k := keepImages(t)
	kinds := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(k.folder)) {
		if filepath.Dir(name) != "index" {
			continue
		}
		kind := strings.TrimLeft(filepath.Base(name), "0123456789")
		kinds[kind] = true
		file := k.folder[name]
		type damage struct {
			what string
			data []byte
			size int64
		}
		damages := []damage{
			{"emptied", nil, 0},
			{"cut to 7 bytes", file.data[:min(7, len(file.data))], 7},
			{"zeroed", nil, file.size},
			{"of noise", noise(77, 5000), 5000},
		}
		for _, at := range []int{0, 9, len(file.data) / 3, len(file.data) * 9 / 10, len(file.data) - 1} {
			if at < 0 || at >= len(file.data) {
				continue
			}
			flipped := bytes.Clone(file.data)
			flipped[at] ^= 0x41
			page := bytes.Clone(file.data)
			clear(page[at/4096*4096 : min(len(page), at/4096*4096+4096)])
			damages = append(damages,
				damage{fmt.Sprintf("flipped at %d", at), flipped, file.size},
				damage{fmt.Sprintf("page of %d zeroed", at), page, file.size},
				damage{fmt.Sprintf("cut at %d", at), file.data[:at], int64(at)})
		}
		for _, d := range damages {
			t.Run(kind+" "+d.what, func(t *testing.T) {
				t.Parallel()
				folder := maps.Clone(k.folder)
				folder[name] = frozenFile{d.data, d.size}
				s := openStore(t, Options{Dir: folder.thaw(t)})
				k.want(t, s)
				if err := s.Lists().SaveUnlisted("joyent", testManifest(t, testID(999), nil)); err != nil {
					t.Errorf("a write: %v", err)
				}
				closeStore(t, s)
				k.want(t, reopen(t, s))
			})
		}
	}
	for _, kind := range []string{".mem", ".sst", ".vlog", "MANIFEST", "KEYREGISTRY", "DISCARD"} {
		if !kinds[kind] {
			t.Errorf("the index has no %s", kind)
		}
	}
}
