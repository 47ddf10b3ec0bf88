package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Spec 1.6, row by row.
func TestV1(t *testing.T) {
	const base = "http://mirror.example:8080"
	const url = base + "/datasets/" + idA + "/"
	f := func(name, in string, want map[string]any) {
		t.Helper()
		v1 := parse(t, in).V1(base, "")
		got := object(t, v1)
		for key, value := range want {
			if diff := cmp.Diff(value, got[key]); diff != "" {
				t.Errorf("%s: %s: %s\n%s", name, key, diff, v1)
			}
		}
		if err := dsapiAccepts(v1, base); err != nil {
			t.Errorf("%s: %v\n%s", name, err, v1)
		}
	}
	file := func(path, compression string) []any {
		return []any{map[string]any{"sha1": sha1A, "size": 42.0, "compression": compression, "path": path, "url": url + path}}
	}

	f("from v2", v2With(fileA+`,"eula":"http://x","error":{},"icon":true,"requirements":{"brand":"lx"},"users":[],"homepage":"http://y",`+
		`"origin":"`+idC+`","tags":{"a":1},"x":[1]`), map[string]any{
		"creator_uuid": idB, "vendor_uuid": idB, "creator_name": "sdc", "cloud_name": "sdc", "urn": "sdc:sdc:base:1.0", "platform_type": "smartos",
		"published_at": "2014-01-02T03:04:05Z", "created_at": "2014-01-02T03:04:05Z", "updated_at": "2014-01-02T03:04:05Z",
		"files":        file("base-1.0.zfs.gz", "gzip"),
		"requirements": map[string]any{"brand": "lx"}, "users": []any{}, "homepage": "http://y", "origin": idC, "tags": map[string]any{"a": 1.0}, "x": []any{1.0},
	})
	f("urn given", v2With(fileA+`,"urn":"smartos:acme:base:1.0"`), map[string]any{
		"creator_name": "acme", "cloud_name": "smartos", "urn": "smartos:acme:base:1.0"})
	f("urn odd", v2With(fileA+`,"urn":"base"`), map[string]any{"creator_name": "sdc", "cloud_name": "base", "urn": "base"})
	f("spaces in the name", strings.Replace(v2With(fileA), `"base"`, `"my own base"`, 1), map[string]any{
		"urn": "sdc:sdc:my-own-base:1.0", "files": file("my_own_base-1.0.zfs.gz", "gzip")})
	f("no owner", strings.Replace(v2With(fileA), `"owner":"`+idB+`",`, ``, 1), map[string]any{"creator_uuid": unsetOwner})
	f("zvol", strings.Replace(v2With(`,"image_size":10240`+fileA), "zone-dataset", "zvol", 1), map[string]any{
		"image_size": "10240", "files": file("base-1.0.zvol.gz", "gzip")})
	f("image_size of no zvol", v2With(`,"image_size":10240`+fileA), map[string]any{"image_size": 10240.0})
	f("dataset_guid", v2With(strings.Replace(fileA, `"size"`, `"dataset_guid":"17445958905298415412","size"`, 1)), map[string]any{
		"files": []any{map[string]any{"sha1": sha1A, "size": 42.0, "compression": "gzip", "path": "base-1.0.zfs.gz", "url": url + "base-1.0.zfs.gz",
			"dataset_guid": "17445958905298415412"}}})

	f("remembered", v1With(`,"vendor_uuid":"`+idC+`","creator_name":"acme","cloud_name":"cloud","urn":"a:b:c:d","created_at":"2001-01-01T00:00Z",`+
		`"files":[{"path":"own name.zfs.xz","sha1":"`+sha1A+`","size":"42","md5":"x","url":"http://elsewhere/x"}]`), map[string]any{
		"creator_uuid": idB, "vendor_uuid": idC, "creator_name": "acme", "cloud_name": "cloud", "urn": "a:b:c:d", "created_at": "2014-01-02T03:04:05Z",
		"files": []any{map[string]any{"sha1": sha1A, "size": 42.0, "compression": "xz", "path": "own name.zfs.xz", "url": url + "own%20name.zfs.xz"}}})
	f("creator empty", strings.Replace(v1With(`,"vendor_uuid":""`+fileA), idB, "", 1), map[string]any{
		"creator_uuid": unsetOwner, "vendor_uuid": unsetOwner})
	f("members of v1 in v2", v2With(fileA+`,"creator_name":"acme","created_at":"2001-01-01T00:00Z","platform_type":"x"`), map[string]any{
		"creator_name": "acme", "platform_type": "smartos", "created_at": "2014-01-02T03:04:05Z"})
	f("white space", "{\n  "+v2With(fileA)[1:], map[string]any{"creator_uuid": idB})

	if v1 := (Manifest{}).V1(base, ""); v1 != nil {
		t.Errorf("of nothing: %s", v1)
	}
}

// Spec 1.6 (files[].path), A5: derived names, and that they are unique.
func TestFilePath(t *testing.T) {
	f := func(in string, want ...string) {
		t.Helper()
		m := parse(t, in)
		var got []string
		for i := range m.Files {
			got = append(got, m.FilePath(i))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
		if m.FilePath(-1) != "" || m.FilePath(len(m.Files)) != "" {
			t.Error("a path for no file")
		}
	}
	files := func(entries ...string) string { return `,"files":[{` + strings.Join(entries, `},{`) + `}]` }
	f(v2With(files(`"compression":"gzip"`)), "base-1.0.zfs.gz")
	f(v2With(files(`"compression":"bzip2"`)), "base-1.0.zfs.bz2")
	f(v2With(files(`"compression":"xz"`)), "base-1.0.zfs.xz")
	f(v2With(files(`"compression":"none"`)), "base-1.0.zfs")
	f(v2With(files(`"compression":"gzip"`, `"compression":"none"`, `"compression":"xz"`)), "base-1.0.zfs.gz", "base-1.0-1.zfs", "base-1.0-2.zfs.xz")
	f(strings.Replace(v2With(files(`"compression":"gzip"`, `"compression":"gzip"`)), "zone-dataset", "zvol", 1), "base-1.0.zvol.gz", "base-1.0-1.zvol.gz")
	f(strings.Replace(v2With(files(``)), `"base"`, `"a/b é+"`, 1), "a_b__+-1.0.zfs")

	f(v1With(files(`"path":"x.zvol.bz2"`)), "x.zvol.bz2")
	f(v1With(files(`"path":"x.gz"`, `"path":"y.gz"`)), "x.gz", "y.gz")
	f(v1With(files(`"path":"x.gz"`, `"path":"x.gz"`)), "x.gz", "base-1.0-1.zfs.gz")
	f(v1With(files(`"path":"base-1.0-1.zfs.gz"`, `"url":"http://h/y.gz"`)), "base-1.0-1.zfs.gz", "_base-1.0-1.zfs.gz")
	for _, bad := range []string{``, `.`, `..`, `a/b.gz`, `../x`, `/x`, `a\\b`, `a\u0000b`, `a\nb`, `a\u007fb`} {
		f(v1With(files(`"compression":"none","path":"`+bad+`"`)), "base-1.0.zfs")
	}
	f(v1With(files(`"path":"ü %2F?.gz"`)), "ü %2F?.gz")
}

func TestURN(t *testing.T) {
	for _, in := range []string{
		v2With(fileA), v2With(fileA + `,"urn":"a:b:c:d"`), v2With(fileA + `,"urn":""`), v2With(fileA + `,"urn":7`),
		strings.Replace(v2With(fileA), `"base"`, `"my \u00e9 base"`, 1),
		v1With(fileA), v1With(`,"creator_name":"acme","cloud_name":"cloud"` + fileA),
	} {
		m := parse(t, in)
		if got, want := m.URN(), object(t, m.V1("http://x", ""))["urn"]; got != want {
			t.Errorf("%q, but V1 has %q: %s", got, want, in)
		}
	}
	if got := (Manifest{}).URN(); got != "" {
		t.Errorf("the zero Manifest has %q", got)
	}
}
