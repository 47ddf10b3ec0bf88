package proxy

import (
	"slices"
	"strings"
	"testing"

	"imgmirror/manifest"
)

const someUUID = "cc707720-4b0b-4d4c-8d5c-0f5d0a5e5f01"

func TestMatch(t *testing.T) {
	f := func(path string, want *route) {
		t.Helper()
		segs, ok := splitPath(path)
		if !ok {
			t.Errorf("%q: not well encoded", path)
			return
		}
		if got := match(segs); got != want {
			t.Errorf("%q: %+v, want %+v", path, got, want)
		}
	}
	f("/", routeIndex)
	f("/ping", routePing)
	f("/ping/", routePing)
	f("/images", routeImages)
	f("/images/", routeImages)
	f("/images/x", routeImage)
	f("/images/x/", routeImage)
	f("/images/x/file", routeFile)
	f("/images/x/file/", routeFile)
	f("/images/x/file0", routeFile)
	f("/images/x/file17", routeFile)
	f("/images/x/icon", routeIcon)
	f("/images/x/acl", routeWrite)
	f("/images/x/clone", routeWrite)
	f("/images/x/push", routeWrite)
	f("/images/x/file/from-url", routeWrite)
	f("/authkeys/reload", routeWrite)
	f("/state", routeState)
	f("/datasets", routeDatasets)
	f("/datasets/", routeDatasets)
	f("/datasets/x", routeDataset)
	f("/datasets/sdc%3Asdc:base%3A1", routeDataset)
	f("/datasets/x/y", routeDatasetFile)
	f("/readyz", routeReady)
	f("/"+someUUID+"/base.zfs.gz", routeStaticFile)
	f("/%70ing", routePing) // decoded once

	// Not there.
	f("//", nil)
	f("//ping", nil)
	f("/ping//", nil)
	f("//images", nil)
	f("/images//", nil)
	f("/images//file", nil)
	f("/images/x//file", nil)
	f("/images/./file", routeFile) // "." is no uuid: the handler's 404
	f("/images/../ping", nil)
	f("/../ping", nil)
	f("/images/x/file-1", nil)
	f("/images/x/file1x", nil)
	f("/images/x/fileX", nil)
	f("/images/x/jobs", nil)
	f("/images/x/file/y", nil)
	f("/images%2Fx", nil)
	f("/%2570ing", nil) // and not twice
	f("/PING", nil)
	f("/channels", routeChannels) // where there are none: the dispatcher's 404
	f("/channels/", routeChannels)
	f("/channels/x", nil)
	f("/docs", nil)
	f("/favicon.ico", nil)
	f("/datasets/x/y/z", nil)
	f("/"+strings.ToUpper(someUUID)+"/base.zfs.gz", nil)
	f("/"+someUUID, nil)
	f("/authkeys", nil)
}

func TestSplitPathRefusesBrokenEncoding(t *testing.T) {
	for _, path := range []string{"/%", "/images/%2", "/images/%zz", "/images/%G0/file"} {
		if segs, ok := splitPath(path); ok {
			t.Errorf("%q: %q", path, segs)
		}
	}
}

func TestParseTarget(t *testing.T) {
	f := func(target, rest, path, query string) {
		t.Helper()
		r, p, q, ok := parseTarget(target)
		if !ok || r != rest || p != path || q != query {
			t.Errorf("%q: %q %q %q %v, want %q %q %q", target, r, p, q, ok, rest, path, query)
		}
	}
	f("/", "/", "/", "")
	f("/images?name=x", "/images?name=x", "/images", "name=x")
	f("/images?a?b", "/images?a?b", "/images", "a?b")
	f("/images#frag?x", "/images", "/images", "")
	f("//x/ping", "//x/ping", "//x/ping", "")
	f("http://any.host:81/datasets/U/x.zfs.gz", "/datasets/U/x.zfs.gz", "/datasets/U/x.zfs.gz", "")
	f("https://h/ping?error=x", "/ping?error=x", "/ping", "error=x")
	f("HTTP://h//ping", "//ping", "//ping", "")
	f("http://h", "/", "/", "")
	f("http://h?x=1", "/?x=1", "/", "x=1")
	f("http://", "/", "/", "")
	f("/http://h/ping", "/http://h/ping", "/http://h/ping", "")

	bad := func(target string) {
		t.Helper()
		if r, _, _, ok := parseTarget(target); ok {
			t.Errorf("%q: %q", target, r)
		}
	}
	bad("")
	bad("*")
	bad("ping")
	bad("host:80")
	bad("../ping")
	bad("://h/ping")
	bad("ht tp://h/ping")
}

func TestFileIndex(t *testing.T) {
	f := func(seg string, want int, wantOK bool) {
		t.Helper()
		if n, ok := fileIndex(seg); ok != wantOK || ok && n != want {
			t.Errorf("%q: %d %v", seg, n, ok)
		}
	}
	f("file", 0, true)
	f("file0", 0, true)
	f("file12", 12, true)
	f("file:1", 1, true)
	f("file:", 0, false)
	f("file::1", 0, false)
	f("file2147483647", 1<<31-1, true)
	f("file2147483648", 0, false)
	f("file99999999999999999999", 0, false)
	f("file+1", 0, false)
	f("file-1", 0, false)
	f("files", 0, false)
	f("fil", 0, false)
	f("", 0, false)
}

func TestLeadingInt(t *testing.T) {
	f := func(s string, want int) {
		t.Helper()
		if got := leadingInt(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
	f("", 0)
	f("0", 0)
	f("2", 2)
	f("2abc", 2)
	f("abc", 0)
	f("-1", 0)
	f("99999999999999999999", 1<<31-1)
}

func TestParseParams(t *testing.T) {
	f := func(query string, want ...[2]string) {
		t.Helper()
		if got := parseParams(query); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	f("")
	f("&&")
	f("a=1&b=2&a=3", [2]string{"a", "1"}, [2]string{"b", "2"}, [2]string{"a", "3"})
	f("a", [2]string{"a", ""})
	f("a=b=c", [2]string{"a", "b=c"})
	f("tag.smart+dc=%7Etrue", [2]string{"tag.smart dc", "~true"})
	f("a=%zz&b=%41", [2]string{"a", "%zz"}, [2]string{"b", "A"})
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"/", "/images", "//x", "/images/%2e%2e/file", "http://h/datasets/" + someUUID + "/x.zfs.gz", "/" + someUUID + "/..%2f..",
		"/datasets/a:b:c:d", "*", "http://", "/images/x/file1?index=2#f", "/%00", "/%",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		rest, path, query, ok := parseTarget(target)
		if !ok {
			return
		}
		if !strings.HasPrefix(path, "/") || !strings.HasPrefix(rest, path) || !strings.HasSuffix(rest, query) {
			t.Fatalf("%q: rest %q path %q query %q", target, rest, path, query)
		}
		if strings.ContainsAny(path, "?#") {
			t.Fatalf("%q: path %q", target, path)
		}
		parseParams(query)
		segs, ok := splitPath(path)
		if !ok {
			return
		}
		rt := match(segs)
		if rt == nil {
			return
		}
		if !slices.Contains(allRoutes, rt) {
			t.Fatalf("%q: a route that has no metrics", target)
		}
		switch rt {
		case routeStaticFile:
			if _, ok := manifest.ParseUUID(segs[0]); !ok || len(segs) != 2 {
				t.Fatalf("%q: %q", target, segs)
			}
		case routeFile:
			if _, ok := fileIndex(segs[2]); !ok {
				t.Fatalf("%q: %q", target, segs)
			}
		case routePing:
			if strings.Count(path, "/") > 2 {
				t.Fatalf("%q: slashes were collapsed", target)
			}
		}
	})
}

// A source may send a manifest with any number of files, and anyone may ask for
// one by its path.
func TestNamedFileOfMany(t *testing.T) {
	m := manifest.Manifest{Name: "n", Version: "1", Files: make([]manifest.File, 300)}
	if index, ok := namedFile(m, "n-1-299.zfs"); !ok || index != 299 {
		t.Errorf("%d %v", index, ok)
	}
	if n := testing.AllocsPerRun(1, func() { namedFile(m, "none") }); n > 20*300 {
		t.Errorf("%v allocations for 300 files", n)
	}
}

func FuzzNamedFile(f *testing.F) {
	f.Add("base.zfs.gz")
	f.Add("file1")
	f.Add("..")
	f.Add("a/b")
	f.Fuzz(func(t *testing.T, path string) {
		m := manifest.Manifest{Files: []manifest.File{{Path: "../x", Compression: "gzip"}, {Path: "a/b"}}}
		index, ok := namedFile(m, path)
		if ok && (index < 0 || index >= len(m.Files) || strings.ContainsAny(path, "/\\") || path == "..") {
			t.Fatalf("%q: %d", path, index)
		}
	})
}
