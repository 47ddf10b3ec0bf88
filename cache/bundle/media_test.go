package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"imgmirror/verify"
)

// unpack puts volumes of x into a folder.
func unpack(t *testing.T, s *shelf, x Index, sig []byte, volumes ...int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new", "folder")
	for _, v := range volumes {
		h := Head{Index: x, Volume: v, Sig: sig}
		f, err := NewFolder(dir, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(context.Background(), f, h, f.Offset(), s, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A folder is read as the very tar that it was made of, in pieces of any size and
// from any place.
func TestFolderIsTar(t *testing.T) {
	s := newShelf(t).put(1, 0, 700).put(2, 1, 5<<20+3).put(3, 0, 512, 10)
	o := options()
	o.VolumeSize = 2 << 20
	x := s.plan(o)
	dir := unpack(t, s, x, []byte("sig"), 1, 2, 3)
	m, err := Open(dir)
	if err != nil || len(m.Volumes) != 3 || string(m.Sig) != "sig" {
		t.Fatalf("%+v, %v", m, err)
	}
	check := func() {
		t.Helper()
		for _, v := range m.Volumes {
			want := s.tar(Head{Index: x, Volume: v, Sig: m.Sig})
			for _, wrap := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.HalfReader, iotest.DataErrReader,
			} {
				r, err := m.Volume(v)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(wrap(r))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("volume %d: %d bytes, want %d: %v", v, len(got), len(want), err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
			for from := int64(0); from < int64(len(want)); from += int64(len(want)) / 7 {
				r, err := m.Volume(v)
				if err != nil {
					t.Fatal(err)
				}
				first := make([]byte, min(from, 600))
				if _, err := io.ReadFull(r, first); err != nil {
					t.Fatal(err)
				}
				if at, err := r.Seek(from-int64(len(first)), io.SeekCurrent); err != nil || at != from {
					t.Errorf("Seek to %d: %d, %v", from, at, err)
				}
				rest, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(rest, want[from:]) {
					t.Errorf("volume %d from %d: other bytes, %v", v, from, err)
				}
				r.Close()
			}
		}
	}
	check()
	// Joined by hand, the parts may go.
	big := x.Images[1].Files[0]
	if err := os.WriteFile(filepath.Join(dir, big.Path), s.files[big.SHA1], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range big.Parts {
		if err := os.Remove(filepath.Join(dir, p.Path)); err != nil {
			t.Fatal(err)
		}
	}
	check()

	r, err := m.Volume(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Seek(-1, io.SeekCurrent); err == nil {
		t.Error("it was sought backward")
	}
	if _, err := r.Seek(0, io.SeekEnd); err == nil {
		t.Error("it was sought from its end")
	}
	if _, err := m.Volume(4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("volume 4: %v", err)
	}
}

func TestOpenTar(t *testing.T) {
	s, x := small(t)
	whole := s.tar(Head{Index: x, Volume: 1, Sig: []byte("sig")})
	path := filepath.Join(t.TempDir(), "b.tar")
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil || string(m.Sig) != "sig" || len(m.Index.Images) != 3 {
		t.Fatalf("%+v, %v", m, err)
	}
	r, err := m.Volume(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	k := &keeper{}
	if _, err := Read(context.Background(), r, k); err != nil {
		t.Error(err)
	}
	k.check(t, s)
	if _, err := Open(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(pipe); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), pipe) {
		t.Errorf("a pipe: %v", err)
	}
	whole[600] ^= 1
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged index: %v", err)
	}
}

// What is wrong with a folder is found and named, and no link leads out of it.
func TestFolderRefuses(t *testing.T) {
	s, x := small(t)
	file := x.Images[1].Files[0].Path
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, s.files[x.Images[1].Files[0].SHA1], 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(change func(path func(string) string) error, is error, says string) {
		t.Helper()
		dir := unpack(t, s, x, []byte("sig"), 1)
		if err := change(func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }); err != nil {
			t.Fatal(err)
		}
		m, err := Open(dir)
		if err == nil {
			var r io.ReadCloser
			if r, err = m.Volume(1); err != nil {
				t.Fatal(err)
			}
			k := &keeper{}
			_, err = Read(context.Background(), r, k)
			for _, wrong := range k.wrong { // found by the sink
				err = errors.Join(err, fmt.Errorf("%s: %w", file, wrong))
			}
			r.Close()
		}
		if says == "" && is == nil {
			if err != nil {
				t.Errorf("unwanted: %v", err)
			}
			return
		}
		if !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
	type path = func(string) string
	remove := func(name string) func(path) error {
		return func(p path) error { return os.Remove(p(name)) }
	}
	write := func(name, text string) func(path) error {
		return func(p path) error { return os.WriteFile(p(name), []byte(text), 0o600) }
	}
	instead := func(name string, link func(at string) error) func(path) error {
		return func(p path) error {
			if err := os.Remove(p(name)); err != nil {
				return err
			}
			return link(p(name))
		}
	}
	f(write("notes.txt", "lies there"), nil, "")
	f(remove(IndexName), fs.ErrNotExist, IndexName)
	f(remove(IndexName), ErrInvalid, IndexName)
	f(remove("imgmirror-bundle.sha256"), fs.ErrNotExist, "imgmirror-bundle.sha256")
	f(remove(SignatureName), ErrInvalid, SignatureName)
	f(remove(file), fs.ErrNotExist, file)
	f(remove("index.html"), fs.ErrNotExist, "index.html")
	f(write(SignatureName, "other"), ErrInvalid, SignatureName)
	f(write(SignatureName, strings.Repeat("x", maxSignature+1)), ErrInvalid, SignatureName)
	f(write("imgmirror-bundle.sha256", "x"), ErrInvalid, IndexName)
	f(write("imgmirror-bundle.sha256", strings.Repeat("x", 1<<20)), ErrInvalid, "imgmirror-bundle.sha256")
	f(write(IndexName, "{}"), ErrInvalid, IndexName)
	f(write(file, "short"), verify.ErrMismatch, file)
	f(write(file, strings.Repeat("x", 700)), verify.ErrMismatch, file)
	f(write(x.Images[1].Manifest.Path, strings.Repeat("x", int(x.Images[1].Manifest.Size))), ErrInvalid, x.Images[1].Manifest.Path)
	link := func(at string) error { return os.Symlink(outside, at) }
	f(instead(file, link), ErrInvalid, file)
	f(instead(IndexName, link), ErrInvalid, IndexName)
	f(instead(SignatureName, link), ErrInvalid, SignatureName)
	f(instead(file, func(at string) error { return unix.Mkfifo(at, 0o600) }), ErrInvalid, file)
	f(instead(file, func(at string) error { return os.Mkdir(at, 0o700) }), ErrInvalid, file)
	f(func(p path) error { // the folder of an image is a link to one outside
		elsewhere := filepath.Dir(outside) + "/elsewhere"
		if err := os.Rename(filepath.Dir(p(file)), elsewhere); err != nil {
			return err
		}
		return os.Symlink(elsewhere, filepath.Dir(p(file)))
	}, ErrInvalid, "escapes")
}
