package upstream

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
)

// The trees that other servers and imgadm keep are read, with manifests of either version and files packed in any way.
func TestDirectoryNeighboursForms(t *testing.T) {
	data := []byte("the image")
	id := upstreamtest.ID(1).String()
	inRecord := func(doc string) string {
		return `{"manifest": ` + doc + `, "zpool": "zones", "source": "https://images.example.com"}`
	}
	for _, version := range []struct{ name, doc string }{{"v1", v1(1, nil, data)}, {"v2", v2(1, nil, data)}} {
		for _, test := range []struct{ name, manifest, doc, file string }{
			{"Danube's tree", id + "/manifest", version.doc, id + "/file"},
			{"Danube's tree of many files", id + "/manifest", version.doc, id + "/file0"},
			{"imgadm's record in a folder", id + "/manifest.json", inRecord(version.doc), id + "/file"},
			{"imgadm's record", "zones-" + id + ".json", inRecord(version.doc), "zones-" + id + ".zfs.gz"},
			{"imgadm's record, bzip2", "zones-" + id + ".json", inRecord(version.doc), id + ".zfs.bz2"},
			{"imgadm's record, xz", "zones-" + id + ".json", inRecord(version.doc), id + ".zvol.xz"},
			{"imgadm's record, not packed", "zones-" + id + ".json", inRecord(version.doc), id + ".zfs"},
			{"imgadm's record, its download", "zones-" + id + ".json", inRecord(version.doc), id + ".file"},
			{"imgadm's record, named by name and version", "zones-" + id + ".json", inRecord(version.doc), "name-1.0.zfs"},
			{"imgadm's record, a folder beside it", "zones-" + id + ".json", inRecord(version.doc), id + "/file"},
			{"a record with spaces and a mark", "r.json", "\ufeff\n" + inRecord(version.doc), "r.zfs.gz"},
			{"a manifest named by its uuid", id + ".json", version.doc, id + ".zfs.xz"},
		} {
			t.Run(version.name+" "+test.name, func(t *testing.T) {
				c := newClient(t, Options{URL: tree(t, map[string]string{test.manifest: test.doc, test.file: "the image"})})
				l, err := c.List(t.Context(), manifest.Listing{})
				if err != nil || !slices.Equal(ids(l.Images), smallIDs(1, 2)) {
					t.Fatalf("%v, %v", ids(l.Images), err)
				}
				if got := read(t, c, l.Images[0], 0); !bytes.Equal(got, data) {
					t.Errorf("%q", got)
				}
			})
		}
	}
}

// What is no image is passed over: copies that editors keep, empty folders, pipes and sockets. None of it is taken for the file.
func TestDirectoryPassesOver(t *testing.T) {
	data := []byte("the image")
	root := tree(t, map[string]string{
		"u/manifest.json": v2(1, nil, data), "u/a.zfs.gz~": "the image", "u/.a.zfs.gz.swp": "the image", "u/a.swp": "the image",
		"u/zzz.zfs.gz": "the wrong size", "u/manifest.json~": v2(2, nil), "w/manifest~": v2(3, nil), "#x.json#": v2(4, nil), "empty/": "",
		"x.json.swp": v2(5, nil),
	})
	for _, name := range []string{"u/file", "pipe", "p.json", "u/manifest"} {
		if err := unix.Mkfifo(filepath.Join(root, name), 0o600); err != nil {
			t.Skip("no named pipes here:", err)
		}
	}
	c := newClient(t, Options{URL: root})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || !slices.Equal(ids(l.Images), smallIDs(1, 2)) || l.Trouble != "" {
		t.Fatalf("%v, %v, trouble %q", ids(l.Images), err, l.Trouble)
	}
	if got := read(t, c, l.Images[0], 0); string(got) != "the wrong size" { // as the only one that is no copy
		t.Errorf("%q", got)
	}

	pipe := filepath.Join(root, "pipe")
	if _, err := newClient(t, Options{URL: pipe, Kind: kindDirectory}).List(t.Context(), manifest.Listing{}); err == nil {
		t.Error("a pipe is taken for a folder")
	}
	if _, err := os.Stat(pipe); err != nil {
		t.Error(err)
	}
}
