package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgmirror/manifest"
)

// The folder of the index is removed, moved away or replaced while the mirror runs: what is
// on disk is served, writes fail as of a disk, the look tells, and what the index
// held is in the new one.
func TestIndexFolderRemoved(t *testing.T) {
	for what, take := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("x"), 0o644))
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, Options{})
			one := newSample(t, 1, 1000, nil)
			one.store(t, s)
			s.Idle()
			later := testManifest(t, testID(1000), nil)
			if err := s.Lists().SaveListing(manifest.Listing{Source: "b", ETag: "x", Images: someManifests(t, 300)}); err != nil {
				t.Fatal(err)
			}
			if err := take(s.dir.index()); err != nil {
				t.Fatal(err)
			}

			if what != "replaced" {
				err := s.Lists().SaveUnlisted("b", later)
				wantError(t, err, ErrDisk)
				if errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v says that an image is not there", err)
				}
			}
			wantData(t, s, one.blob, one.data, Hit)
			down, hampered := s.Look()
			if down != nil {
				t.Errorf("files cannot be served: %v", down)
			}
			wantError(t, hampered, ErrDisk)

			if err := s.tendIndex(); err != nil {
				t.Fatal(err)
			}
			if _, hampered := s.Look(); hampered != nil {
				t.Errorf("Look: %v", hampered)
			}
			if err := s.Lists().SaveUnlisted("b", later); err != nil {
				t.Error(err)
			}
			closeStore(t, s)
			s = reopen(t, s)
			if l, err := s.Lists().Listing("b"); err != nil || len(l.Images) != 300 || len(l.Unlisted) != 1 {
				t.Errorf("lists of %d and %d images, %v", len(l.Images), len(l.Unlisted), err)
			}
			wantData(t, s, one.blob, one.data, Hit)
		})
	}
}

// A pipe or a folder in the place of a file of DATA hangs no start, and ends none.
func TestStartWithPipes(t *testing.T) {
	for _, name := range []string{"pins", "index/MANIFEST", "index/00001.mem", "index/000001.vlog", "index/DISCARD", "index/KEYREGISTRY"} {
		for what, put := range map[string]func(string) error{
			"pipe":   func(path string) error { return unix.Mkfifo(path, 0o644) },
			"folder": func(path string) error { return os.Mkdir(path, 0o755) },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				s := openStore(t, Options{})
				one := newSample(t, 1, 1000, nil)
				one.store(t, s)
				s.Idle()
				closeStore(t, s)
				path := filepath.Join(string(s.dir), name)
				if err := errors.Join(os.RemoveAll(path), put(path)); err != nil {
					t.Fatal(err)
				}
				s = reopen(t, s)
				wantData(t, s, one.blob, one.data, Hit)
			})
		}
	}
}
