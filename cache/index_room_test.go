package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

// fakeRoom is what a disk says that it has left.
type fakeRoom struct{ atomic.Pointer[disk.Room] }

func newRoom() *fakeRoom {
	r := new(fakeRoom)
	r.Store(&disk.Room{Free: 1 << 40})
	return r
}

func (r *fakeRoom) ask(string) (disk.Room, error) { return *r.Load(), nil }

// namesIn lists what is in the index, but for what its lock file may be called.
func namesIn(t *testing.T, s *Store) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir.index())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// pairsOf gives all that is in an index.
func pairsOf(t *testing.T, each func(string, func(key, value []byte) error) error) map[string]string {
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

// A full disk: what is on disk is served, before and after a restart; badger is given
// nothing to write that could find no room; and all goes on when there is room again.
func TestIndexWithoutRoom(t *testing.T) {
	for what, none := range map[string]disk.Room{
		"full":      {Free: 0},
		"no names":  {Free: 1 << 40, NoNames: true},
		"read only": {Free: 1 << 40, ReadOnly: true},
	} {
		t.Run(what, func(t *testing.T) {
			room := newRoom()
			s := openStore(t, Options{diskRoom: room.ask})
			one, two := newSample(t, 1, 1000, nil), newSample(t, 2, 1000, nil)
			one.store(t, s)
			two.store(t, s)
			s.work.Wait()
			list := manifest.Listing{Source: "b", ETag: "x", Images: someManifests(t, 300)}
			if err := s.SaveListing(list); err != nil {
				t.Fatal(err)
			}

			room.Store(&none)
			before := namesIn(t, s)
			if s.index.room.allocated && !none.ReadOnly { // a write that has its blocks is made
				if err := s.SaveUnlisted("b", testManifest(t, testID(1001), nil)); err != nil {
					t.Errorf("a write into the log's own blocks: %v", err)
				}
			}
			is := ErrNoSpace
			if none.ReadOnly {
				is = ErrDisk
			}
			var refused error
			for i := 0; i < 200 && refused == nil; i++ {
				refused = s.index.put(pair{fmt.Sprintf("x/%d", i), noise(byte(i), 100<<10)})
			}
			wantError(t, refused, is)
			wantData(t, s, one.blob, one.data, Hit)
			if err := s.flushUses(); err != nil {
				wantError(t, err, is)
			}
			if err := s.index.collect(); err != nil {
				t.Error(err)
			}
			closeStore(t, s)
			if after := namesIn(t, s); !slices.Equal(before, after) {
				t.Errorf("the index had %v, and has %v: badger has made files", before, after)
			}

			s = reopen(t, s)
			if after := namesIn(t, s); !slices.Equal(before, after) {
				t.Errorf("the index had %v, and has %v: badger has made files", before, after)
			}
			wantData(t, s, one.blob, one.data, Hit)
			if l, err := s.Listing("b"); err != nil || len(l.Images) != 300 {
				t.Errorf("a list of %d images, %v", len(l.Images), err)
			}
			wantError(t, s.SaveListing(list), is)
			wantError(t, s.Own(two.blob), is)
			wantCopies(t, s, one, two) // that failure has left it alone
			if _, err := s.Remove(t.Context(), two.sum()); err != nil {
				t.Errorf("what makes room: %v", err)
			}
			if s.index.tend() {
				t.Error("the index is said to be writable")
			}

			room.Store(&disk.Room{Free: 1 << 40})
			if !s.index.tend() || s.index.tend() {
				t.Error("the index does not go on, or does so twice")
			}
			if err := s.recordAgain(); err != nil {
				t.Fatal(err)
			}
			list.ETag = "y"
			if err := s.SaveListing(list); err != nil {
				t.Errorf("with room again: %v", err)
			}
			closeStore(t, s)
			s = reopen(t, s)
			wantPresent(t, s, "0", one, two)
			if l, err := s.Listings(); err != nil || !slices.ContainsFunc(l, func(l manifest.Listing) bool { return l.ETag == "y" }) {
				t.Errorf("Listings = %v, %v", l, err)
			}
		})
	}
}

// Run finds out that there is room again.
func TestIndexGoesOn(t *testing.T) {
	room := newRoom()
	s := openStore(t, Options{diskRoom: room.ask})
	closeStore(t, s)
	room.Store(&disk.Room{})
	s = reopen(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	tick := make(chan time.Time)
	s.tend = tick
	go func() { done <- s.Run(ctx) }()
	l := manifest.Listing{Source: "b"}
	tick <- time.Now()
	wantError(t, s.SaveListing(l), ErrNoSpace)
	room.Store(&disk.Room{Free: 1 << 40})
	tick <- time.Now()
	tick <- time.Now() // the one before has been dealt with
	if err := s.SaveListing(l); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What can be read of an index without badger is what badger finds in it.
func TestSnapshot(t *testing.T) {
	k := keepImages(t)
	dir := k.folder.thaw(t)
	index := filepath.Join(dir, "index")
	before := freeze(t, dir)
	got, err := readSnapshot(index)
	if err != nil {
		t.Fatal(err)
	}
	if after := freeze(t, dir); !maps.EqualFunc(before, after, func(a, b frozenFile) bool { return a.size == b.size && bytes.Equal(a.data, b.data) }) {
		t.Error("the folder was written to")
	}
	ix, err := openIndex(index, func() (disk.Room, error) { return disk.Room{Free: 1 << 40}, nil }, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	want, have := pairsOf(t, ix.each), pairsOf(t, got.each)
	if err := ix.close(); err != nil {
		t.Error(err)
	}
	if !maps.Equal(want, have) {
		t.Errorf("%d pairs were read, badger has %d", len(have), len(want))
	}
	large := 0
	for key, value := range have {
		if !got.has(key) || got.has(key+"x") {
			t.Errorf("has(%q)", key)
		}
		large = max(large, len(value))
	}
	if large < valueThreshold {
		t.Errorf("the longest value has %d bytes: none is a large one", large)
	}
}

// An index that another process has open is no broken one, and neither is one that
// must not be read: it stays where it is, and no second one is begun.
func TestIndexInUse(t *testing.T) {
	s := openStore(t, Options{})
	closeStore(t, s)
	held, err := disk.LockFolder(s.dir.index())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	before := namesIn(t, s)
	if _, err := Open(t.Context(), Options{Dir: s.o.Dir}); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("Open = %v", err)
	}
	wantError(t, s.dir.moveIndexAside(), unix.EWOULDBLOCK)
	if after := namesIn(t, s); !slices.Equal(before, after) {
		t.Errorf("the index had %v, and has %v", before, after)
	}
	for _, err := range []error{os.ErrPermission, unix.EACCES, unix.EROFS, unix.ENOSPC, unix.EMFILE, unix.EWOULDBLOCK} {
		wantError(t, judgeIndex(fmt.Errorf("open: %w", err)), err, errCorrupt)
	}
	wantError(t, judgeIndex(errors.New("checksum")), errCorrupt)
}

// The lock of the folder holds when the files in it are taken away.
func TestLockRemoved(t *testing.T) {
	s := openStore(t, Options{})
	if err := os.Remove(s.dir.lockFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: s.o.Dir}); err == nil || !strings.Contains(err.Error(), "in use by another imgmirror") {
		t.Errorf("Open = %v", err)
	}
	if _, err := os.Stat(s.dir.index() + ".broken"); err == nil {
		t.Error("the living index was moved aside")
	}
}
