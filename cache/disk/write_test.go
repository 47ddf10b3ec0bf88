package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// A file is replaced whole, with the mode that was asked for; a failure leaves what was there, and nothing beside it.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for text, perm := range map[string]fs.FileMode{"first": 0o600, "second, longer": 0o644} {
		if err := Write(path, []byte(text), perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("%q, %v; want %q", got, err, text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != perm {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, perm)
		}
	}
	taken := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(taken, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(taken, nil, 0o644); err == nil {
		t.Error("a folder was replaced")
	}
	if got := fmt.Sprint(names(t, dir)); got != "[a folder]" {
		t.Errorf("the folder has %s", got)
	}
	if err := Write(filepath.Join(dir, "none", "a"), nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

func TestRemoveUnended(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", NewPrefix + "1", NewPrefix + "2"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(RemoveUnended(dir), RemoveUnended(filepath.Join(dir, "none"))); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(names(t, dir)); got != "[a]" {
		t.Errorf("left are %s", got)
	}
}

// No error of the disk says that an image is not there, and a meaning is given once.
func TestError(t *testing.T) {
	f := func(err, want error) {
		t.Helper()
		got := Error(err)
		if !errors.Is(got, want) || errors.Is(got, fs.ErrNotExist) {
			t.Errorf("%v means %v, want %v", err, got, want)
		}
		if again := Error(got); again != got { //nolint:errorlint // the very same
			t.Errorf("a second time: %v", again)
		}
	}
	f(nil, nil)
	f(fs.ErrNotExist, ErrUnusable)
	f(unix.EIO, ErrUnusable)
	f(&fs.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}, ErrNoSpace)
	f(unix.EDQUOT, ErrNoSpace)
}

// The lock of a folder holds when its files are taken away, until it is closed.
func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	held, err := LockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockFolder(dir); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second lock: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := LockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
