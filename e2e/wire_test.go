package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// The wire, row by row of spec 2 and 3, asked with curl. This file has the
// table's machinery and the images it is about; the rows are in
// wire_imgapi_test.go, wire_list_test.go, wire_file_test.go, wire_dsapi_test.go
// and, with images of its own, wire_channels_test.go.

// row is one request and what is wanted of its reply. Zero fields are not looked at.
type row struct {
	name   string   // the point of the spec
	path   string   // of the url, or a whole url
	args   []string // of curl
	status int      // 0: 200
	code   string   // of an error body
	field  string   // of its first inner error
	inner  string   // code of its first inner error
	text   string   // a part of its message
	header []string // "Name: value" wanted exactly, "Name" wanted, "!Name" not wanted
	body   string   // the exact body
	has    []string // parts of the body
	not    []string // what must not be in the body
	list   []string // NAME-VERSION of the manifests of a JSON array, in order
}

// curled is a reply as curl saw it.
type curled struct {
	status int
	header http.Header
	body   []byte
}

// curl makes one request. The reply must be complete and well-formed to the
// eye of curl.
func curl(t *testing.T, url string, args ...string) curled {
	t.Helper()
	args = append([]string{"-sS", "-i", "--path-as-is", "--http1.1", "--max-time", "30", "--noproxy", "*"}, append(args, url)...)
	var stderr bytes.Buffer
	cmd := exec.Command(need(t, "curl"), args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	head, body, ok := bytes.Cut(out, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("curl %s: no end of headers in %q", url, out)
	}
	r := curled{header: http.Header{}, body: body}
	for i, line := range strings.Split(string(head), "\r\n") {
		if i == 0 {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "HTTP/1.1" {
				t.Fatalf("curl %s: status line %q", url, line)
			}
			r.status, _ = strconv.Atoi(fields[1])
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		r.header.Add(name, strings.TrimSpace(value))
	}
	return r
}

// check runs the rows against a server.
func check(t *testing.T, base string, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			url := r.path
			if !strings.HasPrefix(url, "http:") {
				url = base + url
			}
			got := curl(t, url, r.args...)
			r.check(t, got)
			if t.Failed() {
				t.Logf("curl %s %s\n%d %v\n%s", strings.Join(r.args, " "), url, got.status, got.header, tail(string(got.body), 600))
			}
		})
	}
}

func (r row) check(t *testing.T, got curled) {
	t.Helper()
	status := r.status
	if status == 0 {
		status = 200
	}
	if got.status != status {
		t.Errorf("status %d, want %d", got.status, status)
	}
	if got.status >= 300 && got.status < 400 && got.status != 304 {
		t.Error("a redirect: the node clients take it for an empty success")
	}
	r.checkAlways(t, got)
	for _, want := range r.header {
		name, value, exact := strings.Cut(want, ": ")
		if absent, ok := strings.CutPrefix(name, "!"); ok {
			if v, ok := got.header[http.CanonicalHeaderKey(absent)]; ok {
				t.Errorf("%s: %q, want none", absent, v)
			}
			continue
		}
		values := got.header.Values(name)
		if len(values) != 1 || exact && values[0] != value {
			t.Errorf("%s: %q, want %q", name, values, value)
		}
	}
	if r.code != "" {
		r.checkError(t, got)
	}
	if r.body != "" && string(got.body) != r.body {
		t.Errorf("body is not %s", r.body)
	}
	for _, part := range r.has {
		if !bytes.Contains(got.body, []byte(part)) {
			t.Errorf("body without %s", part)
		}
	}
	for _, part := range r.not {
		if bytes.Contains(got.body, []byte(part)) {
			t.Errorf("body with %s", part)
		}
	}
	if r.list != nil {
		r.checkList(t, got)
	}
}

// checkAlways is what holds for every reply (spec 2.1, 2.6).
func (r row) checkAlways(t *testing.T, got curled) {
	t.Helper()
	for _, name := range []string{"Date", "Server", "X-Request-Id", "X-Response-Time", "X-Server-Name"} {
		if len(got.header.Values(name)) != 1 {
			t.Errorf("%s: %q", name, got.header.Values(name))
		}
	}
	if _, err := strconv.Atoi(got.header.Get("X-Response-Time")); err != nil {
		t.Errorf("x-response-time %q is no whole number", got.header.Get("X-Response-Time"))
	}
	if got.header.Get("Transfer-Encoding") != "" {
		t.Error("chunked")
	}
	if got.status != 304 && got.status != 204 && !isHead(r.args) {
		if want := strconv.Itoa(len(got.body)); got.header.Get("Content-Length") != want {
			t.Errorf("Content-Length %q, want %s", got.header.Get("Content-Length"), want)
		}
	}
	if kind := got.header.Get("Content-Type"); strings.Contains(kind, "json") {
		if kind != "application/json" {
			t.Errorf("Content-Type %q", kind)
		}
		if got.header.Get("Content-Md5") != "" {
			t.Error("Content-MD5 on JSON")
		}
		if len(got.body) > 0 && got.header.Get("Content-Encoding") == "" && !json.Valid(got.body) {
			t.Error("labelled JSON, and is none")
		}
	}
}

func isHead(args []string) bool { return len(args) > 0 && args[0] == "-I" }

// checkError compares a JSON error body (spec 2.8).
func (r row) checkError(t *testing.T, got curled) {
	t.Helper()
	if isHead(r.args) {
		return
	}
	var e struct {
		Code    string
		Message string
		Errors  []struct{ Field, Code string }
	}
	if err := json.Unmarshal(got.body, &e); err != nil {
		t.Fatalf("error body: %v", err)
	}
	if e.Code != r.code || e.Message == "" || !strings.Contains(e.Message, r.text) {
		t.Errorf("code %s, message %q; want %s, …%s…", e.Code, e.Message, r.code, r.text)
	}
	withErrors := r.code == "InvalidParameter" || r.code == "ValidationFailed"
	if len(e.Errors) > 0 && !withErrors {
		t.Errorf("errors on a %s", e.Code)
	}
	if r.field != "" && (len(e.Errors) == 0 || e.Errors[0].Field != r.field || e.Errors[0].Code == "" ||
		r.inner != "" && e.Errors[0].Code != r.inner) {
		t.Errorf("errors %v, want field %s %s", e.Errors, r.field, r.inner)
	}
}

// checkList compares an array of manifests by name and version.
func (r row) checkList(t *testing.T, got curled) {
	t.Helper()
	var list []struct{ Name, Version string }
	if err := json.Unmarshal(got.body, &list); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = m.Name + "-" + m.Version
	}
	if fmt.Sprint(names) != fmt.Sprint(r.list) {
		t.Errorf("%v, want %v", names, r.list)
	}
}

// The wire's images. Those of one date are told apart by uuid.
const (
	alphaID   = "00000001-0000-4000-8000-000000000000"
	betaID    = "00000002-0000-4000-8000-000000000000"
	gammaID   = "00000003-0000-4000-8000-000000000000"
	deltaID   = "00000004-0000-4000-8000-000000000000"
	zeta1ID   = "00000005-0000-4000-8000-000000000000"
	zeta2ID   = "00000006-0000-4000-8000-000000000000"
	privateID = "00000008-0000-4000-8000-000000000000"
	creatorID = "0000000a-0000-4000-8000-00000000000a"
	unknownID = "ffffffff-0000-4000-8000-000000000000"
)

// all is the plain list of the wire's images, in order.
var all = []string{"alpha-1.0.0", "beta-1.0.0", "gamma-2.0.0", "zeta-1.0.0", "zeta-2.0.0"}

// wireIcon is alpha's icon.
var wireIcon = []byte("\x89PNG\r\n\x1a\nan icon")

// wireImages are the images that the rows speak of.
func wireImages() []image {
	return []image{
		newImage("alpha", 200_000, map[string]any{
			"uuid": alphaID, "published_at": "2026-01-01T00:00:00Z", "icon": true,
			"tags":         map[string]any{"role": "db", "n": 3, "flag": true, "deep": map[string]any{"a": 1}},
			"billing_tags": []any{"gold"}, "traits": map[string]any{"ssd": true}, "acl": []any{creatorID},
			"vendor_note": "kept – as it came",
		}),
		newImage("beta", 1000, map[string]any{
			"uuid": betaID, "published_at": "2026-01-02T00:00:00.500Z", "os": "linux", "type": "lx-dataset",
			"owner": creatorID, "generate_passwords": false, "requirements": map[string]any{"min_ram": 512},
		}),
		newImage("gamma", 1000, map[string]any{
			"uuid": gammaID, "published_at": "2026-01-02T00:00:00.500Z", "version": "2.0.0", "os": "linux", "type": "zvol",
			"nic_driver": "virtio", "disk_driver": "virtio", "cpu_type": "host", "image_size": 10240, "origin": zeta1ID,
		}),
		newImage("delta", 1000, map[string]any{
			"uuid": deltaID, "published_at": "2026-01-03T00:00:00Z", "state": "disabled", "disabled": true,
		}),
		newImage("zeta", 1000, map[string]any{
			"uuid": zeta1ID, "published_at": "2026-01-04T00:00:00Z", "urn": "cloud:maker:zeta:1.0.0", "origin": deltaID,
		}),
		newImage("zeta", 1001, map[string]any{
			"uuid": zeta2ID, "published_at": "2026-01-05T00:00:00Z", "version": "2.0.0",
		}),
		newImage("private", 1000, map[string]any{
			"uuid": privateID, "published_at": "2026-01-06T00:00:00Z", "public": false, "acl": []any{creatorID}, "owner": creatorID,
		}),
	}
}

// wire is a mirror of the wire's images. It is given its images by uuid, too.
func wire(t *testing.T, set settings) (*mirror, map[string]image) {
	t.Helper()
	need(t, "curl")
	images := wireImages()
	src := newSource(t, images...)
	src.setIcon(alphaID, wireIcon)
	m := startMirror(t, set, from(src.URL()))
	m.awaitList(len(all))
	byID := map[string]image{}
	for _, img := range images {
		byID[img.uuid] = img
	}
	return m, byID
}
