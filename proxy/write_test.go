package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/mirror"
)

const writersToken = "the token of the writers"

// writable is a server of a mirror without sources, which takes images from loopback.
type writable struct {
	*fixture
	mirror *mirror.Mirror
	dir    string
}

// newWritable prepares one; start starts it.
func newWritable(t testing.TB, channels ...catalog.Channel) *writable {
	t.Helper()
	f := newFixture(t)
	dir := t.TempDir()
	m, err := mirror.New(t.Context(), mirror.Options{
		Cache: cache.Options{Dir: dir}, Rules: mirror.Rules{FillSlots: 4}, Sources: mirror.Sources{Channels: channels},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	f.options.Catalog, f.options.Files, f.options.Writes = m, m, m
	f.options.WriteRules = WriteRules{Enabled: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Token: writersToken}
	return &writable{f, m, dir}
}

// body sends a request with a body, which may be shorter than length says; -1 sends no length.
func (w *writable) body(method, target string, body []byte, length int, headers ...string) reply {
	w.Helper()
	c := w.dial()
	defer c.Close()
	if length >= 0 {
		headers = append(headers, fmt.Sprintf("Content-Length: %d", length))
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: mirror\r\n%s\r\n\r\n", method, target, strings.Join(headers, "\r\n"))
	go func() {
		_, _ = c.Write(append([]byte(head), body...)) // a refusal may come before the end
		if len(body) < length {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
	br := bufio.NewReader(c)
	r := w.read(br, method)
	if r.status == 100 {
		r = w.read(br, method)
	} else if r.status < 300 && strings.Contains(head, "100-continue") {
		w.Errorf("%s %s: the body was not asked for", method, target)
	}
	return w.common(r)
}

// want is body with the status and the code of an error compared; "" = no error.
func (w *writable) want(status int, code, method, target string, body []byte, headers ...string) reply {
	w.Helper()
	return w.wants(w.body(method, target, body, len(body), headers...), status, code, method+" "+target)
}

func (w *writable) wants(r reply, status int, code, what string) reply {
	w.Helper()
	got := ""
	if r.status >= 400 {
		got, _, _ = r.errorBody(w.TB)
	}
	if r.status != status || got != code {
		w.Errorf("%s: %d %q %s, want %d %q", what, r.status, got, r.body, status, code)
	}
	return r
}

// left are the files, whole and partial, on disk.
func (w *writable) left() (all []string) {
	w.Helper()
	for _, sub := range []string{"files", "partial", "published"} {
		err := filepath.WalkDir(filepath.Join(w.dir, sub), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		if err != nil {
			w.Fatal(err)
		}
	}
	return all
}

// packed is a gzip file of more than n bytes.
func packed(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	zw, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	seed := [32]byte{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
	if _, err := io.CopyN(zw, rand.NewChaCha8(seed), int64(n)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fileOf(id string, content []byte) string {
	return "/images/" + id + "/file?compression=gzip&sha1=" + sha1Hex(content)
}

// An image comes by three requests, and nobody sees the image before the third.
func TestWrite(t *testing.T) {
	w := newWritable(t)
	w.start()
	content := packed(t, 3_000_000)
	target, text := "/images/"+id(1), []byte(image{uuid: id(1), name: "mine", content: content}.v2())
	absent := func(when string) {
		t.Helper()
		w.wantError("GET", target, 404, "ResourceNotFound", "")
		w.wantError("GET", target+"/file", 404, "ResourceNotFound", "")
		if list := w.get("/images").body; list != "[]" {
			t.Errorf("%s: listed: %s", when, list)
		}
	}
	r := w.want(200, "", "POST", target+"?action=import", text, "Content-MD5: "+md5Base64(text))
	if !strings.Contains(r.body, `"state":"unactivated"`) || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("import: %v %s", r.header, r.body)
	}
	absent("after the import")
	w.want(422, "NoActivationNoFile", "POST", target+"?action=activate", nil)
	r = w.want(200, "", "PUT", fileOf(id(1), content), content, "Expect: 100-continue")
	if !strings.Contains(r.body, `"state":"unactivated"`) {
		t.Errorf("file: %s", r.body)
	}
	absent("after the file")
	r = w.want(200, "", "POST", target+"?action=activate", []byte("{}"))
	if !strings.Contains(r.body, `"state":"active"`) {
		t.Errorf("activate: %s", r.body)
	}
	if list := names(t, w.get("/images").body); list != "mine" {
		t.Errorf("listed: %s", list)
	}
	if r := w.get(target + "/file"); r.body != string(content) || r.header.Get("Content-MD5") != md5Base64(content) {
		t.Errorf("file: %d, %d bytes", r.status, len(r.body))
	}
	w.want(422, "ImageAlreadyActivated", "POST", target+"?action=activate", nil)
	w.want(422, "ImageFilesImmutable", "PUT", fileOf(id(1), content), content)
	w.want(409, "ImageUuidAlreadyExists", "POST", target+"?action=import", text)
	w.want(403, "OperatorOnly", "DELETE", target, nil)
	if r := w.send("DELETE", target, "Authorization: Bearer "+writersToken); r.status != 204 || r.body != "" {
		t.Errorf("delete: %d %s", r.status, r.body)
	}
	absent("after the delete")
	if left := w.left(); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
	for series, want := range map[string]float64{"import accepted": 1, "import exists": 1, "file accepted": 1, "file state": 1, "activate accepted": 1, "activate state": 2, "delete denied": 1, "delete accepted": 1} {
		if got := testutil.ToFloat64(w.server.metrics.writes[series]); got != want {
			t.Errorf("%s: %v, want %v", series, got, want)
		}
	}
}

// A manifest without files, a file in chunks on a connection that is kept, an import that is rolled back.
func TestWriteOtherwise(t *testing.T) {
	w := newWritable(t)
	w.start()
	content := packed(t, 200_000)
	text := []byte(image{uuid: id(1), content: content}.v2())
	c := w.dial()
	br := bufio.NewReader(c)
	do := func(status int, method, target string, body string, headers ...string) {
		t.Helper()
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: mirror\r\n%s\r\n\r\n", method, target, strings.Join(headers, "\r\n"))
		if _, err := io.WriteString(c, head+body); err != nil {
			t.Fatal(err)
		}
		if r := w.read(br, method); r.status != status || r.last {
			t.Errorf("%s %s: %d, last %t: %s", method, target, r.status, r.last, r.body)
		}
	}
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d", n) }
	do(200, "POST", "/images/"+id(1)+"?action=import", string(text), length(len(text)))
	do(200, "PUT", fileOf(id(1), content), fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(content), content), "Transfer-Encoding: chunked")
	do(204, "DELETE", "/images/"+id(1), "", length(0))
	if left := w.left(); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
	bare := image{uuid: id(1)}.v2()
	do(200, "POST", "/images/"+id(1)+"?action=import", bare, length(len(bare)))
	do(200, "PUT", fileOf(id(1), content)+"&storage=local&dataset_guid=77", string(content), length(len(content)))
	do(200, "POST", "/images/"+id(1)+"?action=activate", "{}", length(2))
	do(200, "GET", "/images/"+id(1), "")
	nameless := strings.Replace(bare, `"uuid":"`+id(1)+`",`, "", 1)
	do(200, "POST", "/images", nameless, length(len(nameless)))
	if r := w.get("/images/" + id(1)); !strings.Contains(r.body, `"dataset_guid":"77"`) || !strings.Contains(r.body, sha1Hex(content)) {
		t.Error(r.body)
	}
}

// Without the key every write is what it was; the same for a mirror that takes none.
func TestWritesOff(t *testing.T) {
	for _, rules := range []WriteRules{{}, {Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Token: writersToken}} {
		w := newWritable(t)
		w.options.WriteRules = rules
		w.start()
		for _, req := range [][2]string{
			{"POST", "/images/" + id(1) + "?action=import"}, {"PUT", "/images/" + id(1) + "/file?compression=gzip"},
			{"POST", "/images/" + id(1) + "?action=activate"}, {"DELETE", "/images/" + id(1)}, {"POST", "/images"},
			{"PUT", "/images/" + id(1) + "/icon"},
		} {
			r := w.want(405, "MethodNotAllowedError", req[0], req[1], []byte("{}"), "Authorization: Bearer "+writersToken)
			if r.header.Get("Allow") != "GET, HEAD" || r.last {
				t.Errorf("%v: Allow %q, last %t", req, r.header.Get("Allow"), r.last)
			}
		}
	}
}

// Who may not write is refused by the head alone, and can read the refusal.
func TestWriteDenied(t *testing.T) {
	w := newWritable(t)
	w.options.WriteRules.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	w.start()
	text, content := []byte(image{uuid: id(1)}.v2()), packed(t, 8_000_000)
	target := "/images/" + id(1) + "?action=import"
	w.want(403, "OperatorOnly", "POST", target, text)
	w.want(403, "OperatorOnly", "DELETE", "/images/"+id(1), nil)
	if r := w.want(403, "OperatorOnly", "PUT", fileOf(id(1), content), content); !r.last {
		t.Error("the connection goes on after a refused body")
	}
	w.want(401, "UnauthorizedError", "POST", target, text, "Authorization: Bearer wrong")
	w.want(401, "UnauthorizedError", "POST", target, text, "Authorization: Bearer ")
	w.want(403, "OperatorOnly", "POST", target, text, "Authorization: Basic "+writersToken)
	for _, header := range []string{"Origin: http://elsewhere", "Sec-Fetch-Site: cross-site"} {
		w.want(403, "OperatorOnly", "POST", target, text, "Authorization: Bearer "+writersToken, header)
	}
	w.want(200, "", "POST", target, text, "Authorization: bearer "+writersToken)

	// A body that is announced is not asked for.
	c := w.dial()
	fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: mirror\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", fileOf(id(1), content))
	if r := w.common(w.read(bufio.NewReader(c), "PUT")); r.status != 403 || !r.last {
		t.Errorf("with Expect: %d, last %t", r.status, r.last)
	}
	if n := testutil.ToFloat64(w.server.metrics.writes["import denied"]); n != 6 {
		t.Errorf("%v imports denied", n)
	}
}

// What image servers can do beside, and what makes no sense.
func TestWriteRefuses(t *testing.T) {
	w := newWritable(t)
	w.start()
	content := packed(t, 100_000)
	text := []byte(image{uuid: id(1), content: content}.v2())
	target := "/images/" + id(1)
	w.want(422, "InvalidParameter", "POST", "/images", text) // the uuid is this server's to give
	w.want(400, "NotImplemented", "POST", "/images?action=create-from-vm&vm_uuid="+id(2), text)
	w.want(400, "NotImplemented", "POST", "/images?action=import-docker-image&repo=x", nil)
	w.want(400, "NotImplemented", "POST", target+"?action=import-remote&source=http://x", nil)
	w.want(400, "NotImplemented", "POST", target+"?action=import&source=http://x", nil)
	w.want(400, "NotImplemented", "POST", target+"?action=update", text)
	w.want(422, "InvalidParameter", "POST", target+"?action=dance", text)
	w.want(422, "InvalidParameter", "POST", target, text)
	w.want(400, "NotImplemented", "PUT", target+"/icon", text)
	w.want(405, "MethodNotAllowedError", "POST", target+"/acl", text)
	w.want(405, "MethodNotAllowedError", "PATCH", target, text)
	w.want(400, "InvalidVersion", "POST", target+"?action=import", text, "Accept-Version: ~99")

	for _, path := range []string{"/images/x", "/images/" + strings.ToUpper("aaaaaaaa-0000-4000-8000-000000000001"), "/images/%2e%2e", "/images/" + id(1) + "%2f.."} {
		w.want(404, "ResourceNotFound", "POST", path+"?action=import", text)
		w.want(404, "ResourceNotFound", "DELETE", path, nil)
	}
	w.want(422, "InvalidParameter", "POST", "/images/"+id(2)+"?action=import", text)
	w.want(422, "InvalidParameter", "POST", target+"?action=import", []byte("{"))
	w.want(422, "InvalidParameter", "POST", target+"?action=import", nil)
	w.want(413, "RequestEntityTooLargeError", "POST", target+"?action=import", append(bytes.Clone(text), make([]byte, maxManifest)...))
	w.want(400, "BadDigestError", "POST", target+"?action=import", text, "Content-MD5: "+md5Base64(content))
	w.want(415, "UnsupportedMediaTypeError", "POST", target+"?action=import", text, "Content-Encoding: gzip")
	w.want(422, "OriginDoesNotExist", "POST", target+"?action=import", []byte(image{uuid: id(1), extra: `,"origin":"` + id(9) + `"`}.v2()))
	w.want(404, "ResourceNotFound", "PUT", fileOf(id(1), content), content)
	w.want(404, "ResourceNotFound", "POST", target+"?action=activate", nil)
	w.want(404, "ResourceNotFound", "DELETE", target, nil)

	w.want(200, "", "POST", target+"?action=import", text)
	file := target + "/file?sha1=" + sha1Hex(content)
	w.want(422, "InvalidParameter", "PUT", file, content)
	w.want(422, "InvalidParameter", "PUT", file+"&compression=zstd", content)
	w.want(422, "InvalidParameter", "PUT", file+"&compression=xz", content)
	w.want(422, "InvalidParameter", "PUT", target+"/file?compression=gzip&sha1=77", content)
	w.want(422, "InvalidParameter", "PUT", target+"/file?compression=gzip&sha1="+sha1Hex(text), content)
	w.want(422, "InvalidParameter", "PUT", file+"&compression=gzip", content[1:])
	w.want(400, "NotImplemented", "PUT", target+"/file1?compression=gzip", content)
	w.want(400, "NotImplemented", "PUT", target+"/file?compression=gzip&source=http://x", nil)
	w.wants(w.body("PUT", file+"&compression=gzip", content, maxUpload+1), 400, "ImageFileTooBig", "a file of 20 GiB and a byte")
	w.wants(w.body("PUT", file+"&compression=gzip", nil, -1), 411, "LengthRequiredError", "no length")
	w.want(400, "Upload", "PUT", file+"&compression=gzip", bytes.Repeat([]byte("x"), len(content)))
	flipped := bytes.Clone(content)
	flipped[len(flipped)/2] ^= 1
	w.want(400, "Upload", "PUT", file+"&compression=gzip", flipped)
	if r := w.body("PUT", file+"&compression=gzip", content[:50_000], len(content)); r.status != 400 && r.status != statusGone {
		t.Errorf("half a file: %d %s", r.status, r.body)
	}
	chunked := fmt.Appendf(nil, "%x\r\n%s\r\n%x\r\n%s\r\n", len(content), content, len(content), content) // and no end
	w.wants(w.body("PUT", file+"&compression=gzip", chunked, -1, "Transfer-Encoding: chunked"), 400, "Upload", "twice the file, in chunks")
	waitFor(t, "nothing on disk", func() bool { return len(w.left()) == 0 })
	w.want(200, "", "PUT", file+"&compression=gzip", content) // the draft has survived
	w.want(200, "", "POST", target+"?action=activate", nil)
}

// Uploads are bounded, in all and of one address, and each must come at a rate. A delete ends an upload.
func TestUploadBounds(t *testing.T) {
	w := newWritable(t)
	w.options.ClientStall = time.Second
	w.start()
	content := packed(t, 100_000)
	half := func(n int) net.Conn {
		t.Helper()
		w.want(200, "", "POST", "/images/"+id(n)+"?action=import", []byte(image{uuid: id(n), content: content}.v2()))
		c := w.dial()
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: mirror\r\nContent-Length: %d\r\n\r\n%s", fileOf(id(n), content), len(content), content[:50_000])
		return c
	}
	slow := half(1)
	if r := w.common(w.read(bufio.NewReader(slow), "PUT")); r.status != 408 || !r.last {
		t.Errorf("a body that does not go on: %d %s", r.status, r.body)
	}
	w.want(204, "", "DELETE", "/images/"+id(1), nil)
	drip := half(1)
	dripped := make(chan struct{})
	go func() {
		defer close(dripped)
		for {
			if _, err := drip.Write([]byte{0}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // a pause of the client's
		}
	}()
	if r := w.common(w.read(bufio.NewReader(drip), "PUT")); r.status != 408 || !r.last {
		t.Errorf("a body that drips: %d %s", r.status, r.body)
	}
	drip.Close()
	<-dripped
	w.options.ClientStall = time.Minute
	w.options.Registerer = nil
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.start()
	for n := 2; n <= 1+maxUploadsOf; n++ {
		half(n)
	}
	waitFor(t, "the uploads", func() bool { return w.server.uploadsOf() == maxUploadsOf })
	r := w.want(429, "TooManyRequestsError", "PUT", fileOf(id(1), content), content)
	if r.header.Get("Retry-After") != "30" {
		t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
	}
	w.want(409, "ConflictError", "POST", "/images/"+id(2)+"?action=activate", nil)
	w.want(204, "", "DELETE", "/images/"+id(2), nil)
	w.want(200, "", "PUT", fileOf(id(1), content), content)
}

// uploadsOf is how many files are coming.
func (s *Server) uploadsOf() int {
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	return s.uploads.all
}

// A client that hangs up during an upload leaves nothing, and a stop lets an upload go on.
func TestUploadEnds(t *testing.T) {
	w := newWritable(t)
	w.start()
	content := packed(t, 400_000)
	w.want(200, "", "POST", "/images/"+id(1)+"?action=import", []byte(image{uuid: id(1), content: content}.v2()))
	head := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: mirror\r\nContent-Length: %d\r\n\r\n", fileOf(id(1), content), len(content))
	begin := func() net.Conn {
		t.Helper()
		c := w.dial()
		if _, err := io.WriteString(c, head+string(content[:200_000])); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the upload", func() bool { return w.server.uploadsOf() == 1 })
		return c
	}
	begin().Close()
	waitFor(t, "the end of the upload", func() bool { return w.server.uploadsOf() == 0 })
	waitFor(t, "the unfinished file to be gone", func() bool { return len(w.left()) == 0 })
	c := begin()
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	waitFor(t, "the stop", w.server.conns.draining.Load)
	if _, err := c.Write(content[200_000:]); err != nil {
		t.Fatal(err)
	}
	if r := w.read(bufio.NewReader(c), "PUT"); r.status != 200 || !r.last {
		t.Errorf("during a stop: %d, last %t: %s", r.status, r.last, r.body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A client that ends its sending side after its file is no client that has left, however long the
// store takes.
func TestUploadThenSilence(t *testing.T) {
	w := newWritable(t)
	slow := &slowWrites{Writes: w.mirror, whole: make(chan struct{}), proceed: make(chan struct{})}
	w.options.Writes = slow
	w.start()
	content := packed(t, 100_000)
	w.want(200, "", "POST", "/images/"+id(1)+"?action=import", []byte(image{uuid: id(1), content: content}.v2()))
	c := w.dial()
	fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: mirror\r\nContent-Length: %d\r\n\r\n%s", fileOf(id(1), content), len(content), content)
	<-slow.whole
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(silentGrace+3*watchEvery, func() { close(slow.proceed) }) // what the watch must not do takes so long
	if r := w.read(bufio.NewReader(c), "PUT"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// slowWrites takes its time after a whole file.
type slowWrites struct {
	Writes
	whole, proceed chan struct{}
}

func (s *slowWrites) AddFile(ctx context.Context, by mirror.Writer, id uuid.UUID, u mirror.Upload) (manifest.Unactivated, error) {
	image, err := s.Writes.AddFile(ctx, by, id, u)
	close(s.whole)
	select {
	case <-s.proceed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return image, err
}

// Of many writers of one image at the same time one is taken.
func TestWriteTwice(t *testing.T) {
	w := newWritable(t)
	w.start()
	text := []byte(image{uuid: id(1)}.v2())
	replies := make(chan reply)
	const writers = 8
	for range writers {
		go func() { replies <- w.body("POST", "/images/"+id(1)+"?action=import", text, len(text)) }()
	}
	taken := 0
	for range writers {
		switch r := <-replies; r.status {
		case 200:
			taken++
		case 409:
		default:
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if taken != 1 {
		t.Errorf("%d writers were taken", taken)
	}
}

// The manifest says in which channels an image is, and a query must agree.
func TestWriteChannels(t *testing.T) {
	w := newWritable(t, catalog.Channel{Name: "dev"}, catalog.Channel{Name: "release", Default: true})
	w.start()
	content := packed(t, 1000)
	publish := func(n int, channel string, extra, want string) {
		t.Helper()
		text := []byte(image{uuid: id(n), extra: extra, content: content}.v2())
		status, query := 200, "?channel="+channel
		if want != "" {
			status = 422
		}
		if channel == "" {
			query = "?"
		}
		w.want(status, want, "POST", "/images/"+id(n)+query+"&action=import", text)
		if want == "" {
			w.want(200, "", "PUT", fileOf(id(n), content)+"&channel="+channel, content)
			r := w.want(200, "", "POST", "/images/"+id(n)+query+"&action=activate", nil, "Accept-Version: ~2")
			if !strings.Contains(r.body, `"channels":[`) {
				t.Errorf("image %d: %s", n, r.body)
			}
		}
	}
	publish(1, "", "", "")
	publish(2, "release", "", "")
	publish(3, "dev", "", "ValidationFailed")
	publish(3, "dev", `,"channels":["dev"]`, "")
	publish(4, "release", `,"channels":["dev"]`, "ValidationFailed")
	publish(4, "none", "", "ValidationFailed")
	publish(4, "*", `,"channels":["dev","release"]`, "")
	for channel, want := range map[string]int{"dev": 2, "release": 3} {
		if list := strings.Fields(names(t, w.get("/images?channel="+channel).body)); len(list) != want {
			t.Errorf("%s has %v", channel, list)
		}
	}
}

// Memory for what is read is booked.
func TestWriteMemory(t *testing.T) {
	w := newWritable(t)
	w.options.Memory = 1_000_000
	w.start()
	text := []byte(image{uuid: id(1)}.v2())
	w.want(200, "", "POST", "/images/"+id(1)+"?action=import", text)
	if err := w.server.memory.take(999_000); err != nil {
		t.Fatal(err)
	}
	w.want(503, "ServiceUnavailableError", "POST", "/images/"+id(2)+"?action=import", text)
	w.want(503, "ServiceUnavailableError", "PUT", fileOf(id(1), text), text)
	w.server.memory.give(999_000)
	if w.server.memory.bodies != 0 {
		t.Errorf("%d bytes stay booked", w.server.memory.bodies)
	}
}
