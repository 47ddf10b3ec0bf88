package index

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// noise is n bytes that are the same for the same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// fakeRoom is what a disk says that it has left.
type fakeRoom struct{ atomic.Pointer[disk.Room] }

func newRoom() *fakeRoom {
	r := new(fakeRoom)
	r.Store(&disk.Room{Free: 1 << 40})
	return r
}

func (r *fakeRoom) ask() (disk.Room, error) { return *r.Load(), nil }

// open opens an index that the test's end closes.
func open(t testing.TB, o Options) *Index {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "index")
	}
	o.Logger = testLog(t)
	ix, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() }) //nolint:errcheck // most tests have closed it
	return ix
}

func mustClose(t testing.TB, ix *Index) {
	t.Helper()
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
}

func reopen(t testing.TB, ix *Index) *Index {
	t.Helper()
	mustClose(t, ix)
	return open(t, Options{Dir: ix.dir})
}

func wantError(t testing.TB, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
}

func testID(n int) string { return fmt.Sprintf("01b2c898-945f-11e1-a523-%012x", n) }

func testManifest(t testing.TB, n int, more string) manifest.Manifest {
	t.Helper()
	raw := fmt.Sprintf(`{"v":2, "uuid": %q,"name":"t<e>st","version":"1.0",%s
 "state":"active","disabled":false,"public":true,"published_at":"2012-05-02T15:15:24Z","type":"zone-dataset","os":"smartos",
 "files":[{"sha1":"da39a3ee5e6b4b0d3255bfef95601890afd80709","size":1,"compression":"none"}]}`, testID(n), more)
	m, err := manifest.Parse([]byte(raw), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func someManifests(t testing.TB, n int) []manifest.Manifest {
	all := make([]manifest.Manifest, n)
	for i := range all {
		all[i] = testManifest(t, i, "")
	}
	return all
}

// largeManifest has a description of n bytes.
func largeManifest(t testing.TB, id, n int) manifest.Manifest {
	return testManifest(t, id, `"description":"`+fmt.Sprintf("%x", noise(byte(id), n/2))+`",`)
}

// contents gives all that is in an index.
func contents(t testing.TB, each func(string, func(key, value []byte) error) error) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := each("", func(key, value []byte) error {
		all[string(key)] = string(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// namesIn lists what is in a folder.
func namesIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// frozen is the folder of an index as it is on disk at one moment.
type frozen map[string]frozenFile

type frozenFile struct {
	data string // without the zeros at its end
	size int64
}

// freeze takes what is in dir, as a kill -9 would leave it.
func freeze(t testing.TB, dir string) frozen {
	t.Helper()
	all := make(frozen)
	for _, name := range namesIn(t, dir) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = frozenFile{string(bytes.TrimRight(data, "\x00")), int64(len(data))}
	}
	return all
}

// thaw makes the folder anew.
func (f frozen) thaw(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "index")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, file := range f {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(file.data), 0o644), os.Truncate(path, file.size)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// someRecords is one of each kind.
func someRecords() []Change {
	sum := verify.Sum{1, 2, 3}
	info := Info{Digests: verify.Digests{SHA1: sum, Size: 7}, Added: time.Unix(1e9, 0).UTC()}
	id := uuid.MustParse(testID(1))
	note, err := PutNote("kind", "a key", []byte("a note"))
	if err != nil {
		panic(err)
	}
	return []Change{
		note,
		PutFile(File{Info: info, Stamp: &Stamp{Modified: 1, Changed: 2, Inode: 3}}),
		PutUse(sum, Use{Used: time.Unix(1e9, 5), Checked: time.Unix(1e9, 6), Idle: true}),
		PutImage(id, &Image{Source: "joyent", Sums: []verify.Sum{sum}}), PutAlias("a key", sum),
		PutFacts(manifest.FileID{Image: id, Index: 300}, manifest.Facts{Size: 7}), PutComplete(),
	}
}

// fill gives an index that has a table, a log and large values: its folder, as a kill leaves it, and what it holds.
func fill(t testing.TB) (frozen, map[string]string) {
	t.Helper()
	ix := open(t, Options{})
	list := manifest.Listing{Source: "joyent", Kind: "imgapi", ETag: `"x"`, Images: someManifests(t, 400)}
	save := func() {
		t.Helper()
		if err := errors.Join(ix.SaveListing(list), ix.SaveUnlisted("other", largeManifest(t, 2000, 1400<<10))); err != nil {
			t.Fatal(err)
		}
	}
	save()
	ix = reopen(t, ix) // makes a table
	list.Images = list.Images[2:]
	save()
	if err := errors.Join(ix.Write(someRecords()...), ix.Sync()); err != nil {
		t.Fatal(err)
	}
	f := freeze(t, ix.dir)
	kinds := make(map[string]bool)
	for name := range f {
		kinds[strings.TrimLeft(name, "0123456789")] = true
	}
	for _, kind := range []string{".mem", ".sst", ".vlog", "MANIFEST", "KEYREGISTRY", "DISCARD"} {
		if !kinds[kind] {
			t.Errorf("the index has no %s", kind)
		}
	}
	return f, contents(t, ix.each)
}
