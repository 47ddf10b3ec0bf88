package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestHandOver(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.WriteFile(outside, nil, 0o600),
		os.Mkdir(path("files"), 0o755),
		os.WriteFile(path("files/one"), nil, 0o644),
		os.WriteFile(path("other"), nil, 0o644), os.Chown(path("other"), 17, 17),
		os.Symlink(outside, path("link")), os.Link(outside, path("name")),
	)
	if err != nil {
		t.Fatal(err)
	}
	owner := func(name string) uint32 {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return ownerOf(info).Uid
	}
	want := func(folder, files, one uint32) {
		t.Helper()
		if err := handOver(dir); err != nil {
			t.Fatal(err)
		}
		for name, uid := range map[string]uint32{dir: folder, path("files"): files, path("files/one"): one, path("other"): 17, path("link"): 0, outside: 0} {
			if got := owner(name); got != uid {
				t.Errorf("%s is of %d, want %d", name, got, uid)
			}
		}
	}
	want(0, 0, 0) // root's own folder
	if err := os.Chown(dir, 4242, 4343); err != nil {
		t.Fatal(err)
	}
	want(4242, 4242, 4242)
}
