package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
)

// A process that ends in the middle of an eviction leaves a folder that the next
// one makes right.
func TestCrashWhileEvicting(t *testing.T) {
	for _, step := range []string{"unlink", "unrecord"} {
		t.Run(step, func(t *testing.T) {
			snapshot, noIndex := t.TempDir(), t.TempDir()
			s := openStore(t, Options{})
			one, two := newSample(t, 1, 1000, nil), newSample(t, 2, 1000, nil)
			one.store(t, s)
			two.store(t, s)
			s.step = func(now string) {
				if now == step {
					copyTree(t, s.o.Dir, snapshot)
					copyTree(t, s.o.Dir, noIndex)
				}
			}
			if _, err := s.Remove(t.Context(), one.sum()); err != nil {
				t.Fatal(err)
			}
			crashed := openStore(t, Options{Dir: snapshot})
			if got := present(crashed, one, two); got != "1" {
				t.Errorf("there are %q", got)
			}
			if known, err := crashed.index.Images(); len(known) != 1 || err != nil || crashed.Stats().Files != 1 {
				t.Errorf("images %v (%v), account %+v", known, err, crashed.Stats())
			}
			wantCopies(t, crashed, two)
			one.store(t, crashed)
			wantPresent(t, crashed, "0 1", one, two)

			// And if the index is lost with it, no list has the image.
			if err := os.RemoveAll(filepath.Join(noIndex, "index")); err != nil {
				t.Fatal(err)
			}
			crashed = openStore(t, Options{Dir: noIndex})
			wantCopies(t, crashed, two)
			if l, err := crashed.Lists().Listing("a"); err != nil || len(l.Images) != 1 {
				t.Errorf("Listing = %+v, %v", l, err)
			}
		})
	}
}

// wantCopies fails the test unless there are copies of just these manifests.
func wantCopies(t *testing.T, s *Store, all ...*sample) {
	t.Helper()
	entries, err := os.ReadDir(s.dir.manifests())
	if err != nil || len(entries) != len(all) {
		t.Errorf("copies %v, %v; want %d", entries, err, len(all))
	}
	for _, m := range all {
		if _, err := s.Manifest(m.id); err != nil {
			t.Error(err)
		}
	}
}

// What a process leaves that ends in the middle of writing a small file goes at
// the next start, and it alone.
func TestUnendedWrites(t *testing.T) {
	s := openStore(t, Options{})
	one := newSample(t, 1, 1000, nil)
	one.store(t, s)
	if err := s.Pin(one.id); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	left := []string{filepath.Join(s.o.Dir, ".new-1"), filepath.Join(s.dir.manifests(), ".new-2")}
	for _, path := range left {
		if err := os.WriteFile(path, []byte("half of"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	for _, path := range left {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if !s.Kept(one.id) {
		t.Error("the pin is lost")
	}
	wantCopies(t, s, one)
}

// A start that finds the folder of files empty, because its disk is not mounted,
// does not forget for good whose they are.
func TestFilesNotMounted(t *testing.T) {
	for _, lost := range []string{"", "index"} {
		t.Run(lost, func(t *testing.T) {
			s := openStore(t, Options{})
			one := newSample(t, 1, 1000, nil)
			one.store(t, s)
			if err := s.Pin(one.id); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			disk := filepath.Join(t.TempDir(), "files")
			if err := os.Rename(s.dir.files(), disk); err != nil {
				t.Fatal(err)
			}
			if lost != "" {
				if err := os.RemoveAll(s.dir.index()); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				s = reopen(t, s)
				if f := s.Files(); len(f) != 0 {
					t.Errorf("Files = %+v", f)
				}
				closeStore(t, s)
			}
			if err := os.Remove(s.dir.files()); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(disk, s.dir.files()); err != nil {
				t.Fatal(err)
			}
			s = reopen(t, s)
			s.adoptAll(t.Context())
			if f := s.Files(); len(f) != 1 || len(f[0].Images) != 1 || f[0].Images[0] != one.id {
				t.Errorf("Files = %+v", f)
			}
			if _, err := s.Remove(t.Context(), one.sum()); !errors.Is(err, ErrPinned) {
				t.Errorf("removing the file of a pinned image: %v", err)
			}
		})
	}
}

// What lies in manifests/ may come from anywhere: it never keeps a store from opening.
func FuzzManifestCopy(f *testing.F) {
	f.Add([]byte(`{"source":"a","manifest":{}}`))
	f.Add([]byte(`{"source":"a","sums":{"k":"da39a3ee5e6b4b0d3255bfef95601890afd80709"},"manifest":{"v":2}}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := openStore(t, Options{})
		closeStore(t, s)
		if err := disk.Write(s.dir.manifestCopy(uuid.MustParse(testUUID)), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := index.MoveAside(s.dir.index()); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		if _, err := s.Lists().Listings(); err != nil {
			t.Fatal(err)
		}
	})
}
