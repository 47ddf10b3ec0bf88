package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestWireDatasets: spec 3.2.
func TestWireDatasets(t *testing.T) {
	t.Parallel()
	m, images := wire(t, nil)
	list := func(name, query string, want ...string) row {
		if want == nil {
			want = []string{}
		}
		return row{name: name, path: "/datasets?" + query, list: want}
	}
	one := func(name, id, want string) row {
		return row{name: name, path: "/datasets/" + id, has: []string{`"uuid":"` + want + `"`}}
	}
	none := func(name, path string) row {
		return row{name: name, path: path, status: 404, code: "ResourceNotFound"}
	}
	file := "/datasets/" + alphaID + "/"
	body := string(images[alphaID].file)
	check(t, m.url, []row{
		list("all", "", all...),
		{name: "a slash at the end", path: "/datasets/", list: all},
		list("name", "name=zeta", "zeta-1.0.0", "zeta-2.0.0"),
		list("name is no prefix", "name=zet"),
		list("name substring", "name=~et", "beta-1.0.0", "zeta-1.0.0", "zeta-2.0.0"),
		list("version", "version=2.0.0", "gamma-2.0.0", "zeta-2.0.0"),
		list("version substring", "version=~2.", "gamma-2.0.0", "zeta-2.0.0"),
		list("os", "os=linux", "beta-1.0.0", "gamma-2.0.0"),
		list("type", "type=zvol", "gamma-2.0.0"),
		list("creator_uuid", "creator_uuid="+creatorID, "beta-1.0.0"),
		list("owner_uuid", "owner_uuid="+creatorID, "beta-1.0.0"),
		list("restricted_to_uuid", "restricted_to_uuid="+creatorID),
		list("restricted_to_uuid empty", "restricted_to_uuid=", all...),
		list("limit means nothing", "limit=1", all...),
		list("marker means nothing", "marker=x", all...),
		list("others mean nothing", "state=x&sort=x&colour=red", all...),

		one("uuid", alphaID, alphaID),
		one("uuid of a disabled ancestor", deltaID, deltaID),
		one("urn", "cloud:maker:zeta:1.0.0", zeta1ID),
		one("urn, escaped", "cloud%3Amaker%3Azeta%3A1.0.0", zeta1ID),
		one("four parts, by name and version", "sdc:other:zeta:2.0.0", zeta2ID),
		one("three parts, the newest of the name", "sdc:other:zeta", zeta2ID),
		one("two parts, name and version", "zeta:1.0.0", zeta1ID),
		one("a name, the newest", "zeta", zeta2ID),
		none("no such uuid", "/datasets/"+unknownID),
		none("no such urn", "/datasets/sdc:other:zeta:9.9.9"),
		none("no such name", "/datasets/nothing"),
		none("private", "/datasets/"+privateID),
		{name: "HEAD of the list", path: "/datasets", args: []string{"-I"}, header: []string{"Content-Length"}},
		{name: "HEAD of a manifest", path: "/datasets/" + alphaID, args: []string{"-I"}, header: []string{"Content-Length"}},
		{name: "HEAD of a file", path: file + "alpha-1.0.0.zfs.gz", args: []string{"-I"}, header: []string{"Content-Length: 200000"}},
		{name: "POST", path: "/datasets", args: []string{"-d", "{}"}, status: 405, code: "MethodNotAllowedError", header: []string{"Allow: GET, HEAD"}},
		{name: "CORS on the list", path: "/datasets", header: []string{"Access-Control-Allow-Origin: *"}},
		{name: "CORS on a manifest", path: "/datasets/" + alphaID, header: []string{"Access-Control-Allow-Origin: *"}},

		{name: "file by its path", path: file + "alpha-1.0.0.zfs.gz", body: body,
			header: []string{"Content-Type: application/octet-stream", "Content-Length: 200000", "ETag"}},
		{name: "file", path: file + "file", body: body, header: []string{"Content-MD5: " + images[alphaID].contentMD5()}},
		{name: "file0", path: file + "file0", body: body},
		{name: "range of a file", path: file + "file", args: []string{"-H", "Range: bytes=0-9"}, status: 206, body: body[:10]},
		none("file1", file+"file1"),
		none("another path", file+"alpha-1.0.0.zfs"),
		none("a path and more", file+"alpha-1.0.0.zfs.gz/x"),
		none("another image's path", "/datasets/"+betaID+"/alpha-1.0.0.zfs.gz"),
		none("an escaped slash", file+"x%2F..%2Falpha-1.0.0.zfs.gz"),
		none("dots", file+"../"+alphaID+"/alpha-1.0.0.zfs.gz"),
		none("dots alone", file+".."),
		none("escaped dots", file+"%2e%2e"),
		none("file of no image", "/datasets/"+unknownID+"/file"),
	})

	// The v1 form (1.6).
	var v1 map[string]any
	got := curl(t, m.url+"/datasets/"+gammaID)
	if err := json.Unmarshal(got.body, &v1); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"creator_name": "sdc", "cloud_name": "sdc", "urn": "sdc:sdc:gamma:2.0.0", "platform_type": "smartos", "image_size": "10240",
		"published_at": "2026-01-02T00:00:00.500Z", "created_at": "2026-01-02T00:00:00.500Z", "updated_at": "2026-01-02T00:00:00.500Z",
		"creator_uuid": "00000000-0000-0000-0000-000000000000", "vendor_uuid": "00000000-0000-0000-0000-000000000000",
		"nic_driver": "virtio", "origin": zeta1ID,
	} {
		if v1[key] != want {
			t.Errorf("gamma as v1: %s is %v, want %v", key, v1[key], want)
		}
	}
	for _, key := range []string{"v", "state", "disabled", "public", "owner", "acl", "billing_tags", "traits", "channels", "icon"} {
		if v, ok := v1[key]; ok {
			t.Errorf("gamma as v1: has %s: %v", key, v)
		}
	}
	f := v1["files"].([]any)[0].(map[string]any)
	for key, want := range map[string]any{
		"path": "gamma-2.0.0.zvol.gz", "url": m.url + "/datasets/" + gammaID + "/gamma-2.0.0.zvol.gz",
		"sha1": images[gammaID].sha1(), "size": 1000.0, "compression": "gzip",
	} {
		if f[key] != want {
			t.Errorf("gamma as v1: files[0].%s is %v, want %v", key, f[key], want)
		}
	}
	check(t, m.url, []row{ // self URLs (2.7)
		{name: "the url follows Host", path: "/datasets/" + gammaID, args: []string{"-H", "Host: mirror.example:99"},
			has: []string{`"http://mirror.example:99/datasets/` + gammaID + "/gamma-2.0.0.zvol.gz\""}},
		{name: "as the v1 list does", path: "/datasets?name=gamma", args: []string{"-H", "Host: mirror.example"},
			has: []string{`"http://mirror.example/datasets/` + gammaID + "/"}},
	})
}

// TestWirePublicURL: a configured public_url is in every DSAPI url (2.7).
func TestWirePublicURL(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, settings{"public_url": "https://images.example.org/mirror/"})
	check(t, m.url, []row{
		{name: "one", path: "/datasets/" + alphaID, has: []string{`"https://images.example.org/mirror/datasets/` + alphaID + "/alpha-1.0.0.zfs.gz\""}},
		{name: "list", path: "/datasets?name=alpha", has: []string{`"https://images.example.org/mirror/datasets/` + alphaID + "/"}},
	})
}

// TestWireStatic: `/` is a static image server for old clients, a poor man's (design, names).
func TestWireStatic(t *testing.T) {
	t.Parallel()
	m, images := wire(t, nil)
	check(t, m.url, []row{
		{name: "the array", path: "/", list: all},
		{name: "a file", path: "/" + alphaID + "/alpha-1.0.0.zfs.gz", body: string(images[alphaID].file)},
		{name: "no such file", path: "/" + alphaID + "/x", status: 404, code: "ResourceNotFound"},
		{name: "no such image", path: "/" + unknownID + "/alpha-1.0.0.zfs.gz", status: 404, code: "ResourceNotFound"},
	})
	// And it is one that a mirror can use as a source.
	second := startMirror(t, nil, from(m.url+"/", settings{"kind": "static"}))
	second.awaitList(len(all))
	got := get(t, second.url+"/images/"+alphaID+"/file")
	got.wantFile(t, images[alphaID])
	if !strings.Contains(string(get(t, second.url+"/images/"+gammaID).body), `"image_size":10240`) {
		t.Error("image_size did not survive v2, v1, v2")
	}
}
