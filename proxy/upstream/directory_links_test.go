package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// link makes a symbolic link at below root.
func link(t *testing.T, root, at, to string) {
	t.Helper()
	at = filepath.Join(root, at)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// Links that stay in the folder work, by whatever path they name it, and however the source names it.
func TestDirectoryLinksInside(t *testing.T) {
	data := []byte("the image")
	for _, test := range []struct {
		name  string
		files map[string]string
		links map[string]string // at → to, where ROOT and ALIAS are two paths of the folder
	}{
		{"a file", map[string]string{"u/manifest.json": v2(1, nil, data), "store/a": "the image"}, map[string]string{"u/file": "ROOT/store/a"}},
		{"a file by the other path", map[string]string{"u/manifest.json": v2(1, nil, data), "store/a": "the image"}, map[string]string{"u/file": "ALIAS/store/a"}},
		{"a file far below", map[string]string{"m.json": v2(1, nil, data), "a/b/c": "the image"}, map[string]string{"m.zfs": "ROOT/a/b/c"}},
		{"an image's folder", map[string]string{"deep/er/u/manifest.json": v2(1, nil, data), "deep/er/u/file": "the image"}, map[string]string{"u": "ALIAS/deep/er/u"}},
		{"a folder beside it", map[string]string{"u/manifest.json": v2(1, nil, data), "u/file": "the image"}, map[string]string{"v": "u", "w": "ROOT/u"}},
		{"the folder itself", map[string]string{"m.json": v2(1, nil, data), "m.zfs": "the image"}, map[string]string{"self": "ROOT", "again": "."}},
		{"a manifest", map[string]string{"a/b/m.json": v2(1, nil, data), "n.zfs": "the image"}, map[string]string{"n.json": "ROOT/a/b/m.json"}},
		{"a manifest with its file beside it", map[string]string{"a/b/m.json": v2(1, nil, data), "a/b/m.zfs": "the image"}, map[string]string{"n.json": "a/b/m.json"}},
		{"out and back", map[string]string{"u/manifest.json": v2(1, nil, data), "a": "the image"}, map[string]string{"u/file": "../../BASE/a"}},
		{"a chain", map[string]string{"u/manifest.json": v2(1, nil, data), "a": "the image"},
			map[string]string{"u/file": "l0", "u/l0": "ALIAS/l1", "l1": "u/l2", "u/l2": "ROOT/l3", "l3": "u/../l4", "l4": "a"}},
		{"a long chain", map[string]string{"m.json": v2(1, nil, data), "l12": "the image"}, chain(12)},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, alias := tree(t, test.files), filepath.Join(t.TempDir(), "alias")
			link(t, "/", alias, root)
			for at, to := range test.links {
				link(t, root, at, strings.NewReplacer("ROOT", root, "ALIAS", alias, "BASE", filepath.Base(root)).Replace(to))
			}
			for _, address := range []string{root, alias, "file://" + alias} {
				c := newClient(t, Options{URL: address, Kind: kindDirectory})
				l, err := c.List(t.Context(), manifest.Listing{})
				if err != nil || len(l.Images) != 1 || l.Trouble != "" {
					t.Fatalf("%s: %d images, %v, trouble %q", address, len(l.Images), err, l.Trouble)
				}
				if got := read(t, c, l.Images[0], 0); !bytes.Equal(got, data) {
					t.Errorf("%s: %q", address, got)
				}
			}
		})
	}
}

// chain is links in a row, from m.zfs to the one of number n.
func chain(n int) map[string]string {
	links := map[string]string{"m.zfs": "l1"}
	for i := 1; i < n; i++ {
		links[fmt.Sprint("l", i)] = fmt.Sprint("l", i+1)
	}
	return links
}

// What leads out is refused, and said so in words that name the link; what leads nowhere is named too. The rest is served.
func TestDirectoryLinksOut(t *testing.T) {
	data := []byte("the image")
	outside := tree(t, map[string]string{"secret": "the image", "m.json": v2(9, nil, data), "u/manifest.json": v2(8, nil, data)})
	for _, test := range []struct {
		name   string
		links  map[string]string // with m.json there
		said   string            // by the list, after the folder
		reason error             // of the file
	}{
		{"a file", map[string]string{"m.zfs": outside + "/secret"}, "/m.zfs leads out of ", fs.ErrPermission},
		{"a file that is not there", map[string]string{"m.zfs": outside + "/gone"}, "/m.zfs leads out of ", fs.ErrPermission},
		{"a file by two links", map[string]string{"m.zfs": "x/secret", "x": outside}, "/m.zfs leads out of ", fs.ErrPermission},
		{"a file by its folder", map[string]string{"x": outside}, "/x leads out of ", fs.ErrNotExist},
		{"a manifest", map[string]string{"n.json": outside + "/m.json"}, "/n.json leads out of ", fs.ErrNotExist},
		{"an image's folder", map[string]string{"v": outside + "/u"}, "/v leads out of ", fs.ErrNotExist},
		{"the folder above", map[string]string{"m.zfs": ".."}, "/m.zfs leads out of ", fs.ErrPermission},
		{"a name that begins like the folder", map[string]string{"m.zfs": "ROOT-not"}, "/m.zfs leads out of ", fs.ErrPermission},
		{"a ring", map[string]string{"m.zfs": "y", "y": "m.zfs"}, "/m.zfs: ", verify.ErrUnavailable},
		{"a ring of absolute links", map[string]string{"m.zfs": "ROOT/y", "y": "ROOT/m.zfs"}, "/m.zfs: ", verify.ErrUnavailable},
		{"a link to itself", map[string]string{"m.json~": "x", "n.json": "n.json"}, "/n.json: ", fs.ErrNotExist},
		{"nothing", map[string]string{"m.zfs": "ROOT/gone"}, "/m.zfs is a link to nothing", verify.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := tree(t, map[string]string{"m.json": v2(1, nil, data)})
			if err := os.WriteFile(root+"-not", data, 0o600); err != nil {
				t.Fatal(err)
			}
			for at, to := range test.links {
				link(t, root, at, strings.ReplaceAll(to, "ROOT", root))
			}
			c := newClient(t, Options{URL: root})
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil || !slices.Equal(ids(l.Images), smallIDs(1, 2)) {
				t.Fatalf("%v, %v", ids(l.Images), err)
			}
			if !strings.Contains(l.Trouble, root+test.said) {
				t.Errorf("trouble %q", l.Trouble)
			}
			st, err := c.File(t.Context(), l.Images[0], 0, 0)
			if err == nil {
				st.Close()
			}
			if !errors.Is(err, test.reason) {
				t.Errorf("file: %v", err)
			}
			if _, err := c.List(t.Context(), l); !errors.Is(err, manifest.ErrNotModified) {
				t.Errorf("again: %v", err)
			}
		})
	}
}
