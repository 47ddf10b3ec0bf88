package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/verify"
)

const testUUID = "01b2c898-945f-11e1-a523-af1afbe22822"

// testManifest is a small v2 manifest of one file that holds data. Its white
// space must survive.
func testManifest(t testing.TB, id string, data []byte) manifest.Manifest {
	t.Helper()
	raw := `{"v":2, "uuid": "` + id + `","owner":"352971aa-31ba-496c-9ade-a379feaecd52","name":"t<e>st","version":"1.0",
 "state":"active","disabled":false,"public":true,"published_at":"2012-05-02T15:15:24Z","type":"zone-dataset","os":"smartos",
 "files":[{"sha1":"` + sumOf(data).String() + `","size":` + jsonOf(len(data)) + `,"compression":"none"}]}`
	m, err := manifest.Parse([]byte(raw), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// imageBlob is a blob with a manifest.
func imageBlob(t testing.TB, id string, data []byte) Blob {
	b := blobOf(data)
	b.Image, b.Source, b.Manifest = uuid.MustParse(id), "joyent", testManifest(t, id, data)
	return b
}

// reopen opens the data folder of a store that is closed.
func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	o := s.o
	o.Registerer = prometheus.NewRegistry()
	return openStore(t, o)
}

func TestRestart(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	when := time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)
	wantData(t, s, blobOf(data), data, Miss, always("a", data, reply{modTime: when}))
	s.Idle()
	before, _ := s.Peek(blobOf(data))
	closeStore(t, s)
	s = reopen(t, s)
	after, ok := s.Peek(blobOf(data))
	if !ok || after != before || !after.ModTime.Equal(when) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	wantData(t, s, blobOf(data), data, Hit)
	if s.Stats().Bytes() != int64(len(data)) || s.Stats().Files != 1 {
		t.Errorf("account: %+v, %d files", s.Stats(), s.Stats().Files)
	}
}

// halfway fills a part of data and closes the store.
func halfway(t *testing.T, s *Store, data []byte, part int) {
	t.Helper()
	src := always("a", data, reply{stall: part})
	r, err := s.File(t.Context(), blobOf(data), sources(src))
	if err != nil {
		t.Fatal(err)
	}
	if part > holdBack {
		if _, err := io.ReadFull(r, make([]byte, min(part, len(data)-holdBack))); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
}

func TestResumeAfterRestart(t *testing.T) {
	data := noise(1, 3<<20)
	for _, part := range []int{1, 1000, 2 << 20, len(data) - 1} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, Options{})
			halfway(t, s, data, part)
			s = reopen(t, s)
			if p := s.Partials(); len(p) != 1 || p[0] != (Partial{Sum: sumOf(data), Size: int64(len(data)), Have: int64(part)}) {
				t.Fatalf("Partials = %v, want %d bytes of one", p, part)
			}
			if s.Stats().Bytes() != int64(part) {
				t.Errorf("account: %+v", s.Stats())
			}
			src := &fake{name: "a", data: data}
			wantData(t, s, blobOf(data), data, Miss, src)
			wantAsked(t, src, int64(part))
			synctest.Wait()
			if s.Stats().Bytes() != int64(len(data)) || s.Stats().Booked != 0 || len(s.Partials()) != 0 {
				t.Errorf("account: %+v, partials %v", s.Stats(), s.Partials())
			}
		})
	}
}

// With every source down an unfinished download is as good as none, and stays.
func TestResumeWithSourcesDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		halfway(t, s, data, 500_000)
		s = reopen(t, s)
		began := time.Now()
		_, _, err := get(s, blobOf(data), always("a", nil, reply{err: errDown}))
		wantError(t, err, verify.ErrUnavailable)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
		synctest.Wait()
		if p := s.Partials(); len(p) != 1 || p[0].Have != 500_000 {
			t.Errorf("Partials = %v", p)
		}
		src := &fake{name: "a", data: data}
		wantData(t, s, blobOf(data), data, Miss, src)
		wantAsked(t, src, 500_000)
	})
}

// Bytes that were found are the first suspect: the source is asked again, from the start.
func TestLeftoverIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		halfway(t, s, data, 500_000)
		path := s.dir.partial(blobOf(data).partialName())
		if err := os.WriteFile(path, flip(data, 1000)[:500_000], 0o644); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		gate := make(chan struct{})
		src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{stall: 100_000, gate: gate}
			}
			return reply{}
		}}
		r := open(t, s, blobOf(data), src)
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		close(gate)
		_, err := io.Copy(io.Discard, r)
		wantError(t, err, verify.ErrMismatch)
		synctest.Wait()
		wantData(t, s, blobOf(data), data, Hit)
		wantAsked(t, src, 500_000, 0)
		if a, b := failures(s, "disk", whereDigest), failures(s, "a", whereDigest); a != 1 || b != 0 {
			t.Errorf("failures counted: disk %d, source %d", a, b)
		}
	})
}

// leave puts a partial file into the folder of a closed store.
func leave(t *testing.T, s *Store, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir.partials(), name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLeftoverIsAll(t *testing.T) {
	s := openStore(t, Options{})
	closeStore(t, s)
	data := noise(1, 1<<20)
	leave(t, s, sumOf(data).String(), data)
	s = reopen(t, s)
	wantData(t, s, blobOf(data), data, Miss) // no source is needed

	s.Idle()
	closeStore(t, s)
	data = noise(2, 1<<20)
	leave(t, s, sumOf(data).String(), flip(data, 3))
	s = reopen(t, s)
	src := &fake{name: "a", data: data}
	wantData(t, s, blobOf(data), data, Miss, src)
	wantAsked(t, src, 0)
}

func TestLeftoverIsTooLong(t *testing.T) {
	s := openStore(t, Options{})
	closeStore(t, s)
	data := noise(1, 1<<20)
	leave(t, s, sumOf(data).String(), append(bytes.Clone(data), 1, 2, 3))
	s = reopen(t, s)
	src := &fake{name: "a", data: data}
	wantData(t, s, blobOf(data), data, Miss, src)
	wantAsked(t, src, 0)
	s.Idle()
	if s.Stats().Bytes() != int64(len(data)) {
		t.Errorf("account: %+v", s.Stats())
	}
}

func TestUselessPartials(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1000)
	wantData(t, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
	s.Idle()
	closeStore(t, s)
	keep, old := sumOf([]byte("keep")).String(), sumOf([]byte("old")).String()
	for _, name := range []string{"junk", strings.ToUpper(keep), sumOf(data).String(), keep, old, "key-0"} {
		leave(t, s, name, []byte("some"))
	}
	leave(t, s, sumOf([]byte("empty")).String(), nil)
	if err := os.Mkdir(filepath.Join(s.dir.partials(), "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	longAgo := time.Now().Add(-partialLife - time.Hour)
	if err := os.Chtimes(filepath.Join(s.dir.partials(), old), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	entries, err := os.ReadDir(s.dir.partials())
	if err != nil || len(entries) != 1 || entries[0].Name() != keep || len(s.Partials()) != 1 {
		t.Errorf("partial/ holds %v, %v; Partials = %v", entries, err, s.Partials())
	}

	// What grows stale while the store is open goes by and by.
	if err := os.Chtimes(filepath.Join(s.dir.partials(), keep), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	s.removeStale()
	if entries, _ := os.ReadDir(s.dir.partials()); len(entries) != 0 || len(s.Partials()) != 0 || s.Stats().Unfinished != 0 {
		t.Errorf("partial/ holds %v, Partials = %v, account %+v", entries, s.Partials(), s.Stats())
	}
}

// A process that ends at any step of publishing leaves a folder from which the
// next one serves the file, without a source if the file was complete.
func TestCrashWhilePublishing(t *testing.T) {
	for _, step := range []string{"sync", "digests", "rename", "record", "copy"} {
		t.Run(step, func(t *testing.T) {
			data := noise(1, 1<<20)
			snapshot := t.TempDir()
			s := openStore(t, Options{})
			s.step = func(now string) {
				if now == step {
					copyTree(t, s.o.Dir, snapshot)
				}
			}
			b := imageBlob(t, testUUID, data)
			wantData(t, s, b, data, Miss, &fake{name: "a", data: data})
			s.Idle()
			crashed := openStore(t, Options{Dir: snapshot})
			_, _, err := get(crashed, b)
			if err != nil {
				t.Fatalf("after a crash at %q: %v", step, err)
			}
			crashed.Idle()
			wantData(t, crashed, b, data, Hit)
			if crashed.Stats().Bytes() != int64(len(data)) || crashed.Stats().Files != 1 {
				t.Errorf("account: %+v, %d files", crashed.Stats(), crashed.Stats().Files)
			}
			if _, err := os.Stat(crashed.dir.manifestCopy(b.Image)); err != nil {
				t.Errorf("copy of the manifest: %v", err)
			}
		})
	}
}

// copyTree copies a folder as a crash would leave it.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Error(err)
	}
}

// The index is lost, or broken in some way: files are hashed and taken in again.
func TestIndexLost(t *testing.T) {
	each := func(dir string, f func(path string)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			f(filepath.Join(dir, e.Name()))
		}
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(dir string){
		"removed":   func(dir string) { must(os.RemoveAll(dir)) },
		"emptied":   func(dir string) { each(dir, func(p string) { must(os.Remove(p)) }) },
		"truncated": func(dir string) { each(dir, func(p string) { must(os.Truncate(p, 3)) }) },
		"garbage":   func(dir string) { each(dir, func(p string) { must(os.WriteFile(p, noise(9, 5000), 0o644)) }) },
		"one byte changed": func(dir string) {
			each(dir, func(p string) {
				if filepath.Ext(p) != ".sst" {
					return
				}
				data, err := os.ReadFile(p)
				must(err)
				must(os.WriteFile(p, flip(data, len(data)/3), 0o644))
			})
		},
		"table without its end": func(dir string) {
			each(dir, func(p string) {
				if filepath.Ext(p) == ".sst" {
					data, err := os.ReadFile(p)
					must(err)
					must(os.WriteFile(p, append(data[:len(data)-2], 0x97, 0x06), 0o644))
				}
			})
		},
		"not a folder": func(dir string) {
			must(os.RemoveAll(dir))
			must(os.WriteFile(dir, noise(9, 500), 0o644))
		},
		"no MANIFEST": func(dir string) { must(os.Remove(filepath.Join(dir, "MANIFEST"))) },
		"garbage MANIFEST": func(dir string) {
			must(os.WriteFile(filepath.Join(dir, "MANIFEST"), noise(9, 500), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			data, nameless := noise(1, 1<<20), noise(2, 1000)
			b := imageBlob(t, testUUID, data)
			wantData(t, s, b, data, Miss, &fake{name: "a", data: data})
			k := Blob{Key: "file/x/0", Want: verify.Want{MD5: md5Of(nameless)}}
			k.Image, k.Source, k.Manifest = uuid.MustParse("11b2c898-945f-11e1-a523-af1afbe22822"), "other", testManifest(t, "11b2c898-945f-11e1-a523-af1afbe22822", nameless)
			wantData(t, s, k, nameless, Miss, &fake{name: "a", data: nameless})
			s.Idle()
			id, facts := manifest.FileID{Image: k.Image, Index: 0}, manifest.Facts{SHA1: sumOf(nameless), Size: 1000, Compression: "none"}
			must(s.Lists().SaveFacts(id, facts))
			other := noise(3, 1000) // a second file of the image takes nothing from what is known of the first
			k1 := k
			k1.Index, k1.Want = 1, verify.Want{SHA1: sumOf(other)}
			wantData(t, s, k1, other, Miss, &fake{name: "a", data: other})
			closeStore(t, s)

			damage(s.dir.index())
			s = reopen(t, s)
			wantData(t, s, b, data, Hit)
			wantData(t, s, k, nameless, Hit)
			if all, err := s.Lists().Facts(); err != nil || len(all) != 1 || all[id] != facts {
				t.Errorf("Facts = %v, %v", all, err)
			}
			lists, err := s.Lists().Listings()
			if err != nil || len(lists) != 2 {
				t.Fatalf("Listings = %v, %v", lists, err)
			}
			got := lists[0]
			if got.Source != "joyent" || len(got.Images) != 1 || !got.Fetched.IsZero() || got.ETag != "" ||
				!bytes.Equal(got.Images[0].Raw(), b.Manifest.Raw()) {
				t.Errorf("list rebuilt as %+v", got)
			}
		})
	}
}

// Run takes in what has no record; what is wrong goes.
func TestRunAdopts(t *testing.T) {
	s := openStore(t, Options{})
	closeStore(t, s)
	good, bad := noise(1, 1<<20), noise(2, 1<<20)
	put := func(sum verify.Sum, data []byte) {
		if err := os.MkdirAll(filepath.Dir(s.dir.file(sum)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.dir.file(sum), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(sumOf(good), good)
	put(sumOf(bad), flip(bad, 5))
	strange := filepath.Join(s.dir.files(), "ab", "notes.txt")
	if err := os.MkdirAll(filepath.Dir(strange), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(strange, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, ok := s.Peek(blobOf(good)); ok {
		t.Error("a file that was not hashed is called verified")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		if len(s.Files()) == s.Stats().Files {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("files were not taken in")
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	wantData(t, s, blobOf(good), good, Hit)
	if _, err := os.Stat(s.dir.file(sumOf(bad))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the wrong file: %v", err)
	}
	if _, err := os.Stat(strange); err != nil {
		t.Errorf("a file that is not ours: %v", err)
	}
	if s.Stats().Bytes() != int64(len(good)) {
		t.Errorf("account: %+v", s.Stats())
	}
	wantData(t, s, blobOf(bad), bad, Miss, &fake{name: "a", data: bad})
}

// Lost files are filled again; those that cannot be looked at are not called lost.
func TestFileOnDiskChanges(t *testing.T) {
	data := noise(1, 1<<20)
	b := blobOf(data)
	stored := func(t *testing.T) (*Store, string) {
		s := openStore(t, Options{})
		wantData(t, s, b, data, Miss, &fake{name: "a", data: data})
		s.Idle()
		return s, s.dir.file(sumOf(data))
	}
	for name, harm := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 1000) },
		"extended":  func(path string) error { return os.Truncate(path, 2<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			s, path := stored(t)
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			wantData(t, s, b, data, Miss, &fake{name: "a", data: data})
			s.Idle()
			wantData(t, s, b, data, Hit)
			if s.Stats().Bytes() != int64(len(data)) || s.Stats().Files != 1 {
				t.Errorf("account: %+v, %d files", s.Stats(), s.Stats().Files)
			}
		})
	}
	unknown := func(t *testing.T, s *Store) {
		t.Helper()
		src := &fake{name: "a", data: data}
		_, _, err := get(s, b, src)
		wantError(t, err, ErrDisk, fs.ErrNotExist, fs.ErrPermission)
		wantAsked(t, src)
		if _, ok := s.Peek(b); !ok {
			t.Error("the file was forgotten")
		}
	}
	t.Run("unreadable", func(t *testing.T) {
		s, path := stored(t)
		path = filepath.Dir(path)
		if err := errors.Join(os.Rename(path, path+".away"), os.Symlink(path, path)); err != nil {
			t.Fatal(err)
		}
		unknown(t, s) // ELOOP, which root meets too
		if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, b, data, Hit)
	})
	t.Run("folder gone", func(t *testing.T) {
		s, _ := stored(t)
		if err := os.Rename(s.dir.files(), s.dir.files()+".away"); err != nil {
			t.Fatal(err)
		}
		unknown(t, s)
		if err := os.Rename(s.dir.files()+".away", s.dir.files()); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, b, data, Hit)
	})
	t.Run("removed before the start", func(t *testing.T) {
		s, path := stored(t)
		closeStore(t, s)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		if _, ok := s.Peek(b); ok || s.Stats().Bytes() != 0 {
			t.Errorf("known: %v, account %+v", ok, s.Stats())
		}
	})
}

// A Reader keeps its file whatever happens to the name.
func TestReaderPinsFile(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	wantData(t, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
	s.Idle()
	r, err := s.File(t.Context(), blobOf(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Remove(s.dir.file(sumOf(data))); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestManifestCopies(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1000)
	first, second := imageBlob(t, testUUID, data), imageBlob(t, "21b2c898-945f-11e1-a523-af1afbe22822", data)
	read := func(id uuid.UUID) manifestCopy {
		t.Helper()
		var c manifestCopy
		raw, err := os.ReadFile(s.dir.manifestCopy(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	wantData(t, s, first, data, Miss, &fake{name: "a", data: data})
	s.Idle()
	if c := read(first.Image); c.Source != "joyent" || !bytes.Equal(c.Manifest, first.Manifest.Raw()) {
		t.Errorf("copy: %+v", c)
	}
	if _, err := os.Stat(s.dir.manifestCopy(second.Image)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a copy of an image that nobody asked for: %v", err)
	}
	wantData(t, s, second, data, Hit)
	if c := read(second.Image); !bytes.Equal(c.Manifest, second.Manifest.Raw()) {
		t.Errorf("copy: %+v", c)
	}
	entries, err := os.ReadDir(s.dir.manifests())
	if err != nil || len(entries) != 2 {
		t.Errorf("manifests/ holds %v, %v", entries, err)
	}
}

func TestOnPublish(t *testing.T) {
	var got []Blob
	s := openStore(t, Options{OnPublish: func(b Blob, i Info) {
		if i.Digests.Size != 1000 {
			t.Errorf("info %+v", i)
		}
		got = append(got, b)
	}})
	data := noise(1, 1000)
	gate := make(chan struct{})
	src := always("a", data, reply{stall: -1, gate: gate})
	a, b := imageBlob(t, testUUID, data), imageBlob(t, "21b2c898-945f-11e1-a523-af1afbe22822", data)
	for _, blob := range []Blob{a, b, a} {
		r, err := s.File(t.Context(), blob, sources(src))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
	}
	close(gate)
	s.Idle()
	if len(got) != 2 || got[0].Image != a.Image || got[1].Image != b.Image {
		t.Errorf("published %v", got)
	}
	wantData(t, s, a, data, Hit)
	if len(got) != 2 {
		t.Errorf("published again: %v", got)
	}

	// Who still asks without a sha1 has not heard of it.
	b = Blob{Key: "file/x/0", Want: verify.Want{MD5: md5Of(data)}}
	wantData(t, s, b, data, Miss, always("a", data, reply{}))
	s.Idle()
	wantData(t, s, b, data, Hit)
	if len(got) != 4 || got[2].Key != b.Key || got[3].Key != b.Key {
		t.Errorf("published %v", got)
	}
}

// What a file has told is saved also when the store is just being closed.
func TestOnPublishDuringClose(t *testing.T) {
	dir := t.TempDir()
	id := manifest.FileID{Image: uuid.MustParse(testUUID)}
	var s *Store
	closing := make(chan struct{})
	s = openStore(t, Options{Dir: dir, OnPublish: func(_ Blob, info Info) {
		<-closing
		if err := s.Lists().SaveFacts(id, manifest.Facts{SHA1: info.Digests.SHA1, Size: info.Digests.Size}); err != nil {
			t.Error(err)
		}
	}})
	data := noise(1, 1000)
	wantData(t, s, blobOf(data), data, Miss, always("a", data, reply{}))
	context.AfterFunc(s.ctx, func() { close(closing) })
	closeStore(t, s)
	if err := s.Lists().SaveFacts(id, manifest.Facts{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	facts, err := openStore(t, Options{Dir: dir}).Lists().Facts()
	if err != nil || facts[id].SHA1 != sumOf(data) {
		t.Errorf("facts %v, %v", facts, err)
	}
}

func TestSecondProcess(t *testing.T) {
	if dir := os.Getenv("CACHE_TEST_OPEN"); dir != "" { // the child
		s, err := Open(context.Background(), Options{Dir: dir})
		if err == nil {
			s.Close()
			os.Exit(0)
		}
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	s := openStore(t, Options{})
	child := func() (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSecondProcess$")
		cmd.Env = append(os.Environ(), "CACHE_TEST_OPEN="+s.o.Dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := child()
	if err == nil || !strings.Contains(out, "in use by another imgmirror (process "+jsonOf(os.Getpid())+")") {
		t.Errorf("the second process: %v, %q", err, out)
	}
	if _, err := Open(t.Context(), Options{Dir: s.o.Dir}); err == nil {
		t.Error("a second store of the same process was let in")
	}
	closeStore(t, s)
	if out, err := child(); err != nil {
		t.Errorf("after the end of the first: %v, %q", err, out)
	}
}

// kill -9 in the middle of a fill: nothing of it is served unverified, and the
// next process goes on from where it was.
func TestKilled(t *testing.T) {
	data := noise(1, 4<<20)
	if dir := os.Getenv("CACHE_TEST_KILL"); dir != "" { // the child
		s, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			panic(err)
		}
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{chunk: 50_000, pause: 5 * time.Millisecond} }}
		r, err := s.File(context.Background(), blobOf(data), sources(src))
		if err != nil {
			panic(err)
		}
		if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("go\n")
		io.Copy(io.Discard, r)
		select {}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "CACHE_TEST_KILL="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // "signal: killed"

	s := openStore(t, Options{Dir: dir})
	p := s.Partials()
	if len(p) != 1 || p[0].Have < 1<<20 {
		t.Fatalf("Partials = %v", p)
	}
	if _, ok := s.Peek(blobOf(data)); ok {
		t.Error("half a file is called verified")
	}
	src := &fake{name: "a", data: data}
	wantData(t, s, blobOf(data), data, Miss, src)
	wantAsked(t, src, p[0].Have)
}

// A source that has to send everything in any case is not asked to skip what
// an earlier download left.
func TestLeftoverIsOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		halfway(t, s, data, 500_000)
		s = reopen(t, s)
		src := &fake{name: "a", data: data}
		fromStart := src.source()
		fromStart.FromStart = true
		r, err := s.File(t.Context(), blobOf(data), []Source{fromStart})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Stored(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantAsked(t, src, 0)
		synctest.Wait()
		if s.Stats().Bytes() != int64(len(data)) || s.Stats().Booked != 0 {
			t.Errorf("account: %+v", s.Stats())
		}
	})
}
