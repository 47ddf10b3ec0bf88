package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWireEndpoints: spec 2.1.
func TestWireEndpoints(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	image := "/images/" + alphaID
	head := []string{"-I"}
	post := []string{"-X", "POST", "-d", "{}"}
	rows := []row{
		{name: "ping", path: "/ping", header: []string{"Content-Type: application/json", "Api-Version: 2.0.0"}},
		{name: "images", path: "/images", list: all},
		{name: "image", path: image, has: []string{alphaID}},
		{name: "file", path: image + "/file", header: []string{"Content-Type: application/octet-stream", "Content-Length: 200000"}},
		{name: "file0", path: image + "/file0", header: []string{"Content-Length: 200000"}},
		{name: "file1", path: image + "/file1", status: 404, code: "ResourceNotFound"},
		{name: "file of another name", path: image + "/filex", status: 404, code: "ResourceNotFound"},
		{name: "icon", path: image + "/icon", header: []string{"Content-Type: image/png"}},
		{name: "channels, when there are none", path: "/channels", status: 404, code: "ResourceNotFound"},
		{name: "state", path: "/state", status: 401, code: "UnauthorizedError"},
		{name: "jobs", path: image + "/jobs", status: 404, code: "ResourceNotFound"},

		{name: "HEAD ping", path: "/ping", args: head, header: []string{"Content-Length", "Content-Type: application/json"}},
		{name: "HEAD images", path: "/images", args: head, header: []string{"Content-Length", "ETag"}},
		{name: "HEAD image", path: image, args: head, header: []string{"Content-Length", "ETag"}},
		{name: "HEAD file", path: image + "/file", args: head, header: []string{"Content-Length: 200000"}},
		{name: "HEAD icon", path: image + "/icon", args: head, header: []string{"Content-Length"}},
		{name: "HEAD nothing", path: "/images/" + unknownID, args: head, status: 404},

		{name: "GET acl", path: image + "/acl", status: 405, code: "MethodNotAllowedError", header: []string{"Allow: "}},
		{name: "POST acl", path: image + "/acl", args: post, status: 405, code: "MethodNotAllowedError"},
		{name: "POST clone", path: image + "/clone", args: post, status: 405, code: "MethodNotAllowedError"},
		{name: "POST push", path: image + "/push", args: post, status: 405, code: "MethodNotAllowedError"},
		{name: "POST from-url", path: image + "/file/from-url", args: post, status: 405, code: "MethodNotAllowedError"},
		{name: "POST authkeys", path: "/authkeys/reload", args: post, status: 405, code: "MethodNotAllowedError"},

		{name: "a slash at the end of ping", path: "/ping/", has: []string{"pong"}},
		{name: "a slash at the end of images", path: "/images/?name=alpha", list: []string{"alpha-1.0.0"}},
		{name: "a slash at the end of an image", path: image + "/", has: []string{alphaID}},
		{name: "a slash at the end of a file", path: image + "/file/", header: []string{"Content-Length: 200000"}},
		{name: "two slashes are not one", path: "//ping", status: 404, code: "ResourceNotFound", text: "//ping does not exist"},
		{name: "dots are not resolved", path: "/images/../ping", status: 404, code: "ResourceNotFound"},
		{name: "no such path", path: "/no/such", status: 404, code: "ResourceNotFound", text: "/no/such does not exist"},
		{name: "percent-decoding once", path: "/%69mages/" + alphaID, has: []string{alphaID}},
		{name: "percent-decoding not twice", path: "/%2569mages/" + alphaID, status: 404, code: "ResourceNotFound"},
		{name: "an encoded slash is no slash", path: "/images%2F" + alphaID, status: 404, code: "ResourceNotFound"},
		{name: "Authorization is ignored", path: "/ping", args: []string{"-u", "a:b"}, has: []string{"pong"}},

		{name: "request id echoed", path: "/ping", args: []string{"-H", "x-request-id: a-1_b"}, header: []string{"X-Request-Id: a-1_b"}},
		{name: "request id echoed, other name", path: "/ping", args: []string{"-H", "request-id: a-2"}, header: []string{"X-Request-Id: a-2"}},
		{name: "CORS on ping", path: "/ping", header: []string{"Access-Control-Allow-Origin: *"}},
		{name: "CORS on images", path: "/images", header: []string{"Access-Control-Allow-Origin: *"}},
		{name: "CORS on an image", path: image, header: []string{"Access-Control-Allow-Origin: *"}},
		{name: "readyz for load balancers", path: "/readyz"},
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/ping", "/images", image, image + "/file", image + "/icon", "/state"} {
			rows = append(rows, row{name: method + " " + path, path: path, args: []string{"-X", method, "-d", "{}"},
				status: 405, code: "MethodNotAllowedError", text: method + " is not allowed", header: []string{"Allow: GET, HEAD"}})
		}
	}
	check(t, m.url, rows)

	for _, path := range []string{"/ping", "/images", image} {
		got := curl(t, m.url+path, "-X", "OPTIONS")
		if got.status != 200 && got.status != 204 || !strings.Contains(got.header.Get("Allow"), "GET") {
			t.Errorf("OPTIONS %s: status %d, Allow %q", path, got.status, got.header.Get("Allow"))
		}
	}
	// A request id that is not sane is not echoed.
	for _, id := range []string{strings.Repeat("x", 129), "a b", "a\tb", "é"} {
		got := curl(t, m.url+"/ping", "-H", "x-request-id: "+id).header.Get("X-Request-Id")
		if len(got) != 36 {
			t.Errorf("x-request-id %q: answered with %q, want a fresh uuid", id, got)
		}
	}
}

// TestWireMalformed: what is not HTTP gets 400 BadRequestError (spec 2.8) and
// the end of the connection.
func TestWireMalformed(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	for name, text := range map[string]string{
		"garbage":       "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
		"no version":    "GET /ping\r\n\r\n",
		"bad header":    "GET /ping HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n",
		"huge header":   "GET /ping HTTP/1.1\r\nHost: a\r\nX-Big: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"bad length":    "POST /ping HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
		"many of those": "GET /ping HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-A: b\r\n", 100_000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			// The server may answer and close before it has read everything.
			go func() { _, _ = io.WriteString(conn, text) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				if name == "huge header" || name == "many of those" {
					return // cut off in the midst of it, which is as good
				}
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode/100 != 4 || !strings.Contains(string(body), `"code":`) {
				t.Errorf("status %d, body %q", resp.StatusCode, body)
			}
		})
	}
	check(t, m.url, []row{{name: "and it serves on", path: "/ping", has: []string{"pong"}}})
}

// TestWireVersions: spec 2.2.
func TestWireVersions(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	image := "/images/" + alphaID
	var rows []row
	for _, good := range []string{"*", "~1", "~2", "1.0.0", "2.0.0", "~1.0", "~2.0", "^1", "^2", ">=1", ">=2", "1", "2", "1.0", "2.0", ">=1 <3", "~1 || ~2", "~99 || ~2"} {
		rows = append(rows, row{name: "good " + good, path: "/images?name=alpha", args: []string{"-H", "Accept-Version: " + good}, list: []string{"alpha-1.0.0"}})
	}
	for _, bad := range []string{"~99", "~3", "3.0.0", "garbage", ">=3", "~1.5"} {
		rows = append(rows, row{name: "bad " + bad, path: "/images", args: []string{"-H", "Accept-Version: " + bad}, status: 400, code: "InvalidVersion"})
	}
	for _, path := range []string{"/ping", "/images", image, image + "/file", image + "/icon", "/images/" + unknownID} {
		rows = append(rows, row{name: "on every path: " + path, path: path, args: []string{"-H", "Accept-Version: ~99"}, status: 400, code: "InvalidVersion"})
	}
	rows = append(rows,
		row{name: "absent", path: image, not: []string{`"channels"`}},
		row{name: "not on datasets", path: "/datasets", args: []string{"-H", "Accept-Version: ~99"}, list: all},
		row{name: "not on a dataset", path: "/datasets/" + alphaID, args: []string{"-H", "Accept-Version: ~99"}, has: []string{alphaID}},
	)
	check(t, m.url, rows)
}

// TestWirePing: spec 2.3.
func TestWirePing(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	rows := []row{
		{name: "pong", path: "/ping", has: []string{`"ping":"pong"`, `"imgapi":true`, `"dsapi":true`, `"version":"` + testVersion + `"`}, not: []string{`"pid"`, `"user"`}},
		{name: "no name", path: "/ping?error=", status: 500, code: "InternalError"},
		{name: "the suffix may be left away", path: "/ping?error=Internal", status: 500, code: "InternalError"},
		{name: "no sample for it", path: "/ping?error=UnauthorizedError", status: 500, code: "InternalError", text: "sample"},
		{name: "no such error", path: "/ping?error=Nonsense", status: 422, code: "InvalidParameter", field: "error", inner: "Missing"},
		{name: "boom", path: "/ping?error=ValidationFailed", status: 422, code: "ValidationFailed", text: "boom"},
	}
	for status, codes := range map[int][]string{
		422: {"InvalidParameter", "ImageFilesImmutable", "ImageAlreadyActivated", "NoActivationNoFile"},
		403: {"OperatorOnly"},
		409: {"ImageUuidAlreadyExists"},
		503: {"StorageIsDown", "StorageUnsupported", "RemoteSourceError"},
		500: {"InternalError"},
	} {
		for _, code := range codes {
			rows = append(rows, row{name: code, path: "/ping?error=" + code, status: status, code: code})
		}
	}
	check(t, m.url, rows)
}

// TestWireGetImage: spec 2.5, and the manifest's form (1.1).
func TestWireGetImage(t *testing.T) {
	t.Parallel()
	m, images := wire(t, nil)
	check(t, m.url, []row{
		{name: "active", path: "/images/" + alphaID, header: []string{"Content-Type: application/json", "ETag"},
			has: []string{`"vendor_note":"kept – as it came"`, `"icon":true`},
			not: []string{"billing_tags", "traits", `"acl"`, "channels"}},
		{name: "generate_passwords stays false", path: "/images/" + betaID, has: []string{`"generate_passwords":false`}},
		{name: "a zvol's fields", path: "/images/" + gammaID, has: []string{`"image_size":10240`, `"nic_driver":"virtio"`}},
		{name: "published_at to the letter", path: "/images/" + betaID, has: []string{`"published_at":"2026-01-02T00:00:00.500Z"`}},
		{name: "disabled", path: "/images/" + deltaID, has: []string{`"state":"disabled"`}},
		{name: "unknown", path: "/images/" + unknownID, status: 404, code: "ResourceNotFound", text: "image " + unknownID + " not found"},
		{name: "no uuid", path: "/images/alpha", status: 404, code: "ResourceNotFound", text: "/images/alpha does not exist"},
		{name: "an upper-case uuid", path: "/images/" + strings.ToUpper(creatorID), status: 404, code: "ResourceNotFound", text: "does not exist"},
		{name: "private", path: "/images/" + privateID, status: 404, code: "ResourceNotFound"},
		{name: "private, its file", path: "/images/" + privateID + "/file", status: 404, code: "ResourceNotFound"},
		{name: "channel means nothing", path: "/images/" + alphaID + "?channel=dev", has: []string{alphaID}},
		{name: "account", path: "/images/" + alphaID + "?account=" + creatorID, has: []string{alphaID}},
		{name: "account is no uuid", path: "/images/" + alphaID + "?account=x", status: 422, code: "InvalidParameter", field: "account"},
		{name: "inclAdminFields", path: "/images/" + alphaID + "?inclAdminFields=true", status: 401, code: "UnauthorizedError"},
		{name: "no inclAdminFields", path: "/images/" + alphaID + "?inclAdminFields=false", has: []string{alphaID}},
		{name: "bad inclAdminFields", path: "/images/" + alphaID + "?inclAdminFields=x", status: 422, code: "InvalidParameter", field: "inclAdminFields"},
		{name: "version before uuid", path: "/images/x", args: []string{"-H", "Accept-Version: ~99"}, status: 400, code: "InvalidVersion"},
		{name: "lookup before account", path: "/images/" + unknownID + "?account=x", status: 404, code: "ResourceNotFound"},
	})
	// What needed no change is the source's own text.
	if got := curl(t, m.url+"/images/"+zeta1ID); string(got.body) != string(images[zeta1ID].manifest) {
		t.Errorf("manifest\n%s\nis not the source's\n%s", got.body, images[zeta1ID].manifest)
	}
}
