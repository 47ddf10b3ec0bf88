//go:build linux

package upstream

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// asNobody takes root's rights over files from the test, so that modes count; root is a folder of the test that stays within reach.
func asNobody(t *testing.T, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
		runtime.UnlockOSThread()
	})
}

// mode changes that of a file in root, whoever the test is just now.
func mode(t *testing.T, root, name string, m os.FileMode) {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := unix.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(65534) //nolint:errcheck // it worked before
	}
	if err := os.Chmod(filepath.Join(root, name), m); err != nil {
		t.Fatal(err)
	}
}

// What cannot be read is named, and what lies there is not known: the images that were there stay, the others are listed and go as ever.
func TestDirectoryThatCannotBeReadEverywhere(t *testing.T) {
	data := []byte("the image")
	root := tree(t, map[string]string{
		"a/manifest.json": v2(1, nil, data), "a/file": "the image", "b.json": v2(2, nil, data), "b.zfs": "the image",
		"c/manifest": v2(3, nil, data), "c/file": "the image", "d.json": v2(4, nil, data), "lost+found/": "",
	})
	asNobody(t, root)
	c := newClient(t, Options{URL: root})
	var l manifest.Listing
	step := func(c *Client, what, trouble string, want ...int) {
		t.Helper()
		next, err := c.List(t.Context(), l)
		if err != nil && !errors.Is(err, manifest.ErrNotModified) {
			t.Fatalf("%s: %v", what, err)
		}
		l = next
		var got []int
		for n := range 9 {
			if slices.Contains(ids(l.Images), upstreamtest.ID(n)) {
				got = append(got, n)
			}
		}
		if !slices.Equal(got, want) || len(l.Images) != len(want) {
			t.Fatalf("%s: images %v, want %v", what, got, want)
		}
		if trouble == "" && l.Trouble != "" || !strings.Contains(l.Trouble, trouble) {
			t.Errorf("%s: trouble %q, want %q", what, l.Trouble, trouble)
		}
	}
	image := func(n int) manifest.Manifest { return parse(t, []byte(v2(n, nil, data))) }
	step(c, "all can be read", "", 1, 2, 3, 4)
	mode(t, root, "lost+found", 0)
	step(c, "lost+found cannot be read", root+"/lost+found: permission denied", 1, 2, 3, 4)
	step(newClient(t, Options{URL: root}), "after a restart", "lost+found", 1, 2, 3, 4)

	mode(t, root, "a", 0)
	step(c, "a folder", root+"/a: permission denied", 1, 2, 3, 4)
	mode(t, root, "b.json", 0)
	step(c, "and a manifest", root+"/b.json: permission denied", 1, 2, 3, 4)
	step(c, "still", root+"/a: permission denied", 1, 2, 3, 4)
	if _, err := c.Get(t.Context(), upstreamtest.ID(1)); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("an image in a folder that cannot be read: %v", err)
	}
	if _, err := c.Get(t.Context(), upstreamtest.ID(7)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image that was never there: %v", err)
	}
	if got := read(t, c, image(2), 0); string(got) != "the image" {
		t.Errorf("the file of a manifest that cannot be read: %q", got)
	}
	restarted := newClient(t, Options{URL: root})
	step(restarted, "after a restart", root+"/a: permission denied", 1, 2, 3, 4)
	if _, err := restarted.File(t.Context(), image(1), 0, 0); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("a file that may be there: %v", err)
	}
	mode(t, root, "", 0o777)
	if err := os.Remove(filepath.Join(root, "d.json")); err != nil {
		t.Fatal(err)
	}
	step(c, "another image goes", root+"/a: permission denied", 1, 2, 3)
	others, err := newClient(t, Options{URL: root}).List(t.Context(), manifest.Listing{Images: l.Images})
	if err != nil || !slices.Equal(ids(others.Images), smallIDs(3, 4)) {
		t.Errorf("after another source's list: %v, %v", ids(others.Images), err)
	}

	mode(t, root, "a", 0o755)
	mode(t, root, "b.json", 0o644)
	mode(t, root, "lost+found", 0o755)
	mode(t, root, "c/file", 0)
	step(c, "an image's file", root+"/c/file: permission denied", 1, 2, 3)
	if st, err := c.File(t.Context(), image(3), 0, 0); !errors.Is(err, fs.ErrPermission) {
		if err == nil {
			st.Close()
		}
		t.Errorf("a file that cannot be read: %v", err)
	}
	mode(t, root, "c/file", 0o644)
	step(c, "all is well again", "", 1, 2, 3)
}
