package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"imgmirror/verify"
)

func TestRoundTrip(t *testing.T) {
	f := func(s *shelf, o PlanOptions, volumes int) {
		t.Helper()
		x := s.plan(o)
		if x.Volumes != volumes {
			t.Fatalf("%d volumes, want %d", x.Volumes, volumes)
		}
		var k keeper
		for v := range volumes {
			h := Head{Index: x, Volume: v + 1, Sig: []byte("a signature\n")}
			b := s.tar(h)
			if o.VolumeSize > 0 && int64(len(b)) > o.VolumeSize {
				t.Errorf("volume %d has %d bytes, may have %d", v+1, len(b), o.VolumeSize)
			}
			head, err := Read(context.Background(), bytes.NewReader(b), &k)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(head.Sig, h.Sig) || head.Volume != v+1 || !bytes.Equal(head.Index.Bytes(), x.Bytes()) {
				t.Errorf("the head that was read is another: %+v", head)
			}
			only, err := ReadHead(bytes.NewReader(b[:h.Entries()[3].At]))
			if err == nil && !bytes.Equal(only.Sig, h.Sig) {
				t.Errorf("ReadHead: %+v", only)
			}
			if err != nil {
				t.Errorf("ReadHead of the head alone: %v", err)
			}
		}
		k.check(t, s)
	}
	const mib = 1 << 20
	f(newShelf(t), options(), 1)
	f(newShelf(t).put(1, 0, 1), options(), 1)
	f(newShelf(t).put(2, 1, 700).put(1, 0, 512).put(3, 0, 1300, 1), options(), 1)
	f(newShelf(t).put(1, 0, 3*mib+17), options(), 1)
	o := options()
	o.VolumeSize = 2 * mib
	f(newShelf(t).put(1, 0, 1000), o, 1)
	f(newShelf(t).put(1, 0, 1*mib).put(2, 1, 1*mib).put(3, 2, 700), o, 2)
	f(newShelf(t).put(1, 0, 5*mib+3).put(2, 0, 700), o, 3)
	f(newShelf(t).put(1, 0, mib, 5*mib, 10).put(2, 0, 5*mib, 77), o, 7)
	s := newShelf(t).put(1, 0, 5*mib+3)
	s.seeks = false
	f(s, o, 3)
}

// Wherever an export broke off, it goes on there, and the whole is the same.
func TestWriteFrom(t *testing.T) {
	s := newShelf(t).put(1, 0, 700, 512).put(2, 1, 300<<10+5)
	h := Head{Index: s.plan(options()), Volume: 1, Sig: []byte("sig\n")}
	whole := s.tar(h)
	offsets := []int64{0, 1, int64(len(whole)) - 1, int64(len(whole)) - trailer, int64(len(whole)), 300<<10 - 1}
	for _, e := range h.Entries() {
		for _, at := range []int64{e.At, e.Data, e.Data + e.Size/2, e.Data + e.Size, e.end()} {
			offsets = append(offsets, at-1, at, at+1)
		}
	}
	for _, from := range offsets {
		if from < 0 || from > int64(len(whole)) {
			continue
		}
		s.opened = 0
		var b bytes.Buffer
		var reached int64
		if err := Write(context.Background(), &b, h, from, s, func(at int64) {
			if at < reached {
				t.Fatalf("progress went from %d back to %d", reached, at)
			}
			reached = at
		}); err != nil {
			t.Fatalf("from %d: %v", from, err)
		}
		if !bytes.Equal(b.Bytes(), whole[from:]) {
			t.Errorf("from %d: other bytes", from)
		}
		if reached != int64(len(whole)) {
			t.Errorf("from %d: progress ended at %d", from, reached)
		}
		behind := 0
		for _, e := range h.Entries() {
			if e.File >= 0 && e.end() > from {
				behind++
			}
		}
		if s.opened != behind {
			t.Errorf("from %d: %d files were opened, %d were needed", from, s.opened, behind)
		}
	}
	for _, from := range []int64{-1, int64(len(whole)) + 1} {
		if err := Write(context.Background(), io.Discard, h, from, s, nil); err == nil {
			t.Errorf("from %d: no error", from)
		}
	}
}

// What rotted in the store is found while it is written, also when its beginning
// was written before; and what was written up to there can be gone on with.
func TestWriteRot(t *testing.T) {
	f := func(rot func(s *shelf, sum verify.Sum), is error) {
		t.Helper()
		s := newShelf(t).put(1, 0, 600).put(2, 0, 300<<10)
		h := Head{Index: s.plan(options()), Volume: 1}
		whole := s.tar(h)
		bad := h.Index.Images[1].Files[0]
		var e Entry
		for _, entry := range h.Entries() {
			if entry.Path == bad.Path {
				e = entry
			}
		}
		good := s.files[bad.SHA1]
		rot(s, bad.SHA1)
		for _, from := range []int64{0, e.At, e.Data + 200<<10, e.Data + e.Size - 1} {
			var b bytes.Buffer
			err := Write(context.Background(), &b, h, from, s, nil)
			if !errors.Is(err, is) || !strings.Contains(err.Error(), bad.Path) {
				t.Errorf("from %d: %v", from, err)
			}
			if from+int64(b.Len()) >= e.Data+e.Size {
				t.Errorf("from %d: all bytes of the wrong file were written", from)
			}
		}
		s.files[bad.SHA1] = good
		if !bytes.Equal(s.tar(h), whole) {
			t.Error("the repaired file gives another tar")
		}
	}
	flip := func(at int) func(*shelf, verify.Sum) {
		return func(s *shelf, sum verify.Sum) {
			b := bytes.Clone(s.files[sum])
			b[at] ^= 1
			s.files[sum] = b
		}
	}
	f(flip(0), verify.ErrMismatch)
	f(flip(299<<10), verify.ErrMismatch)
	f(flip(300<<10-1), verify.ErrMismatch)
	f(func(s *shelf, sum verify.Sum) { s.files[sum] = s.files[sum][:1000] }, verify.ErrMismatch)
	f(func(s *shelf, sum verify.Sum) { delete(s.files, sum) }, fs.ErrNotExist)
}

func TestWriteChanged(t *testing.T) {
	s, x := small(t)
	h := Head{Index: x, Volume: 1}
	size := s.tar(h)
	changed := newShelf(t).put(2, 1, 700).put(1, 0, 512).put(3, 1, 1300, 1)
	changed.files = s.files
	err := Write(context.Background(), io.Discard, h, 0, changed, nil)
	if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), id(3).String()+"/manifest.json") {
		t.Errorf("a changed manifest: %v", err)
	}
	last := h.Entries()[len(h.Entries())-1]
	if err := Write(context.Background(), io.Discard, h, last.At, changed, nil); err != nil {
		t.Errorf("behind the manifests: %v", err)
	}
	gone := newShelf(t)
	if err := Write(context.Background(), io.Discard, h, 0, gone, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a manifest that is gone: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Write(ended, io.Discard, h, 0, s, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	full := errors.New("disk is full")
	for _, n := range []int{0, 600, len(size) - 1} {
		if err := Write(context.Background(), &limited{n: n, err: full}, h, 0, s, nil); !errors.Is(err, full) {
			t.Errorf("a full disk after %d bytes: %v", n, err)
		}
	}
}

// limited takes n bytes.
type limited struct {
	n   int
	err error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.n {
		return 0, l.err
	}
	l.n -= len(p)
	return len(p), nil
}
