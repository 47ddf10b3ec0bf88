package index

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

// What badger would fail over, or end the process, although nothing of use is in it,
// costs no record and no saved list.
func TestMended(t *testing.T) {
	folder, want := fill(t)
	mem := func(t *testing.T, dir string) string {
		names, err := filepath.Glob(filepath.Join(dir, "*.mem"))
		if err != nil || len(names) != 1 {
			t.Fatalf("logs %v, %v", names, err)
		}
		return names[0]
	}
	write := func(t *testing.T, path string, at int64, data string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte(data), at)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for what, damage := range map[string]func(t *testing.T, dir string){
		"DISCARD is a folder": func(t *testing.T, dir string) {
			path := filepath.Join(dir, "DISCARD")
			if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "sub"), 0o755)); err != nil {
				t.Fatal(err)
			}
		},
		"DISCARD is cut":       func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, "DISCARD"), 8) },
		"KEYREGISTRY is empty": func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, "KEYREGISTRY"), 0) },
		"KEYREGISTRY is wrong": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "KEYREGISTRY"), 20, "x") },
		"a log of another key": func(t *testing.T, dir string) { write(t, mem(t, dir), 3, "\x01") },
		"an empty log": func(t *testing.T, dir string) {
			if err := os.WriteFile(logName(dir, 99), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"a log that claims 4 GiB": func(t *testing.T, dir string) { // 2 bytes, then key 9, value 1<<32-1, time 0
			end := int64(0)
			if logs, err := readLogs(dir); err != nil {
				t.Fatal(err)
			} else {
				end = int64(logs[0].end)
			}
			write(t, mem(t, dir), end, "\x00\x00\x09\xff\xff\xff\xff\x0f\x00something")
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := folder.thaw(t)
			damage(t, dir)
			ix := open(t, Options{Dir: dir})
			if got := contents(t, ix.each); !maps.Equal(got, want) {
				t.Errorf("%d records of %d are left", len(got), len(want))
			}
			if logs, err := readLogs(dir); err != nil || len(logs) == 0 {
				t.Errorf("logs %v, %v", logs, err)
			}
		})
	}
}

// What can be read of an index without badger is what badger finds in it.
func TestSnapshot(t *testing.T) {
	folder, want := fill(t)
	dir := folder.thaw(t)
	got, err := readSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if after := freeze(t, dir); !maps.Equal(folder, after) {
		t.Error("the folder was written to")
	}
	have := contents(t, got.each)
	if !maps.Equal(want, have) {
		t.Errorf("%d pairs were read, badger has %d", len(have), len(want))
	}
	ix, large := &Index{saved: got}, 0
	for key, value := range have {
		is, err := ix.has(key)
		more, _ := ix.has(key + "x")
		part, _ := ix.has(key[:len(key)-1])
		if _, known := have[key[:len(key)-1]]; err != nil || !is || more || part != known {
			t.Errorf("has(%q): %v, %v, longer %v, shorter %v", key, is, err, more, part)
		}
		large = max(large, len(value))
	}
	if large < valueThreshold {
		t.Errorf("the longest value has %d bytes: none is a large one", large)
	}
}

// An index that another process has open is no broken one, and neither is one that
// must not be read: it stays where it is, and no second one is begun.
func TestInUse(t *testing.T) {
	ix := open(t, Options{})
	dir := ix.dir
	before := namesIn(t, dir)
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, ErrCorrupt) {
		t.Errorf("Open = %v", err)
	}
	wantError(t, MoveAside(dir), unix.EWOULDBLOCK)
	if after := namesIn(t, dir); !slices.Equal(before, after) {
		t.Errorf("the index had %v, and has %v", before, after)
	}
	for _, circumstance := range []error{os.ErrPermission, unix.EACCES, unix.EROFS, unix.ENOSPC, unix.EMFILE, unix.EWOULDBLOCK} {
		if err := judged(fmt.Errorf("open: %w", circumstance)); !errors.Is(err, circumstance) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%v is judged %v", circumstance, err)
		}
	}
	wantError(t, judged(errors.New("checksum")), ErrCorrupt)
}

// A broken index is told by its error, is kept once, and makes room for a new one.
func TestMoveAside(t *testing.T) {
	folder, _ := fill(t)
	dir := folder.thaw(t)
	if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), noise(1, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := Open(Options{Dir: dir, Logger: testLog(t)})
		wantError(t, err, ErrCorrupt)
		if err := MoveAside(dir); err != nil {
			t.Fatal(err)
		}
		ix := open(t, Options{Dir: dir})
		if complete, err := ix.Complete(); complete || err != nil {
			t.Errorf("the new index is complete: %t, %v", complete, err)
		}
		mustClose(t, ix)
		if _, err := os.Stat(filepath.Join(dir+".broken", "MANIFEST")); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), noise(1, 5000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// After Close nothing is read and nothing is written.
func TestClosed(t *testing.T) {
	ix := open(t, Options{})
	mustClose(t, ix)
	_, listings := ix.Listings()
	_, facts := ix.Facts()
	_, complete := ix.Complete()
	for _, err := range []error{listings, facts, complete, ix.Write(PutComplete()), ix.Sync(), ix.Files(func(File) {})} {
		wantError(t, err, ErrClosed)
	}
	if ix.Tend() || ix.Renew() != nil {
		t.Error("a closed index is opened")
	}
}

// The folder of the index is removed, moved away or replaced while it is open: writes fail as of a disk, and Renew
// puts all that the index held into a new folder.
func TestRenew(t *testing.T) {
	for what, take := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("x"), 0o644))
		},
	} {
		t.Run(what, func(t *testing.T) {
			folder, want := fill(t)
			ix := open(t, Options{Dir: folder.thaw(t)})
			if err := take(ix.dir); err != nil {
				t.Fatal(err)
			}
			change := PutAlias("x", [20]byte{1})
			if what != "replaced" {
				err := ix.Write(change)
				wantError(t, err, disk.ErrUnusable)
				if errors.Is(err, os.ErrNotExist) {
					t.Errorf("%v says that an image is not there", err)
				}
			}
			wantError(t, ix.Trouble(), disk.ErrUnusable)
			if err := ix.Renew(); err != nil {
				t.Fatal(err)
			}
			if !ix.Tend() || ix.Trouble() != nil {
				t.Errorf("the new index is not taken for one: %v", ix.Trouble())
			}
			if err := ix.Write(change); err != nil {
				t.Error(err)
			}
			ix = reopen(t, ix)
			want[change.key] = string(change.value)
			if got := contents(t, ix.each); !maps.Equal(got, want) {
				t.Errorf("%d records of %d are left", len(got), len(want))
			}
		})
	}
}

// Another process has taken the place of the index that was removed: its folder stays.
func TestRenewOfAnother(t *testing.T) {
	ix := open(t, Options{})
	if err := errors.Join(os.RemoveAll(ix.dir), os.Mkdir(ix.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	other, err := disk.LockFolder(ix.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := ix.Renew(); !errors.Is(err, disk.ErrUnusable) {
		t.Errorf("renewed: %v", err)
	}
	at, err := os.Stat(ix.dir)
	if err != nil {
		t.Fatal(err)
	}
	if its, err := other.Stat(); err != nil || !os.SameFile(at, its) {
		t.Errorf("the other's folder was replaced (%v)", err)
	}
	other.Close()
}

// A full disk: what is in the index is read, before and after a restart; badger is given
// nothing to write that could find no room; and all goes on when there is room again.
func TestWithoutRoom(t *testing.T) {
	for what, none := range map[string]disk.Room{
		"full":      {Free: 0},
		"no names":  {Free: 1 << 40, NoNames: true},
		"read only": {Free: 1 << 40, ReadOnly: true},
	} {
		t.Run(what, func(t *testing.T) {
			room := newRoom()
			ix := open(t, Options{Room: room.ask})
			if err := ix.SaveListing(manifest.Listing{Source: "b", Images: someManifests(t, 300)}); err != nil {
				t.Fatal(err)
			}
			want := contents(t, ix.each)
			room.Store(&none)
			before := namesIn(t, ix.dir)
			if ix.room.allocated && !none.ReadOnly { // a write that has its blocks is made
				change := PutAlias("own blocks", [20]byte{1})
				if err := ix.Write(change); err != nil {
					t.Errorf("a write into the log's own blocks: %v", err)
				}
				want[change.key] = string(change.value)
			}
			is := disk.ErrNoSpace
			if none.ReadOnly {
				is = disk.ErrUnusable
			}
			for i := 0; ; i++ {
				change := Change{fmt.Sprintf("x/%d", i), noise(byte(i), 100<<10)}
				if err := ix.Write(change); err != nil {
					wantError(t, err, is)
					break
				}
				want[change.key] = string(change.value)
				if i == 200 {
					t.Fatal("no write is refused")
				}
			}
			if err := ix.Collect(); err != nil {
				t.Error(err)
			}
			mustClose(t, ix)
			if after := namesIn(t, ix.dir); !slices.Equal(before, after) {
				t.Errorf("the index had %v, and has %v: badger has made files", before, after)
			}
			ix = open(t, Options{Dir: ix.dir, Room: room.ask})
			if after := namesIn(t, ix.dir); !slices.Equal(before, after) {
				t.Errorf("the index had %v, and has %v: badger has made files", before, after)
			}
			if got := contents(t, ix.each); !maps.Equal(got, want) {
				t.Errorf("%d records of %d are left", len(got), len(want))
			}
			wantError(t, ix.Write(PutComplete()), is)
			if ix.Tend() {
				t.Error("the index is said to be writable")
			}
			room.Store(&disk.Room{Free: 1 << 40})
			if !ix.Tend() || ix.Tend() {
				t.Error("the index does not go on, or does so twice")
			}
			if err := ix.Write(PutAlias("y", [20]byte{2})); err != nil {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}
