package bundle

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Wherever the unpacking broke off, it goes on with the file that was in flight,
// and nothing before it is written again.
func TestFolderGoesOn(t *testing.T) {
	s := newShelf(t).put(1, 0, 700, 512).put(2, 1, 40<<10)
	h := Head{Index: s.plan(options()), Volume: 1, Sig: []byte("sig")}
	whole := s.tar(h)
	cuts := []int64{1, int64(len(whole)) - 1}
	for _, e := range h.Entries() {
		cuts = append(cuts, e.At, e.At+1, e.Data, e.Data+e.Size/2, e.Data+e.Size, e.end()-1)
	}
	for _, cut := range cuts {
		dir := t.TempDir()
		f, err := NewFolder(dir, h)
		if err != nil {
			t.Fatal(err)
		}
		if f.Offset() != 0 {
			t.Fatalf("a new folder is at %d", f.Offset())
		}
		for at := int64(0); at < cut; { // in odd pieces
			n := min(cut-at, 333)
			if _, err := f.Write(whole[at : at+n]); err != nil {
				t.Fatalf("at %d: %v", at, err)
			}
			at += n
		}
		e := entryAt(h, cut)
		err = f.Close()
		if e.Path != "" && (err == nil || !strings.Contains(err.Error(), e.Path)) && cut < e.Data+e.Size {
			t.Errorf("cut at %d, in %s: Close says %v", cut, e.Path, err)
		}
		f, err = NewFolder(dir, h)
		if err != nil {
			t.Fatal(err)
		}
		from := f.Offset()
		if e.Path != "" && from != e.At && from != e.end() || e.Path == "" && from != h.Size()-trailer {
			t.Errorf("cut at %d, in %s at %d: it goes on at %d", cut, e.Path, e.At, from)
		}
		if err := Write(context.Background(), f, h, from, s, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		k := &keeper{}
		m, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Volume(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(context.Background(), r, k); err != nil {
			t.Error(err)
		}
		r.Close()
		k.check(t, s)
		if names, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(names) > 0 {
			t.Errorf("left over: %v, %v", names, err)
		}
	}
}

func TestFolderWriteRefuses(t *testing.T) {
	s, x := small(t)
	h := Head{Index: x, Volume: 1}
	whole := s.tar(h)
	f := func(at int, says string) {
		t.Helper()
		dir := t.TempDir()
		to, err := NewFolder(dir, h)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(whole)
		b[at] ^= 1
		_, err = to.Write(b)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("byte %d: %v; want %q", at, err, says)
		}
		if again, err2 := to.Write(b[at:]); again != 0 || !errors.Is(err2, err) {
			t.Errorf("it goes on after an error: %d, %v", again, err2)
		}
		if err := to.Close(); err == nil {
			t.Error("Close says nothing")
		}
	}
	e := h.Entries()[4]
	f(int(e.At), e.Path)
	f(int(e.end())-1, e.Path)
	f(len(whole)-1, "end of the tar")

	to, err := NewFolder(t.TempDir(), h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.Write(append(whole, 0)); err == nil {
		t.Error("more than the tar was taken")
	}
	to.Close()
}

// Another bundle's folder is not written into.
func TestNewFolderRefuses(t *testing.T) {
	s, x := small(t)
	dir := unpack(t, s, x, nil, 1)
	o := options()
	o.ID = id(8888)
	if _, err := NewFolder(dir, Head{Index: s.plan(o), Volume: 1}); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), IndexName) {
		t.Errorf("another index: %v", err)
	}
	h := Head{Index: x, Volume: 1}
	again, err := NewFolder(dir, h)
	if err != nil || again.Offset() != h.Size()-trailer {
		t.Fatalf("the same: %v, at %d", err, again.Offset())
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, x.Images[0].Files[0].Path)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", file); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFolder(dir, h); err == nil || !strings.Contains(err.Error(), x.Images[0].Files[0].Path) {
		t.Errorf("a link in a file's place: %v", err)
	}
}
