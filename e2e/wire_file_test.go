package e2e

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"testing"
)

// TestWireFile: spec 2.6 for files, on a cached one.
func TestWireFile(t *testing.T) {
	t.Parallel()
	m, images := wire(t, nil)
	alpha := images[alphaID]
	path := "/images/" + alphaID + "/file"
	tag := `"` + alpha.sha1() + `"`
	get(t, m.url+path).wantFile(t, alpha)
	m.awaitStored(1)

	size := len(alpha.file)
	whole := []string{
		"Content-Type: application/octet-stream", fmt.Sprintf("Content-Length: %d", size), "Content-MD5: " + alpha.contentMD5(),
		"ETag: " + tag, "Last-Modified", "X-Cache: HIT", "!Content-Encoding", "!Content-Range",
	}
	modified := curl(t, m.url+path, "-I").header.Get("Last-Modified")
	h := func(lines ...string) []string {
		var args []string
		for _, line := range lines {
			args = append(args, "-H", line)
		}
		return args
	}
	body := string(alpha.file)
	part := func(name, value string, from, to int, more ...string) row { // to is exclusive
		return row{name: name, path: path, args: h(append(more, "Range: "+value)...), status: 206, body: body[from:to], header: []string{
			fmt.Sprintf("Content-Range: bytes %d-%d/%d", from, to-1, size), "!Content-MD5", "ETag: " + tag, "X-Cache: HIT"}}
	}
	check(t, m.url, []row{
		{name: "whole", path: path, header: whole, body: body},
		{name: "HEAD", path: path, args: []string{"-I"}, header: whole},
		{name: "never compressed", path: path, args: h("Accept-Encoding: gzip, deflate, br"), header: whole, body: body},
		{name: "no 406", path: path, args: h("Accept: application/json"), header: whole, body: body},
		{name: "index 0", path: path + "?index=0", header: whole},
		{name: "index in its leading digits", path: path + "?index=0x", header: whole},
		{name: "index unparsable", path: path + "?index=x", header: whole},
		{name: "no such index", path: path + "?index=7", status: 404, code: "ResourceNotFound"},
		{name: "no such image", path: "/images/" + unknownID + "/file", status: 404, code: "ResourceNotFound"},

		{name: "If-None-Match", path: path, args: h("If-None-Match: " + tag), status: 304, header: []string{"ETag: " + tag}},
		{name: "If-None-Match unquoted", path: path, args: h("If-None-Match: " + alpha.sha1()), status: 304},
		{name: "If-None-Match weak", path: path, args: h("If-None-Match: W/" + tag), status: 304},
		{name: "If-None-Match list", path: path, args: h(`If-None-Match: "x", ` + tag), status: 304},
		{name: "If-None-Match any", path: path, args: h("If-None-Match: *"), status: 304},
		{name: "If-None-Match other", path: path, args: h(`If-None-Match: "x"`), header: whole},
		{name: "If-None-Match of HEAD", path: path, args: append([]string{"-I"}, h("If-None-Match: "+tag)...), status: 304},
		{name: "If-Match", path: path, args: h("If-Match: " + tag), header: whole},
		{name: "If-Match unquoted", path: path, args: h("If-Match: " + alpha.sha1()), header: whole},
		{name: "If-Match any", path: path, args: h("If-Match: *"), header: whole},
		{name: "If-Match other", path: path, args: h(`If-Match: "x"`), status: 412, code: "PreconditionFailedError"},
		{name: "If-Modified-Since", path: path, args: h("If-Modified-Since: " + modified), status: 304},
		{name: "If-Modified-Since before", path: path, args: h("If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT"), header: whole},
		{name: "If-Modified-Since is no date", path: path, args: h("If-Modified-Since: yesterday"), header: whole},
		{name: "If-Modified-Since gives way to If-None-Match", path: path, args: h(`If-None-Match: "x"`, "If-Modified-Since: "+modified), header: whole},
		{name: "If-Unmodified-Since", path: path, args: h("If-Unmodified-Since: " + modified), header: whole},
		{name: "If-Unmodified-Since before", path: path, args: h("If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT"), status: 412, code: "PreconditionFailedError"},

		part("range", "bytes=0-99", 0, 100),
		part("range to the end", "bytes=199000-", 199000, size),
		part("range of the last bytes", "bytes=-10", size-10, size),
		part("range longer than the file", "bytes=100-99999999", 100, size),
		part("range of one byte", "bytes=5-5", 5, 6),
		part("range of more last bytes than there are", "bytes=-99999999", 0, size),
		part("If-Range that holds", "bytes=0-9", 0, 10, "If-Range: "+tag),
		{name: "If-Range that does not", path: path, args: h("Range: bytes=0-9", `If-Range: "x"`), header: whole},
		{name: "range beyond the end", path: path, args: h("Range: bytes=200000-"), status: 416, header: []string{fmt.Sprintf("Content-Range: bytes */%d", size)}},
		{name: "two ranges", path: path, args: h("Range: bytes=0-1,5-6"), header: whole},
		{name: "range of another unit", path: path, args: h("Range: lines=0-1"), header: whole},
		{name: "range that is none", path: path, args: h("Range: bytes=9-1"), header: whole},
	})
}

// TestWireManifestValidators: spec 2.6 for a manifest.
func TestWireManifestValidators(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	path := "/images/" + alphaID
	tag := curl(t, m.url+path).header.Get("ETag")
	if len(tag) < 3 || tag[0] != '"' {
		t.Fatalf("ETag %q is not quoted", tag)
	}
	check(t, m.url, []row{
		{name: "If-None-Match", path: path, args: []string{"-H", "If-None-Match: " + tag}, status: 304},
		{name: "If-None-Match unquoted", path: path, args: []string{"-H", "If-None-Match: " + tag[1:len(tag)-1]}, status: 304},
		{name: "If-None-Match other", path: path, args: []string{"-H", `If-None-Match: "x"`}},
		{name: "If-Match other", path: path, args: []string{"-H", `If-Match: "x"`}, status: 412, code: "PreconditionFailedError"},
	})
}

// TestWireIcon: spec 2.6 for icons.
func TestWireIcon(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	path := "/images/" + alphaID + "/icon"
	sum := md5.Sum(wireIcon)
	headers := []string{"Content-Type: image/png", fmt.Sprintf("Content-Length: %d", len(wireIcon)),
		"Content-MD5: " + base64.StdEncoding.EncodeToString(sum[:]), "ETag"}
	check(t, m.url, []row{
		{name: "cold", path: path, header: headers, body: string(wireIcon)},
		{name: "cached", path: path, header: headers, body: string(wireIcon)},
		{name: "none", path: "/images/" + betaID + "/icon", status: 404, code: "ResourceNotFound"},
		{name: "unknown image", path: "/images/" + unknownID + "/icon", status: 404, code: "ResourceNotFound"},
	})
	tag := curl(t, m.url+path).header.Get("ETag")
	check(t, m.url, []row{
		{name: "If-None-Match", path: path, args: []string{"-H", "If-None-Match: " + tag}, status: 304},
	})
}
