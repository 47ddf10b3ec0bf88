package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Other people's tar readers see the names, sizes and times that were written.
func TestHeader(t *testing.T) {
	f := func(name string, size int64) {
		t.Helper()
		mtime := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		b := header(name, size, mtime)
		if int64(len(b)) != headerSize(size) {
			t.Errorf("%d bytes, want %d", len(b), headerSize(size))
		}
		h, err := tar.NewReader(bytes.NewReader(b)).Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != name || h.Size != size || !h.ModTime.Equal(mtime) || h.Typeflag != tar.TypeReg || h.Mode != 0o644 {
			t.Errorf("%+v", h)
		}
	}
	f("a", 0)
	f(IndexName, 12345)
	f(id(1).String()+"/"+strings.Repeat("x", maxNameLength)+".part-999", 1)
	f(id(1).String()+"/file", maxOctal)
	f(id(1).String()+"/"+strings.Repeat("x", maxNameLength)+".part-999", maxOctal+1)
	f("file", 20<<30)
}

func TestPaxRecord(t *testing.T) {
	f := func(value, want string) {
		t.Helper()
		if got := paxRecord("size", value); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f("8589934592", "19 size=8589934592\n")
	f("1", "9 size=1\n") // with one digit: 9 bytes
	f("12", "11 size=12\n")
}

// A file over 8 GiB takes a pax header, and the same reader finds it.
func TestLargeHeader(t *testing.T) {
	s, x := small(t)
	x.Images[2].Files[0].Size = maxOctal + 1
	h := Head{Index: x, Volume: 1}
	for _, e := range h.Entries() {
		if e.Path != x.Images[2].Files[0].Path {
			continue
		}
		b := header(e.Path, e.Size, x.Created)
		if err := newSource(bytes.NewReader(b)).header(e, h); err != nil {
			t.Error(err)
		}
		for at := range b {
			wrong := bytes.Clone(b)
			wrong[at] ^= 4
			if err := newSource(bytes.NewReader(wrong)).header(e, h); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), e.Path) {
				t.Fatalf("byte %d: %v", at, err)
			}
			if err := newSource(bytes.NewReader(b[:at])).header(e, h); !errors.Is(err, ErrInvalid) {
				t.Fatalf("%d bytes: %v", at, err)
			}
		}
	}
	_ = s
}

// The system's tar unpacks all volumes into one folder, where the system's
// sha256sum finds everything right, and joined parts are the file.
func TestSystemTar(t *testing.T) {
	program, sha256sum := need(t, "tar"), need(t, "sha256sum")
	s := newShelf(t).put(1, 0, 700).put(2, 1, 5<<20+3).put(3, 0, 512, 10)
	o := options()
	o.VolumeSize = 2 << 20
	x := s.plan(o)
	dir := t.TempDir()
	for v := 1; v <= x.Volumes; v++ {
		cmd := exec.Command(program, "-xf", "-", "-C", dir)
		cmd.Stdin = bytes.NewReader(s.tar(Head{Index: x, Volume: v}))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("volume %d: %v: %s", v, err, out)
		}
	}
	lists, err := filepath.Glob(filepath.Join(dir, "*.sha256"))
	if err != nil || len(lists) != x.Volumes {
		t.Fatalf("lists of sums: %v, %v", lists, err)
	}
	cmd := exec.Command(sha256sum, append([]string{"-c", "--strict"}, lists...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v: %s", err, out)
	}
	for _, im := range x.Images {
		for _, f := range im.Files {
			var got []byte
			names := []string{f.Path}
			if f.Volume == 0 {
				names = names[:0]
				for _, p := range f.Parts {
					names = append(names, p.Path)
				}
			}
			for _, name := range names {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b...)
			}
			if !bytes.Equal(got, s.files[f.SHA1]) {
				t.Errorf("%s, from %v: other bytes", f.Path, names)
			}
		}
	}
	var k keeper
	m, err := Open(dir)
	if err != nil || len(m.Volumes) != x.Volumes {
		t.Fatalf("the folder: %+v, %v", m, err)
	}
	for _, v := range m.Volumes {
		r, err := m.Volume(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(context.Background(), struct{ io.Reader }{r}, &k); err != nil {
			t.Errorf("volume %d, from the folder: %v", v, err)
		}
		r.Close()
	}
	k.check(t, s)
}
