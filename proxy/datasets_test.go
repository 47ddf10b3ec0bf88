package proxy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// several is a catalogue with a history of names and versions.
func several(t *testing.T) *fixture {
	t.Helper()
	return newFixture(t,
		image{uuid: id(1), name: "base", version: "1", published: "2014-01-01T00:00:00Z", content: []byte("1")}.v2(),
		image{uuid: id(2), name: "base", version: "2", published: "2014-01-02T00:00:00Z", content: []byte("2"),
			extra: `,"state":"disabled","disabled":true`}.v2(),
		image{uuid: id(3), name: "base", version: "3", published: "2014-01-03T00:00:00Z", content: []byte("3"),
			extra: `,"origin":"` + id(2) + `"`}.v2(),
		image{uuid: id(4), name: "mail server", version: "1.0", published: "2014-01-04T00:00:00Z", content: []byte("4")}.v2(),
		image{uuid: id(5), name: "odd", version: "7", published: "2014-01-05T00:00:00Z", content: []byte("5"),
			extra: `,"urn":"cloud:someone:else:9"`}.v2(),
		image{uuid: id(6), name: "gone", version: "1", published: "2014-01-06T00:00:00Z", content: []byte("6"),
			extra: `,"state":"disabled","disabled":true`}.v2(),
	)
}

// Spec 3.2.
func TestListDatasets(t *testing.T) {
	f := several(t).start()
	ok := func(target, want string) {
		t.Helper()
		r := f.get(target)
		if r.status != 200 || r.header.Get("Content-Type") != "application/json" || names(t, r.body) != want {
			t.Errorf("%s: %d %s, want %s", target, r.status, r.body, want)
		}
	}
	const all = "base base mail server odd"
	ok("/datasets", all)
	ok("/datasets/", all)
	ok("/datasets?limit=1&marker=x", all)
	ok("/datasets?name=base", "base base")
	ok("/datasets?name=~as", "base base")
	ok("/datasets?name=bas", "")
	ok("/datasets?version=3", "base")
	ok("/datasets?os=smartos&type=zone-dataset", all)
	ok("/datasets?type=zvol", "")
	ok("/datasets?creator_uuid=930896af-bf8c-48d4-885c-6573a94b1853", all)
	ok("/datasets?restricted_to_uuid=", all)
	ok("/datasets?restricted_to_uuid="+id(1), "")
	ok("http://any.host:81/datasets", all)
	ok("/", all)
	ok("/?anything", all)
}

func TestDatasetForm(t *testing.T) {
	f := several(t).start()
	r := f.get("/datasets/" + id(3))
	var v map[string]any
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.status != 200 {
		t.Fatalf("%d %q: %v", r.status, r.body, err)
	}
	for _, key := range []string{"v", "state", "disabled", "public", "owner"} {
		if _, ok := v[key]; ok {
			t.Errorf("%s is there: %s", key, r.body)
		}
	}
	file := v["files"].([]any)[0].(map[string]any)
	if want := "http://mirror:8080/datasets/" + id(3) + "/" + file["path"].(string); file["url"] != want {
		t.Errorf("url %v, want %s", file["url"], want)
	}
	if v["origin"] != id(2) || v["creator_uuid"] != "930896af-bf8c-48d4-885c-6573a94b1853" {
		t.Error(r.body)
	}
}

func TestDatasetByReference(t *testing.T) {
	f := several(t).start()
	ok := func(ref, want string) {
		t.Helper()
		r := f.get("/datasets/" + ref)
		var v struct{ UUID string }
		if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.status != 200 || v.UUID != want {
			t.Errorf("%s: %d %s, want %s", ref, r.status, r.body, want)
		}
	}
	ok(id(1), id(1))
	ok(id(1)+"/", id(1))
	ok(id(2), id(2)) // disabled, but an ancestor
	ok("base", id(3))
	ok("mail%20server", id(4))
	ok("base:1", id(1))
	ok("base%3A1", id(1))
	ok("sdc:sdc:base", id(3))
	ok("sdc:sdc:base:1", id(1))
	ok("sdc:sdc:mail-server:1.0", id(4))   // as the list has it
	ok("sdc:sdc:mail%20server:1.0", id(4)) // by its name
	ok("cloud:someone:else:9", id(5))      // the urn that it came with
	ok("what:ever:odd:7", id(5))           // by name and version

	bad := func(ref string) {
		t.Helper()
		f.wantError("GET", "/datasets/"+ref, 404, "ResourceNotFound", "")
	}
	bad(id(6)) // disabled, and nobody needs it
	bad(id(9))
	bad("nothing")
	bad("base:9")
	bad("a:b:nothing")
	bad("sdc:sdc:base:9")
	bad("a:b:c:d:e")
	bad("~base")
	bad(strings.ToUpper("abcdef00-0000-4000-8000-000000000001"))
}

// Spec G1: what a listed image stands on is there in whatever state it is.
func TestDatasetOfAnAncestorInAnyState(t *testing.T) {
	f := newFixture(t,
		image{uuid: id(1), content: []byte("1"), extra: `,"state":"unactivated"`}.v2(),
		image{uuid: id(2), content: []byte("2"), extra: `,"origin":"` + id(1) + `"`}.v2(),
		image{uuid: id(3), content: []byte("3"), extra: `,"state":"unactivated"`}.v2(),
		image{uuid: id(4), content: []byte("4"), extra: `,"state":"disabled","disabled":false,"origin":"` + id(3) + `"`}.v2(),
		image{uuid: id(5), content: []byte("5"), extra: `,"origin":"` + id(4) + `"`}.v2(),
		image{uuid: id(6), content: []byte("6"), extra: `,"state":"unactivated"`}.v2(),
		strings.Replace(image{uuid: id(7), content: []byte("7"), extra: `,"tags":{}`}.v2(), "zone-dataset", "docker", 1),
		strings.Replace(image{uuid: id(8), content: []byte("8"), extra: `,"tags":{},"origin":"` + id(7) + `"`}.v2(), "zone-dataset", "docker", 1),
	).start()
	for n, want := range map[int]int{1: 200, 2: 200, 3: 200, 4: 200, 5: 200, 6: 404, 7: 404, 8: 404} {
		if r := f.get("/datasets/" + id(n)); r.status != want {
			t.Errorf("%d: %d, want %d", n, r.status, want)
		}
	}
}

// Spec 2.7.
func TestSelfURL(t *testing.T) {
	base := func(f *fixture, target string, headers ...string) string {
		t.Helper()
		r := f.get(target, headers...)
		var v struct {
			Files []struct{ URL string }
		}
		if err := json.Unmarshal([]byte(r.body), &v); err != nil || len(v.Files) != 1 {
			t.Fatalf("%d %q: %v", r.status, r.body, err)
		}
		base, _, _ := strings.Cut(v.Files[0].URL, "/datasets/"+id(1)+"/")
		return base
	}
	path := "/datasets/" + id(1)
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}

	f := several(t).start()
	is(base(f, path), "http://mirror:8080")
	is(base(f, path, "Host: 10.0.0.1"), "http://10.0.0.1")
	is(base(f, path, "Host: [fd00::1]:8080"), "http://[fd00::1]:8080")
	is(base(f, "http://elsewhere:81"+path, "Host: mirror:8080"), "http://mirror:8080")
	is(base(f, path, "X-Forwarded-Proto: https"), "http://mirror:8080") // the client says what it likes
	is(base(f, path, "Host: evil!"), "http://"+f.addr)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}

	f = several(t)
	f.options.PublicURL = "https://images.example.com/sub/"
	f.start()
	is(base(f, path), "https://images.example.com/sub")
}

// What DSAPI shows, by whatever address, is the list as it is now.
func TestDatasetsFollowTheList(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), name: "one", content: []byte("1")}.v2()).start()
	shows := func(want ...string) {
		t.Helper()
		for _, target := range []string{"/datasets", "/", "/datasets?os=smartos"} {
			body := f.get(target).body
			for _, name := range []string{"one", "two"} {
				if got := strings.Contains(body, `"name":"`+name+`"`); got != slices.Contains(want, name) {
					t.Errorf("%s: image %s is shown: %v, want %v", target, name, got, want)
				}
			}
		}
	}
	shows("one")
	for _, step := range [][]string{{"one", "two"}, {"two"}, {"one"}} {
		f.source.list = func(prev manifest.Listing) manifest.Listing {
			prev.Images = nil
			for i, name := range []string{"one", "two"} {
				m, err := manifest.Parse([]byte(image{uuid: id(i + 1), name: name, content: []byte(name)}.v2()), manifest.ParseOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(step, name) {
					prev.Images = append(prev.Images, m)
				}
			}
			return prev
		}
		if err := f.options.Catalog.(*catalog.Catalog).Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		shows(step...)
	}
}

// A manifest whose path climbs names its file by another, and no request climbs.
func TestPathsThatClimb(t *testing.T) {
	text := `{"uuid":"` + id(1) + `","name":"base","version":"1.0","os":"smartos","type":"zone-dataset","published_at":"2024-01-01T00:00:00Z",` +
		`"creator_uuid":"` + id(9) + `","files":[{"path":"../../etc/passwd","sha1":"` + strings.Repeat("a", 40) + `","size":5}]}`
	f := newFixture(t, text).start()
	r := f.get("/datasets/" + id(1))
	if strings.Contains(r.body, "..") || strings.Contains(r.body, "passwd") || r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, path := range []string{"..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "../../etc/passwd", "..%5cpasswd", "passwd", "%00", "file%00", "file/..", "%2fetc%2fpasswd"} {
		for _, target := range []string{"/datasets/" + id(1) + "/" + path, "/" + id(1) + "/" + path} {
			if r := f.send("HEAD", target); r.status != 404 && r.status != 400 {
				t.Errorf("%s: %d", target, r.status)
			}
		}
	}
}

func TestAncestors(t *testing.T) {
	// A circle that no source should have, and a chain of two.
	f := newFixture(t,
		image{uuid: id(1), content: []byte("1"), extra: `,"state":"disabled","disabled":true`}.v2(),
		image{uuid: id(2), content: []byte("2"), extra: `,"state":"disabled","disabled":true,"origin":"` + id(1) + `"`}.v2(),
		image{uuid: id(3), content: []byte("3"), extra: `,"origin":"` + id(2) + `"`}.v2(),
		image{uuid: id(4), content: []byte("4"), extra: `,"origin":"` + id(5) + `"`}.v2(),
		image{uuid: id(5), content: []byte("5"), extra: `,"origin":"` + id(4) + `"`}.v2(),
		image{uuid: id(6), content: []byte("6"), extra: `,"origin":"` + id(7) + `"`}.v2(),
	)
	list := f.options.Catalog.Current()
	for n, want := range map[int]bool{1: true, 2: true, 3: false, 4: true, 5: true, 6: false, 7: true, 8: false} {
		if got := list.IsAncestor(uuid.MustParse(id(n))); got != want {
			t.Errorf("%d: %v", n, got)
		}
	}
}

// Spec 3.2, the last path segment.
func TestDatasetFilePaths(t *testing.T) {
	f := several(t).start()
	r := f.get("/datasets/" + id(1))
	var v struct {
		Files []struct{ Path string }
	}
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatal(err)
	}
	path := v.Files[0].Path
	ok := func(target string) {
		t.Helper()
		if r := f.common(f.send("HEAD", target)); r.status != 200 || r.header.Get("Content-Length") != "1" {
			t.Errorf("%s: %d %v", target, r.status, r.header)
		}
	}
	ok("/datasets/" + id(1) + "/" + path)
	ok("/datasets/" + id(1) + "/" + strings.ReplaceAll(path, "b", "%62"))
	ok("/datasets/" + id(1) + "/file")
	ok("/datasets/" + id(1) + "/file0")
	ok("http://any.host:81/datasets/" + id(1) + "/" + path)
	ok("/" + id(1) + "/" + path)
	ok("/datasets/" + id(2) + "/file") // an ancestor

	bad := func(target string) {
		t.Helper()
		f.wantError("GET", target, 404, "ResourceNotFound", "")
	}
	bad("/datasets/" + id(1) + "/file1")
	bad("/datasets/" + id(1) + "/" + path + "x")
	bad("/datasets/" + id(1) + "/..")
	bad("/datasets/" + id(1) + "/%2e%2e")
	bad("/datasets/" + id(1) + "/.%2F" + path)
	bad("/datasets/" + id(1) + "/../" + id(1) + "/" + path)
	bad("/datasets/" + id(1) + "/x%2F" + path)
	bad("/datasets/base/" + path)
	bad("/datasets/" + id(6) + "/file") // disabled, and nobody needs it
	bad("/datasets/" + id(9) + "/file")
	bad("/" + id(9) + "/" + path)
	bad("/" + id(1) + "/nothing")
}
