package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// tree writes files into a new folder; a name that ends in "/" is a folder, a content that begins with "-> " a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(content, "-> "); link {
			err = os.Symlink(to, at)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func v2(n int, extra map[string]any, files ...[]byte) string {
	return string(upstreamtest.Manifest(upstreamtest.ID(n), "name", "1.0", extra, files...))
}

func v1(n int, extra map[string]any, files ...[]byte) string {
	return string(upstreamtest.ManifestV1(upstreamtest.ID(n), "name", "1.0", extra, files...))
}

func TestDirectoryFindsFiles(t *testing.T) {
	data, second := []byte("the image"), []byte("its second file")
	for _, test := range []struct {
		name, manifest, doc string
		files               map[string]string
		index               int
	}{
		{"manifest.json and file", "u/manifest.json", v2(1, nil, data), map[string]string{"u/file": "the image"}, 0},
		{"manifest.json and file0", "u/manifest.json", v2(1, nil, data), map[string]string{"u/file0": "the image"}, 0},
		{"manifest.json and file1", "u/manifest.json", v2(1, nil, data, second), map[string]string{"u/file1": "its second file"}, 1},
		{"manifest.json and path", "u/manifest.json", v1(1, nil, data), map[string]string{"u/name-1.0.zfs": "the image", "u/file": "another!!"}, 0},
		{"manifest.json and a derived name", "u/manifest.json", v2(1, nil, data), map[string]string{"u/name-1.0.zfs": "the image"}, 0},
		{"manifest.json and any name", "u/manifest.json", v2(1, nil, data), map[string]string{"u/it.raw": "the image", "u/icon.png": "an icon!!", "u/README": "what it is"}, 0},
		{"at the top", "manifest.json", v2(1, nil, data), map[string]string{"file": "the image"}, 0},
		{"imgmanifest", "my.imgmanifest", v2(1, nil, data), map[string]string{"my.zfs.gz": "the image"}, 0},
		{"imgmanifest with dots", "my-1.2.imgmanifest", v2(1, nil, data), map[string]string{"my-1.2.zvol.xz": "the image"}, 0},
		{"dsmanifest", "my.dsmanifest", v1(1, nil, data), map[string]string{"my.zfs.bz2": "the image"}, 0},
		{"json", "my.json", v2(1, nil, data), map[string]string{"my": "the image"}, 0},
		{"in a folder", "sub/my.imgmanifest", v2(1, nil, data), map[string]string{"sub/my.zfs": "the image", "my.zfs": "elsewhere"}, 0},
		{"the one with the right size", "my.json", v2(1, nil, data), map[string]string{"my.zfs.gz": "too long for it", "my.zfs.xz": "the image"}, 0},
		{"no size stated", "my.json", strings.Replace(v2(1, nil, data), `"size":9`, `"note":9`, 1), map[string]string{"my.zfs.gz": "the image"}, 0},
		{"second file", "my.json", v2(1, nil, data, second), map[string]string{"my.zfs": "the image", "my-1.zfs": "its second file"}, 1},
		{"path in a folder", "my.json", v1(1, map[string]any{"files": []any{map[string]any{"path": "deep/er/f.gz", "size": 9}}}),
			map[string]string{"deep/er/f.gz": "the image"}, 0},
		{"link within the folder", "my.json", v2(1, nil, data), map[string]string{"my.zfs": "-> sub/real", "sub/real": "the image"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.files[test.manifest] = test.doc
			for _, address := range []string{tree(t, test.files), "file://" + tree(t, test.files)} {
				c := newClient(t, Options{URL: address})
				l, err := c.List(t.Context(), manifest.Listing{})
				if err != nil || len(l.Images) != 1 || l.Kind != kindDirectory || c.Kind() != kindDirectory || l.Source != "test" {
					t.Fatalf("%+v, %v", l, err)
				}
				want := [][]byte{data, second}[test.index]
				if got := read(t, c, l.Images[0], test.index); !bytes.Equal(got, want) {
					t.Errorf("%q", got)
				}
				st, err := c.File(t.Context(), l.Images[0], test.index, 4)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(st)
				if err != nil || !bytes.Equal(got, want[4:]) || st.Size != int64(len(want)) || st.ModTime.IsZero() {
					t.Errorf("from 4: %q of %d, %v, %v", got, st.Size, st.ModTime, err)
				}
				st.Close()
			}
		})
	}
}

func TestDirectoryRefuses(t *testing.T) {
	data := []byte("the image")
	outside := tree(t, map[string]string{"secret": "the image", "m.json": v2(9, nil, data)})
	climb := v1(1, map[string]any{"files": []any{map[string]any{"path": "../secret", "size": 9}}})
	absolute := v1(1, map[string]any{"files": []any{map[string]any{"path": outside + "/secret", "size": 9}}})
	for _, test := range []struct {
		name  string
		files map[string]string
		match error
	}{
		{"no file", map[string]string{"m.json": v2(1, nil, data)}, fs.ErrNotExist},
		{"a path that climbs", map[string]string{"m.json": climb}, fs.ErrNotExist},
		{"an absolute path", map[string]string{"m.json": absolute}, fs.ErrNotExist},
		{"a link that leads out", map[string]string{"m.json": v2(1, nil, data), "m.zfs": "-> " + outside + "/secret"}, fs.ErrPermission},
		{"a relative link that leads out", map[string]string{"m.json": v2(1, nil, data), "m.zfs": "-> ../../" + filepath.Base(filepath.Dir(outside)) + "/" + filepath.Base(outside) + "/secret"}, fs.ErrPermission},
		{"a folder", map[string]string{"m.json": v2(1, nil, data), "m.zfs/": ""}, fs.ErrNotExist},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := tree(t, test.files)
			if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
				t.Fatal(err)
			}
			c := newClient(t, Options{URL: root})
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil || !slices.Equal(ids(l.Images), smallIDs(1, 2)) {
				t.Fatalf("%v, %v", ids(l.Images), err)
			}
			st, err := c.File(t.Context(), l.Images[0], 0, 0)
			if err == nil {
				st.Close()
			}
			if !errors.Is(err, test.match) || errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("error %v, want %v", err, test.match)
			}
		})
	}
}

func TestDirectoryDoesNotWaitForAPipe(t *testing.T) {
	root := tree(t, map[string]string{"m.json": v2(1, nil, []byte("x"))})
	for _, name := range []string{"m.zfs", "p.json"} {
		if err := unix.Mkfifo(filepath.Join(root, name), 0o600); err != nil {
			t.Skip("no named pipes here:", err)
		}
	}
	c := newClient(t, Options{URL: root})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.File(t.Context(), l.Images[0], 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	dir, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, _, err := dir.openFile("m.zfs"); err == nil { // it came after the look at what it is
		t.Error("a pipe was opened as a file")
	}
}

func TestDirectoryListing(t *testing.T) {
	root := tree(t, map[string]string{
		"a.json": v2(1, nil), "b/manifest.json": v2(2, nil), "c.imgmanifest": v2(1, map[string]any{"name": "again"}),
		".hidden.json": v2(3, nil), ".git/m.json": v2(4, nil), "deep/er/m.json": v2(5, nil), "notes.json": `{"a":1}`,
		"list.json": "[]", "README": "x", "bad.json": "{",
	})
	c := newClient(t, Options{URL: root, Kind: kindDirectory})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || !slices.Equal(ids(l.Images), smallIDs(1, 3)) || l.Images[0].Name != "name" {
		t.Fatalf("%v, %v", ids(l.Images), err)
	}
	if l.Refusals.Refused != 4 { // notes, list, bad, and the second of a uuid
		t.Errorf("refused: %+v", l.Refusals)
	}

	unchanged := func(c *Client) bool {
		t.Helper()
		_, err := c.List(t.Context(), l)
		if err != nil && !errors.Is(err, manifest.ErrNotModified) {
			t.Fatal(err)
		}
		return err != nil
	}
	if !unchanged(c) || !unchanged(newClient(t, Options{URL: root})) {
		t.Error("nothing has changed, and it says otherwise")
	}
	changes := map[string]func(string) error{
		"a new file": func(root string) error { return os.WriteFile(filepath.Join(root, "b/file"), nil, 0o600) },
		"a time": func(root string) error {
			return os.Chtimes(filepath.Join(root, "a.json"), time.Time{}, time.Unix(1e9, 0))
		},
		"a name": func(root string) error {
			return os.Rename(filepath.Join(root, "README"), filepath.Join(root, "README2"))
		},
		"a file gone": func(root string) error { return os.Remove(filepath.Join(root, "list.json")) },
	}
	for name, change := range changes {
		if err := change(root); err != nil {
			t.Fatal(err)
		}
		if unchanged(c) {
			t.Errorf("%s has changed unnoticed", name)
		}
		if l, err = c.List(t.Context(), manifest.Listing{}); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.WriteFile(filepath.Join(root, "new.json"), []byte(v2(6, nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Get(t.Context(), upstreamtest.ID(6)); err != nil || m.UUID != upstreamtest.ID(6) {
		t.Errorf("a new image: %v", err)
	}
	if _, err := c.Get(t.Context(), upstreamtest.ID(7)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown image: %v", err)
	}
}

// What imgadm create leaves in a folder is an active image of the time of its manifest's file, with a numeric version too.
func TestDirectoryCreated(t *testing.T) {
	root := tree(t, map[string]string{
		"a.imgmanifest": `{"v":2,"uuid":"` + upstreamtest.ID(1).String() + `","name":"n","version":1.10,"type":"other","os":"other","files":[{"sha1":"` +
			strings.Repeat("a", 40) + `","size":"1","compression":"gzip"}]}`,
		"b.json": `{"v":2,"uuid":"` + upstreamtest.ID(2).String() + `","name":"n","version":true,"type":"other","os":"other"}`,
	})
	day := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
	if err := os.Chtimes(filepath.Join(root, "a.imgmanifest"), day, day); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{URL: root, Kind: kindDirectory})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || len(l.Images) != 1 {
		t.Fatalf("%d images, %v", len(l.Images), err)
	}
	if m := l.Images[0]; !m.Listable() || !m.Published.Equal(day.Truncate(time.Second)) || m.Version != "1.10" || m.Files[0].Size != 1 {
		t.Errorf("listed as %s", m.V2())
	}
	if f, ok := l.Refusals.Of(upstreamtest.ID(2)); !ok || !strings.Contains(f.Reason, "b.json") || !strings.Contains(f.Reason, "version: ") {
		t.Errorf("the other is refused as %+v", f)
	}
}

// After a restart a file may be asked for before any list, and an image may be newer than the last one.
func TestDirectoryFileWithoutAList(t *testing.T) {
	data := []byte("the image")
	root := tree(t, map[string]string{"a.json": v2(1, nil, data), "a.zfs": "the image"})
	c := newClient(t, Options{URL: root, RateLimit: 1 << 20})
	if got := read(t, c, parse(t, []byte(v2(1, nil, data))), 0); !bytes.Equal(got, data) {
		t.Errorf("%q", got)
	}
	for name, content := range map[string]string{"b.json": v2(2, nil, data), "b.zfs": "the image"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, c, parse(t, []byte(v2(2, nil, data))), 0); !bytes.Equal(got, data) {
		t.Errorf("%q", got)
	}
	if _, err := c.File(t.Context(), parse(t, []byte(v2(3, nil, data))), 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image that is not there: %v", err)
	}
	if _, err := c.File(t.Context(), parse(t, []byte(v2(2, nil, data))), 0, 10); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("beyond the end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	st, err := c.File(ctx, parse(t, []byte(v2(1, nil, data))), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cancel()
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context: %v", err)
	}
}

func TestDirectoryThatIsAwayIsNotEmpty(t *testing.T) {
	root := tree(t, map[string]string{"a.json": v2(1, nil)})
	c := newClient(t, Options{URL: root})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.List(t.Context(), l); !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list: %v", err)
	}
	if _, err := c.Get(t.Context(), upstreamtest.ID(2)); !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	if _, err := c.File(t.Context(), l.Images[0], 0, 0); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("file: %v", err)
	}
	if err := os.Mkdir(root, 0o755); err != nil { // a mount point without its mount
		t.Fatal(err)
	}
	if _, err := c.List(t.Context(), l); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("empty for the first time: %v", err)
	}
	if l, err := c.List(t.Context(), l); err != nil || len(l.Images) != 0 {
		t.Errorf("empty for the second time: %v", err)
	}
}

func TestDirectoryIconAndMetrics(t *testing.T) {
	root := tree(t, map[string]string{"u/manifest.json": v2(1, map[string]any{"icon": true}), "u/icon.gif": "GIF89a"})
	c := newClient(t, Options{URL: root})
	m, err := c.Get(t.Context(), upstreamtest.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Icon(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if got, err := io.ReadAll(st); err != nil || string(got) != "GIF89a" || st.ContentType != "image/gif" {
		t.Errorf("%q of type %s, %v", got, st.ContentType, err)
	}
	if got := value(t, c.metrics.received); got != 6 {
		t.Errorf("%v bytes received", got)
	}
	if err := os.Remove(filepath.Join(root, "u/icon.gif")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Icon(t.Context(), m); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no icon: %v", err)
	}
}
