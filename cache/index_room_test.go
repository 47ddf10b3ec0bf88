package cache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

func testID(n int) string { return fmt.Sprintf("01b2c898-945f-11e1-a523-%012x", n) }

func someManifests(t testing.TB, n int) []manifest.Manifest {
	all := make([]manifest.Manifest, n)
	for i := range all {
		all[i] = testManifest(t, testID(i), []byte{byte(i)})
	}
	return all
}

// largeManifest has a description of 100 KiB.
func largeManifest(t testing.TB, n int) manifest.Manifest {
	t.Helper()
	raw := bytes.Replace(testManifest(t, testID(n), nil).Raw(), []byte(`"name"`), fmt.Appendf(nil, `"description":"%x","name"`, noise(byte(n), 50<<10)), 1)
	m, err := manifest.Parse(raw, manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

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
			s.Idle()
			list := manifest.Listing{Source: "b", ETag: "x", Images: someManifests(t, 300)}
			if err := s.Lists().SaveListing(list); err != nil {
				t.Fatal(err)
			}

			room.Store(&none)
			before := namesIn(t, s)
			is := ErrNoSpace
			if none.ReadOnly {
				is = ErrDisk
			}
			var refused error
			for i := 0; i < 200 && refused == nil; i++ {
				refused = s.Lists().SaveUnlisted("c", largeManifest(t, i))
			}
			wantError(t, refused, is)
			wantData(t, s, one.blob, one.data, Hit)
			if err := s.flushUses(); err != nil {
				wantError(t, err, is)
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
			if l, err := s.Lists().Listing("b"); err != nil || len(l.Images) != 300 {
				t.Errorf("a list of %d images, %v", len(l.Images), err)
			}
			wantError(t, s.Lists().SaveListing(list), is)
			wantError(t, s.Own(two.blob), is)
			wantCopies(t, s, one, two) // that failure has left it alone
			if _, err := s.Remove(t.Context(), two.sum()); err != nil {
				t.Errorf("what makes room: %v", err)
			}
			if s.index.Tend() {
				t.Error("the index is said to be writable")
			}

			room.Store(&disk.Room{Free: 1 << 40})
			if !s.index.Tend() || s.index.Tend() {
				t.Error("the index does not go on, or does so twice")
			}
			if err := s.recordAgain(); err != nil {
				t.Fatal(err)
			}
			list.ETag = "y"
			if err := s.Lists().SaveListing(list); err != nil {
				t.Errorf("with room again: %v", err)
			}
			closeStore(t, s)
			s = reopen(t, s)
			wantPresent(t, s, "0", one, two)
			if l, err := s.Lists().Listings(); err != nil || !slices.ContainsFunc(l, func(l manifest.Listing) bool { return l.ETag == "y" }) {
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
	wantError(t, s.Lists().SaveListing(l), ErrNoSpace)
	room.Store(&disk.Room{Free: 1 << 40})
	tick <- time.Now()
	tick <- time.Now() // the one before has been dealt with
	if err := s.Lists().SaveListing(l); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
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
