package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

// three is a small catalogue: a base, one on top of it that is disabled, and a leaf.
func three(t *testing.T) *fixture {
	t.Helper()
	return newFixture(t,
		image{uuid: id(1), name: "base", version: "1", published: "2014-01-01T00:00:00Z", content: []byte("one")}.v2(),
		image{uuid: id(2), name: "middle", version: "2", published: "2014-01-02T00:00:00Z", content: []byte("two"),
			extra: `,"state":"disabled","disabled":true,"origin":"` + id(1) + `"`}.v2(),
		image{uuid: id(3), name: "leaf", version: "3", published: "2014-01-03T00:00:00Z", content: []byte("three"),
			extra: `,"origin":"` + id(2) + `","tags":{"role":"os"},"x-unknown":[1,2],"channels":["dev"]`}.v2(),
	)
}

// Spec 2.3.
func TestPing(t *testing.T) {
	f := newFixture(t).start()
	r := f.get("/ping")
	if want := `{"ping":"pong","version":"1.2.3","imgapi":true,"dsapi":true}`; r.status != 200 || r.body != want {
		t.Errorf("%d %s, want %s", r.status, r.body, want)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q: imgadm compares all of it", got)
	}
	if got := r.header.Get("Api-Version"); got != "2.0.0" {
		t.Errorf("Api-Version %q", got)
	}
	if got := r.header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin %q", got)
	}
	for _, target := range []string{"/ping/", "/ping?x=y", "http://any.host:81/ping"} {
		if r := f.get(target); r.status != 200 {
			t.Errorf("%s: %d", target, r.status)
		}
	}
}

func TestPingErrors(t *testing.T) {
	f := newFixture(t).start()
	for _, c := range []struct {
		name   string
		status int
		code   string
	}{
		{"ValidationFailed", 422, "ValidationFailed"},
		{"ValidationFailedError", 422, "ValidationFailed"},
		{"InvalidParameter", 422, "InvalidParameter"},
		{"ImageFilesImmutable", 422, "ImageFilesImmutable"},
		{"ImageAlreadyActivated", 422, "ImageAlreadyActivated"},
		{"NoActivationNoFile", 422, "NoActivationNoFile"},
		{"OperatorOnly", 403, "OperatorOnly"},
		{"ImageUuidAlreadyExists", 409, "ImageUuidAlreadyExists"},
		{"StorageIsDown", 503, "StorageIsDown"},
		{"StorageUnsupported", 503, "StorageUnsupported"},
		{"RemoteSource", 503, "RemoteSourceError"},
		{"RemoteSourceError", 503, "RemoteSourceError"},
		{"InternalError", 500, "InternalError"},
		{"Internal", 500, "InternalError"},
		{"", 500, "InternalError"},
		{"ResourceNotFound", 500, "InternalError"},
		{"Unauthorized", 500, "InternalError"},
		{"NoSuchThing", 422, "InvalidParameter"},
	} {
		r := f.wantError("GET", "/ping?error="+c.name, c.status, c.code, "")
		_, message, fields := r.errorBody(t)
		switch c.name {
		case "ValidationFailed":
			if r.body != `{"code":"ValidationFailed","message":"boom","errors":[]}` {
				t.Error(r.body)
			}
		case "ResourceNotFound":
			if !strings.Contains(message, "no sample") {
				t.Error(message)
			}
		case "NoSuchThing":
			if len(fields) != 1 || fields[0] != (fieldError{Field: "error", Code: "Missing"}) {
				t.Error(r.body)
			}
		case "StorageIsDown":
			if strings.Contains(r.body, "errors") {
				t.Error(r.body)
			}
		}
	}
}

// Spec 2.2: on every routed path of IMGAPI, and on none of DSAPI.
func TestAcceptVersion(t *testing.T) {
	f := three(t).start()
	for _, path := range []string{"/ping", "/images", "/images/" + id(1), "/images/" + id(1) + "/file", "/images/" + id(2) + "/icon", "/state"} {
		f.wantError("GET", path, 400, "InvalidVersion", "~99 is not supported by GET "+path, "Accept-Version: ~99")
		f.wantError("GET", path, 400, "InvalidVersion", "", "Accept-Version: garbage")
	}
	for _, path := range []string{"/ping", "/images", "/images/" + id(1), "/datasets", "/datasets/" + id(1), "/"} {
		for _, v := range []string{"*", "~2", "~1", ">=1", "~9 || ~2"} {
			if r := f.get(path, "Accept-Version: "+v); r.status != 200 {
				t.Errorf("%s with %s: %d", path, v, r.status)
			}
		}
	}
	for _, path := range []string{"/datasets", "/datasets/" + id(1), "/", "/readyz"} {
		if r := f.get(path, "Accept-Version: ~99"); r.status != 200 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	f.wantError("GET", "/nothing", 404, "ResourceNotFound", "/nothing does not exist", "Accept-Version: ~99")
}

// Spec 2.1: what is there, what is not, and what takes no writes.
func TestEndpoints(t *testing.T) {
	f := three(t).start()
	u := id(1)
	for _, path := range []string{"/ping", "/images", "/images/" + u, "/images/" + u + "/file", "/images/" + u + "/icon", "/state", "/datasets", "/datasets/" + u, "/datasets/" + u + "/x", "/", "/" + u + "/x"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "BREW"} {
			r := f.wantError(method, path, 405, "MethodNotAllowedError", method+" is not allowed", "Content-Length: 0")
			if got := r.header.Values("Allow"); len(got) != 1 || got[0] != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q", method, path, got)
			}
		}
	}
	for _, path := range []string{"/images/" + u + "/acl", "/images/" + u + "/clone", "/images/" + u + "/push", "/images/" + u + "/file/from-url", "/authkeys/reload"} {
		for _, method := range []string{"GET", "POST"} {
			r := f.wantError(method, path, 405, "MethodNotAllowedError", method+" is not allowed", "Content-Length: 0")
			if got, ok := r.header["Allow"]; !ok || len(got) != 1 || got[0] != "" {
				t.Errorf("%s %s: Allow %q", method, path, got)
			}
		}
	}
	for _, path := range []string{"/channels", "/images/" + u + "/jobs", "/docs", "/favicon.ico", "//images", "/images//" + u, "/images/../ping", "/IMAGES"} {
		f.wantError("GET", path, 404, "ResourceNotFound", path+" does not exist")
	}
	f.wantError("GET", "/state", 401, "UnauthorizedError", "")
	f.wantError("GET", "http://any.host:81/nothing?x", 404, "ResourceNotFound", "/nothing does not exist")
}

func TestOptions(t *testing.T) {
	f := three(t).start()
	for _, path := range []string{"*", "/images", "/datasets", "/ping", "/images/" + id(1) + "/file"} {
		r := f.common(f.send("OPTIONS", path, "Origin: http://ui", "Access-Control-Request-Method: GET"))
		if r.status != 204 || r.header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: %d %q", path, r.status, r.header.Get("Allow"))
		}
		if path != "*" && (r.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "GET")) {
			t.Errorf("%s: %v", path, r.header)
		}
	}
	f.wantError("OPTIONS", "/nothing", 404, "ResourceNotFound", "/nothing does not exist")
}

// A web page may send along what the older image servers allowed to theirs, and may read what the replies tell.
func TestCORS(t *testing.T) {
	f := channelled(t, devAndRelease...)
	has := func(r reply, header, name string) bool {
		for _, n := range strings.Split(r.header.Get(header), ",") {
			if strings.EqualFold(strings.TrimSpace(n), name) {
				return true
			}
		}
		return false
	}
	for _, path := range []string{"/ping", "/channels", "/images", "/images/" + id(2), "/images/" + id(2) + "/file", "/images/" + id(2) + "/icon",
		"/datasets", "/datasets/" + id(2), "/datasets/" + id(2) + "/file", "/"} {
		r := f.common(f.send("OPTIONS", path, "Origin: http://ui", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: x-requested-with"))
		for _, name := range []string{"x-requested-with", "x-csrf-token", "accept", "accept-version", "content-type", "content-length", "content-md5",
			"date", "api-version", "x-api-version", "origin", "authorization", "range", "if-none-match", "x-request-id"} {
			if !has(r, "Access-Control-Allow-Headers", name) {
				t.Errorf("%s: %s is not among %q", path, name, r.header.Get("Access-Control-Allow-Headers"))
			}
		}
		r = f.get(path)
		for _, name := range []string{"content-md5", "etag", "x-cache", "x-request-id", "content-range", "api-version"} {
			if r.header.Get("Access-Control-Allow-Origin") != "*" || !has(r, "Access-Control-Expose-Headers", name) {
				t.Errorf("%s: %d, %s cannot be read: %v", path, r.status, name, r.header)
			}
		}
	}
	for _, path := range []string{"/state", "/readyz", "/images/" + id(2) + "/acl"} {
		if r := f.send("OPTIONS", path, "Origin: http://ui"); r.header.Get("Access-Control-Allow-Headers") != "" || r.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is open to any page: %v", path, r.header)
		}
	}
}

// Every GET answers HEAD with the same header and no body.
func TestHead(t *testing.T) {
	f := three(t).start()
	for _, path := range []string{"/ping", "/images", "/images?limit=1", "/images/" + id(1), "/datasets", "/datasets/" + id(1), "/", "/readyz", "/nothing", "/state", "/images?limit=x"} {
		get, head := f.get(path), f.common(f.send("HEAD", path))
		if head.body != "" || head.status != get.status {
			t.Errorf("%s: %d %q, GET says %d", path, head.status, head.body, get.status)
		}
		for _, name := range []string{"Content-Length", "Content-Type", "Etag", "Vary"} {
			if head.header.Get(name) != get.header.Get(name) {
				t.Errorf("%s: %s is %q, GET says %q", path, name, head.header.Get(name), get.header.Get(name))
			}
		}
		if get.header.Get("Content-Length") != fmt.Sprint(len(get.body)) {
			t.Errorf("%s: Content-Length %s of %d bytes", path, get.header.Get("Content-Length"), len(get.body))
		}
	}
}

// Spec 2.4, as far as it is the proxy's: that queries reach the list, and what
// errors look like. The rows are tested where they are implemented.
func TestListImages(t *testing.T) {
	f := three(t).start()
	ok := func(target, want string) {
		t.Helper()
		if r := f.get(target); r.status != 200 || names(t, r.body) != want {
			t.Errorf("%s: %d %s, want %s", target, r.status, r.body, want)
		}
	}
	ok("/images", "base leaf")
	ok("/images/", "base leaf")
	ok("/images/?name=leaf", "leaf")
	ok("/images?state=active", "base leaf")
	ok("/images?state=all", "base leaf")
	ok("/images?state=disabled", "")
	ok("/images?name=~ea", "leaf")
	ok("/images?name=%7Eea", "leaf")
	ok("/images?name=base&version=2", "")
	ok("/images?limit=1", "base")
	ok("/images?limit=1&sort=published_at.desc", "leaf")
	ok("/images?marker="+id(3), "leaf")
	ok("/images?marker="+id(2), "leaf") // not listed, yet it marks a place
	ok("/images?marker=2014-01-02&limit=1000", "leaf")
	ok("/images?tag.role=os", "leaf")
	ok("/images?channel=nothing", "base leaf") // no channels here
	ok("/images?unknown=x", "base leaf")
	ok("http://any.host:81/images?name=base", "base")

	bad := func(query, field string) {
		t.Helper()
		r := f.wantError("GET", "/images?"+query, 422, "InvalidParameter", "")
		if _, _, fields := r.errorBody(t); len(fields) != 1 || fields[0].Field != field || fields[0].Code != "Invalid" {
			t.Errorf("%s: %s", query, r.body)
		}
	}
	bad("state=x", "state")
	bad("public=x", "public")
	bad("account=x", "account")
	bad("limit=x", "limit")
	bad("limit=-1", "limit")
	bad("marker=x", "marker")
	bad("sort=name", "sort")
	bad("inclAdminFields=x", "inclAdminFields")
	f.wantError("GET", "/images?inclAdminFields=true", 401, "UnauthorizedError", "")
	f.wantError("GET", "/images?marker="+id(9), 404, "ResourceNotFound", "")
}

func TestListImagesConditions(t *testing.T) {
	f := three(t).start()
	for _, path := range []string{"/images", "/images?name=base", "/datasets", "/datasets?name=base", "/images/" + id(1), "/datasets/" + id(1), "/"} {
		r := f.get(path)
		tag := r.header.Get("Etag")
		if len(tag) < 10 || tag[0] != '"' || tag[len(tag)-1] != '"' {
			t.Errorf("%s: ETag %q is not a strong one", path, tag)
		}
		for _, method := range []string{"GET", "HEAD"} {
			r := f.common(f.send(method, path, "If-None-Match: "+tag))
			if r.status != 304 || r.body != "" || r.header.Get("Etag") != tag || r.header.Get("Content-Type") != "" {
				t.Errorf("%s %s: %d %q %v", method, path, r.status, r.body, r.header)
			}
		}
		if r := f.get(path, "If-None-Match: "+strings.Trim(tag, `"`)); r.status != 304 {
			t.Errorf("%s, unquoted: %d", path, r.status)
		}
		if r := f.get(path, `If-None-Match: "other"`); r.status != 200 {
			t.Errorf("%s, another tag: %d", path, r.status)
		}
		f.wantError("GET", path, 412, "PreconditionFailedError", "", `If-Match: "other"`)
		if r := f.get(path, "If-Match: "+tag); r.status != 200 {
			t.Errorf("%s, If-Match: %d", path, r.status)
		}
	}
	f.wantError("GET", "/images?marker="+id(99), 404, "ResourceNotFound", "", "If-None-Match: *") // a condition is about what there is
	if a, b := f.get("/images?name=base").header.Get("Etag"), f.get("/images?name=leaf").header.Get("Etag"); a == b {
		t.Error("two queries, one tag")
	}
	if a, b := f.get("/datasets").header.Get("Etag"), f.get("/datasets", "Host: other").header.Get("Etag"); a == b {
		t.Error("two bases of URLs, one tag")
	}
}

// A whole list comes compressed to clients that ask for it, each encoding with its own validator; nothing else
// does.
func TestEncodingsOfTheWholeList(t *testing.T) {
	f := three(t).start()
	plain := f.get("/images")
	if plain.header.Get("Content-Encoding") != "" || plain.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("plain: %v", plain.header)
	}
	tags := map[string]bool{plain.header.Get("Etag"): true}
	for name, decode := range map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	} {
		header := "Accept-Encoding: br, " + name + ";q=0.5"
		packed := f.get("/images", header)
		if packed.header.Get("Content-Encoding") != name || packed.header.Get("Vary") != "Accept-Encoding" || packed.header.Get("Content-Length") != fmt.Sprint(len(packed.body)) {
			t.Errorf("%s: %v", name, packed.header)
		}
		r, err := decode(strings.NewReader(packed.body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != plain.body {
			t.Errorf("%s: %q %v", name, got, err)
		}
		tag := packed.header.Get("Etag")
		if tags[tag] {
			t.Errorf("%s: one strong tag for two bodies", name)
		}
		tags[tag] = true
		if r := f.get("/images", header, "If-None-Match: "+tag); r.status != 304 {
			t.Errorf("%s: %d", name, r.status)
		}
		if r := f.get("/images", header, "If-None-Match: "+plain.header.Get("Etag")); r.status != 200 {
			t.Errorf("%s: %d to the tag of another encoding", name, r.status)
		}
		for _, path := range []string{"/images?name=base", "/images/" + id(1), "/datasets", "/ping"} {
			if r := f.get(path, header); r.header.Get("Content-Encoding") != "" {
				t.Errorf("%s is compressed", path)
			}
		}
	}
}

// Spec 2.5, in its order.
func TestGetImage(t *testing.T) {
	f := three(t)
	shared := image{uuid: id(7), name: "shared", published: "2014-01-03T00:00:00Z", content: []byte("x")}
	f.source.get = func(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
		if id.String() == shared.uuid {
			return manifest.Parse([]byte(shared.v2()), manifest.ParseOptions{})
		}
		return manifest.Manifest{}, fs.ErrNotExist
	}
	f.start()

	r := f.get("/images/" + id(3))
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil || r.status != 200 {
		t.Fatalf("%d %q: %v", r.status, r.body, err)
	}
	if m["name"] != "leaf" || m["x-unknown"] == nil || m["channels"] != nil {
		t.Error(r.body)
	}
	if r := f.get("/images/" + id(2)); r.status != 200 || !strings.Contains(r.body, `"disabled":true`) {
		t.Errorf("a disabled origin: %d %s", r.status, r.body)
	}
	if r := f.get("/images/" + id(7)); r.status != 200 {
		t.Errorf("an image that no list shows: %d %s", r.status, r.body)
	}

	f.wantError("GET", "/images/nonsense", 404, "ResourceNotFound", "/images/nonsense does not exist")
	f.wantError("GET", "/images/nonsense?x=1", 404, "ResourceNotFound", "/images/nonsense?x=1 does not exist")
	upper := strings.ToUpper("abcdef00-0000-4000-8000-000000000001")
	f.wantError("GET", "/images/"+upper, 404, "ResourceNotFound", "/images/"+upper+" does not exist")
	f.wantError("GET", "/images/"+id(9), 404, "ResourceNotFound", "image "+id(9)+" not found")
	f.wantError("HEAD", "/images/"+id(9), 404, "", "")

	// account and inclAdminFields, the unknown uuid first.
	f.wantError("GET", "/images/"+id(9)+"?account=x", 404, "ResourceNotFound", "image "+id(9)+" not found")
	f.wantError("GET", "/images/"+id(1)+"?account=x", 422, "InvalidParameter", "")
	f.wantError("GET", "/images/"+id(1)+"?inclAdminFields=true", 401, "UnauthorizedError", "")
	f.wantError("GET", "/images/"+id(1)+"?inclAdminFields=yes", 422, "InvalidParameter", "")
	for _, query := range []string{"account=" + id(5), "account=", "inclAdminFields=false", "channel=x", "unknown"} {
		if r := f.get("/images/" + id(1) + "?" + query); r.status != 200 {
			t.Errorf("%s: %d %s", query, r.status, r.body)
		}
	}
	// Credentials are nothing to us (A44).
	if r := f.get("/images/"+id(1), "Authorization: Signature nonsense"); r.status != 200 {
		t.Errorf("%d", r.status)
	}
}

// Private images are 404 (spec 2.5, A32).
func TestPrivateImage(t *testing.T) {
	f := newFixture(t, image{uuid: id(4), content: []byte("x"), extra: `,"public":false`}.v2()).start()
	f.wantError("GET", "/images/"+id(4), 404, "ResourceNotFound", "image "+id(4)+" not found")
	f.wantError("GET", "/images/"+id(4)+"/file", 404, "ResourceNotFound", "")
	f.wantError("GET", "/datasets/"+id(4), 404, "ResourceNotFound", "")
	if r := f.get("/images"); r.body != "[]" {
		t.Error(r.body)
	}
}

func TestAccessible(t *testing.T) {
	const owner, other = "930896af-bf8c-48d4-885c-6573a94b1853", "11111111-0000-4000-8000-000000000000"
	f := func(m manifest.Manifest, account string, want bool) {
		t.Helper()
		m.Owner = owner
		if got := accessible(m, account); got != want {
			t.Errorf("%+v for %s: %v", m, account, got)
		}
	}
	f(manifest.Manifest{State: "active", Public: true}, other, true)
	f(manifest.Manifest{State: "disabled", Public: true}, other, true)
	f(manifest.Manifest{State: "unactivated", Public: true}, other, false)
	f(manifest.Manifest{State: "unactivated", Public: true}, owner, true)
	f(manifest.Manifest{State: "active"}, other, false)
	f(manifest.Manifest{State: "active", ACL: []string{other}}, other, true)
	f(manifest.Manifest{State: "unactivated", ACL: []string{other}}, other, false)
	f(manifest.Manifest{State: "active"}, owner, true)
}

// "Not there" and "cannot tell" are different things.
func TestImageOfASourceThatIsDown(t *testing.T) {
	down := func(context.Context, uuid.UUID) (manifest.Manifest, error) {
		return manifest.Manifest{}, errors.New("connection refused")
	}
	t.Run("error", func(t *testing.T) {
		f := three(t)
		f.source.get = down
		f.start()
		start := time.Now()
		f.wantError("GET", "/images/"+id(9), 503, "RemoteSourceError", "")
		f.wantError("GET", "/datasets/"+id(9), 503, "RemoteSourceError", "")
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("two answers took %v", took)
		}
		if r := f.get("/images/" + id(1)); r.status != 200 {
			t.Errorf("a known image: %d", r.status)
		}
		if lines := f.log.lines(t, "request failed"); len(lines) != 2 || !strings.Contains(fmt.Sprint(lines[0]["error"]), "connection refused") {
			t.Errorf("log: %v", lines)
		}
	})
	t.Run("notfound", func(t *testing.T) {
		f := three(t)
		f.source.get = down
		f.options.OnUnreachable = UnreachableNotFound
		f.start()
		f.wantError("GET", "/images/"+id(9), 404, "ResourceNotFound", "image not found: the image's sources cannot be reached")
	})
}

// Spec 2.6: what files answer when there are none to be had.
func TestFileErrors(t *testing.T) {
	f := func(err error, status int, code string) {
		t.Helper()
		fx := three(t)
		fx.options.Files = mirror.Files{Store: fakeFiles{err: err}}
		fx.start()
		for _, path := range []string{"/images/" + id(1) + "/file", "/datasets/" + id(1) + "/file", "/" + id(1) + "/file"} {
			fx.wantError("GET", path, status, code, "")
		}
		if err := fx.stop(); err != nil {
			t.Error(err)
		}
	}
	wrap := func(err error) error { return fmt.Errorf("fill 97f2: source one: %w", err) }
	f(wrap(fs.ErrNotExist), 404, "ResourceNotFound")
	f(wrap(verify.ErrUnavailable), 503, "RemoteSourceError")
	f(wrap(verify.ErrMismatch), 503, "RemoteSourceError")
	f(wrap(cache.ErrNoSpace), 503, "StorageIsDown")
	f(wrap(cache.ErrClosed), 503, "ServiceUnavailableError")
	f(wrap(context.DeadlineExceeded), 503, "RemoteSourceError")
	f(errors.New("disk on fire"), 500, "InternalError")
	// One source does not have it, the other does not answer.
	f(errors.Join(wrap(fs.ErrNotExist), wrap(verify.ErrUnavailable)), 503, "RemoteSourceError")
}

func TestFileNotThere(t *testing.T) {
	f := newFixture(t,
		image{uuid: id(1), content: []byte("one")}.v2(),
		image{uuid: id(2), extra: `,"files":[]`}.v2(),
	).start()
	f.wantError("GET", "/images/"+id(1)+"/file?index=1", 404, "ResourceNotFound", "image "+id(1)+" has no file 1")
	f.wantError("GET", "/images/"+id(1)+"/file1", 404, "ResourceNotFound", "image "+id(1)+" has no file 1")
	f.wantError("GET", "/images/"+id(1)+"/file?index=99999999999999999999", 404, "ResourceNotFound", "")
	f.wantError("GET", "/images/"+id(2)+"/file", 404, "ResourceNotFound", "image "+id(2)+" has no file 0")
	f.wantError("GET", "/images/"+id(9)+"/file", 404, "ResourceNotFound", "image "+id(9)+" not found")
	f.wantError("GET", "/images/"+id(1)+"/icon", 404, "ResourceNotFound", "image "+id(1)+" has no icon")
	f.wantError("GET", "/images/x/file", 404, "ResourceNotFound", "/images/x/file does not exist")
	f.wantError("GET", "/images/x/icon", 404, "ResourceNotFound", "/images/x/icon does not exist")
	f.wantError("HEAD", "/images/"+id(1)+"/file9", 404, "", "")
}

// HEAD tells from the manifest and the disk; it never asks for a reader, which
// these files would refuse.
func TestHeadOfFiles(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 1000)
	f := newFixture(t, image{uuid: id(1), content: content, published: "2014-05-06T07:08:09Z"}.v2()).start()
	r := f.common(f.send("HEAD", "/images/"+id(1)+"/file"))
	if r.status != 200 || r.header.Get("Content-Length") != "1000" || r.header.Get("X-Cache") != "MISS" ||
		r.header.Get("Etag") != `"`+sha1Hex(content)+`"` || r.header.Get("Last-Modified") != "Tue, 06 May 2014 07:08:09 GMT" ||
		r.header.Get("Content-Type") != "application/octet-stream" || r.header.Get("Accept-Ranges") != "bytes" || r.header.Get("Content-MD5") != "" {
		t.Errorf("%d %v", r.status, r.header)
	}
	if r := f.send("HEAD", "/images/"+id(1)+"/file", "If-None-Match: "+sha1Hex(content)); r.status != 304 {
		t.Errorf("%d", r.status)
	}
	if r := f.send("HEAD", "/images/"+id(1)+"/file", "If-Unmodified-Since: Tue, 06 May 2014 07:08:08 GMT"); r.status != 412 {
		t.Errorf("%d", r.status)
	}
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}

	stored := newFixture(t, image{uuid: id(1), content: content}.v2())
	sum, err := verify.ParseSum(sha1Hex(content))
	if err != nil {
		t.Fatal(err)
	}
	stored.options.Files = mirror.Files{Store: fakeFiles{info: &cache.Info{
		Digests: verify.Digests{SHA1: sum, MD5: [16]byte{1, 2, 3}, Size: 1000},
		ModTime: time.Date(2015, 1, 2, 3, 4, 5, 0, time.UTC),
	}}}
	stored.start()
	r = stored.common(stored.send("HEAD", "/images/"+id(1)+"/file"))
	if r.status != 200 || r.header.Get("X-Cache") != "HIT" || r.header.Get("Content-MD5") != "AQIDAAAAAAAAAAAAAAAAAA==" || r.header.Get("Last-Modified") != "Fri, 02 Jan 2015 03:04:05 GMT" {
		t.Errorf("%d %v", r.status, r.header)
	}
	if r := stored.send("HEAD", "/images/"+id(1)+"/file", "If-Modified-Since: Fri, 02 Jan 2015 03:04:05 GMT"); r.status != 304 {
		t.Errorf("%d", r.status)
	}
}
