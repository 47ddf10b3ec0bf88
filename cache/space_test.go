package cache

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"

	"imgmirror/verify"
)

// withFree lets the store believe in a file system with that much room.
func withFree(s *Store, free *int64) *Store {
	s.space.free = func() (int64, error) { return *free, nil }
	return s
}

func TestNoSpaceBeforeAnyByte(t *testing.T) {
	data := noise(1, 1<<20)
	unknown := Blob{Want: verify.Want{SHA1: sumOf(data)}}
	src := &fake{name: "a", data: data}
	for _, b := range []Blob{blobOf(data), unknown} {
		s := openStore(t, Options{MaxSize: 1<<20 - 1})
		_, _, err := get(s, b, src)
		wantError(t, err, ErrNoSpace, verify.ErrUnavailable, fs.ErrNotExist)

		free := int64(2<<20 - 1)
		s = withFree(openStore(t, Options{MinFree: 1 << 20}), &free)
		_, _, err = get(s, b, src)
		wantError(t, err, ErrNoSpace)
		free++
		wantData(t, s, b, data, Miss, src)
	}
	if n := src.bytes(); n != 2<<20 {
		t.Errorf("%d bytes were taken from the source, want those of the two good fills", n)
	}

	s := openStore(t, Options{})
	s.space.free = func() (int64, error) { return 0, errors.New("statfs failed") }
	if _, _, err := get(s, blobOf(data), src); err == nil {
		t.Error("a fill began with no knowledge of the space")
	}
}

// What is booked by one fill is not there for another.
func TestBooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := int64(1 << 40)
		s := withFree(openStore(t, Options{MaxSize: 3 << 20}), &free)
		gate := make(chan struct{})
		one, two, three := noise(1, 1<<20), noise(2, 1<<20), noise(3, 1<<20+1)
		for _, data := range [][]byte{one, two} {
			r, err := s.File(t.Context(), blobOf(data), sources(always("a", data, reply{stall: 300_000, gate: gate})))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
		}
		_, _, err := get(s, blobOf(three), &fake{name: "a", data: three})
		wantError(t, err, ErrNoSpace)
		close(gate)
		synctest.Wait()
		_, _, err = get(s, blobOf(three), &fake{name: "a", data: three})
		wantError(t, err, ErrNoSpace)
		wantData(t, s, blobOf(three[1:]), three[1:], Miss, &fake{name: "a", data: three[1:]})
		synctest.Wait()
		if s.Stats().Stored != 3<<20 || s.Stats().Booked != 0 || s.Stats().Unfinished != 0 {
			t.Errorf("account: %+v", s.Stats())
		}
		if got := s.space.limit(); got != 3<<20 {
			t.Errorf("limit %d", got)
		}
	})
}

// A body of unknown length books as it goes.
func TestBookingAsItGoes(t *testing.T) {
	s := openStore(t, Options{MaxSize: 100 << 20})
	data := noise(1, 1<<20)
	b := Blob{Want: verify.Want{SHA1: sumOf(data)}}
	wantData(t, s, b, data, Miss, always("a", data, reply{noSize: true}))
	s.Idle()
	if s.Stats().Booked != 0 || s.Stats().Bytes() != 1<<20 {
		t.Errorf("account: %+v", s.Stats())
	}
	s = openStore(t, Options{MaxSize: 1 << 20})
	_, _, err := get(s, b, always("a", data, reply{noSize: true}))
	wantError(t, err, ErrNoSpace)
	wantNothing(t, s, data)
}

// lack ends a test on a machine that does not have what the test needs: with CI=true as a failure.
func lack(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// The disk itself says that it is full, in mid-file.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() != 0 {
		lack(t, "needs root, to mount a small file system")
	}
	if _, err := exec.LookPath("mount"); err != nil {
		lack(t, "needs mount(8)")
	}
	small := dir + "/small"
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small).CombinedOutput(); err != nil {
		lack(t, "a tmpfs cannot be mounted: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", small).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	free := int64(1 << 40)
	s := withFree(openStore(t, Options{}), &free)
	if err := os.Remove(s.dir.partials()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(small, s.dir.partials()); err != nil {
		t.Fatal(err)
	}
	data := noise(1, 8<<20)
	_, _, err := get(s, blobOf(data), &fake{name: "a", data: data})
	wantError(t, err, ErrNoSpace)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v does not tell of the disk", err)
	}
	wantNothing(t, s, data)
}

// What fills write while the file system is asked is neither free nor booked.
func TestBookedMeanwhile(t *testing.T) {
	free := int64(1000)
	s := newSpace(0, 0, func() (int64, error) { return free, nil })
	if err := s.book(600); err != nil {
		t.Fatal(err)
	}
	s.free = func() (int64, error) {
		before := free // as it was told just before these bytes came
		s.wrote(600)
		free -= 600
		return before, nil
	}
	if err := s.book(500); !errors.Is(err, ErrNoSpace) {
		t.Errorf("500 bytes of 400 were booked: %v", err)
	}
	s.free = func() (int64, error) { return free, nil }
	if err := s.book(400); err != nil {
		t.Error(err)
	}
	if d, err := s.need(1); err != nil || d.must != 1 {
		t.Errorf("need = %+v, %v", d, err)
	}
}
