package e2e

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// writesFromHere lets this machine write without a token.
var writesFromHere = settings{"writes.enabled": true, "writes.allow": []string{"127.0.0.0/8"}}

// write sends one request as imgadm sends those by which images are published: the headers of its
// agent, a JSON body with its Content-MD5, a file with its length and without Expect. The error is one
// of the connection.
func (c *imgadm) write(method, target, kind string, body []byte) (status int, image map[string]any, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nx-request-id: %s\r\naccept: application/json\r\n", method, target, c.reqID)
	if kind != "" {
		fmt.Fprintf(&b, "content-type: %s\r\n", kind)
	}
	b.WriteString("user-agent: imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u)\r\naccept-version: ~2\r\n")
	fmt.Fprintf(&b, "date: %s\r\ncontent-length: %d\r\n", time.Now().UTC().Format(http.TimeFormat), len(body))
	if kind == "application/json" {
		sum := md5.Sum(body)
		fmt.Fprintf(&b, "content-md5: %s\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	}
	fmt.Fprintf(&b, "Host: %s\r\nConnection: keep-alive\r\n\r\n", c.host)
	b.Write(body)
	if c.json == nil {
		if c.json, err = dialSocket(c.host); err != nil {
			return 0, nil, err
		}
	}
	resp, err := c.json.ask(b.String())
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && len(text) > 0 {
		err = json.Unmarshal(text, &image)
	}
	if resp.Close {
		c.json.close()
		c.json = nil
	}
	return resp.StatusCode, image, err
}

// publishing are the requests of `imgadm publish`, in their order; the last one is the roll back.
func (c *imgadm) publishing(t *testing.T, img image) []func() (int, map[string]any, error) {
	file := img.fields(t)["files"].([]any)[0].(map[string]any)
	target := "/images/" + img.uuid
	return []func() (int, map[string]any, error){
		func() (int, map[string]any, error) {
			return c.write("POST", target+"?action=import", "application/json", img.manifest)
		},
		func() (int, map[string]any, error) {
			return c.write("PUT", fmt.Sprintf("%s/file?compression=%s&sha1=%s", target, file["compression"], file["sha1"]), "application/octet-stream", img.file)
		},
		func() (int, map[string]any, error) {
			return c.write("POST", target+"?action=activate", "application/json", []byte("{}"))
		},
		func() (int, map[string]any, error) { return c.write("DELETE", target, "", nil) },
	}
}

// publish is `imgadm publish` of an image.
func (c *imgadm) publish(t *testing.T, img image) {
	t.Helper()
	for i, request := range c.publishing(t, img)[:3] {
		status, got, err := request()
		want := "unactivated"
		if i == 2 {
			want = "active"
		}
		if err != nil || status != 200 || got["uuid"] != img.uuid || got["state"] != want {
			t.Fatalf("request %d for %s: %d %v, %v", i, img.name, status, got, err)
		}
	}
}

// TestWriteByImgadm: what imgadm publishes is imported by imgadm, increments included, and got by the
// official node client; the images outlive a restart.
func TestWriteByImgadm(t *testing.T) {
	t.Parallel()
	m := startMirror(t, writesFromHere)
	c := newImgadm(t, m, "imgapi")
	for _, id := range []string{sampleBase, sampleWeb, sampleApp} {
		c.publish(t, sample(t, id))
	}
	for _, when := range []string{"at once", "after a restart"} {
		got, err := newImgadm(t, m, "imgapi").importImage(sampleApp)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		wantImport(t, got, []string{sampleBase, sampleWeb, sampleApp})
		m.restart()
	}
	path := filepath.Join(t.TempDir(), "web")
	replies := node(t, m.url, []any{"getImage", sampleWeb}, []any{"getImageFile", sampleWeb, path})
	replies[0].want(t, "getImage", nil)
	replies[1].want(t, "getImageFile", nil)
	wantOnDisk(t, path, sample(t, sampleWeb).file)
	m.verb("list", "-H", "-o", "uuid").want(t, sampleBase, sampleWeb, sampleApp)
	m.verb("unpublish", sampleApp).want(t, sampleApp) // one door
	if n := m.metric("imgmirror_http_writes_total", `result="accepted"`); n != 0 {
		t.Errorf("%v writes after the restarts", n)
	}
}

// TestWriteByNodeClient: the official node client writes an image, and gets the image; what is wrong
// is refused with the codes of an image server.
func TestWriteByNodeClient(t *testing.T) {
	t.Parallel()
	m := startMirror(t, writesFromHere)
	base, web := sample(t, sampleBase), sample(t, sampleWeb)
	dir := t.TempDir()
	flipped := filepath.Join(dir, "flipped")
	data := bytes.Clone(base.file)
	data[len(data)/2] ^= 0x10
	if err := os.WriteFile(flipped, data, 0o600); err != nil {
		t.Fatal(err)
	}
	upload := func(img image, file string, more map[string]any) []any {
		options := map[string]any{"uuid": img.uuid, "file": file, "compression": img.fields(t)["files"].([]any)[0].(map[string]any)["compression"], "sha1": img.sha1()}
		for key, value := range more {
			options[key] = value
		}
		return []any{"addImageFile", options}
	}
	replies := node(t, m.url,
		[]any{"adminImportImage", web.fields(t)}, // 0: its origin is not there
		[]any{"adminImportImage", base.fields(t)},
		[]any{"adminImportImage", base.fields(t)}, // 2: twice
		[]any{"activateImage", sampleBase},
		upload(base, flipped, nil), // 4: one bit is wrong
		upload(base, abs(t, base.path), map[string]any{"sha1": web.sha1()}),
		upload(base, abs(t, base.path), map[string]any{"compression": "bzip2"}), // 6
		[]any{"getImage", sampleBase},
		upload(base, abs(t, base.path), map[string]any{"storage": "local"}), // 8
		[]any{"activateImage", sampleBase},
		[]any{"getImage", sampleBase}, // 10
		[]any{"getImageFile", sampleBase, filepath.Join(dir, "base")},
		[]any{"adminImportImage", web.fields(t)}, // 12
		upload(web, abs(t, web.path), nil),
		[]any{"deleteImage", sampleWeb}, // 14: rolled back
		[]any{"getImage", sampleWeb},
		[]any{"deleteImage", sampleBase},      // 16
		[]any{"createImage", base.fields(t)},  // with a uuid
		[]any{"listImages", map[string]any{}}, // 18
	)
	wrong := map[int]struct {
		status int
		code   string
	}{
		0: {422, "OriginDoesNotExist"}, 2: {409, "ImageUuidAlreadyExists"}, 3: {422, "NoActivationNoFile"},
		4: {400, "Upload"}, 5: {422, "InvalidParameter"}, 6: {422, "InvalidParameter"}, 7: {404, "ResourceNotFound"},
		15: {404, "ResourceNotFound"}, 16: {403, "OperatorOnly"}, 17: {422, "InvalidParameter"},
	}
	for i, r := range replies {
		call := fmt.Sprint("call ", i)
		if w, ok := wrong[i]; ok {
			r.wantError(t, call, w.status, w.code)
		} else {
			r.want(t, call, nil)
		}
	}
	wantOnDisk(t, filepath.Join(dir, "base"), base.file)
	if files := m.files(); len(files) != 1 || files[0] != base.sha1() {
		t.Errorf("on disk: %v", files)
	}
	if left := m.walk("partial"); len(left) > 0 {
		t.Errorf("left in partial: %v", left)
	}
	if n := m.metric("imgmirror_http_writes_total", `result="accepted"`); n != 6 {
		t.Errorf("%v writes accepted", n)
	}
	m.verb("status").want(t, "published")

	// An image that gets its uuid here.
	fields := web.fields(t)
	delete(fields, "uuid")
	var created map[string]any
	node(t, m.url, []any{"createImage", fields})[0].want(t, "createImage", &created)
	web.uuid, _ = created["uuid"].(string)
	for i, r := range node(t, m.url, upload(web, abs(t, web.path), nil), []any{"activateImage", web.uuid}, []any{"getImageFile", web.uuid, filepath.Join(dir, "web")}) {
		r.want(t, fmt.Sprint("call ", i), nil)
	}
	wantOnDisk(t, filepath.Join(dir, "web"), web.file)
}

// TestWriteKilled: kill -9 between any two requests, and during each, leaves the image wholly there or
// not at all; a second try of the same requests is taken.
func TestWriteKilled(t *testing.T) {
	t.Parallel()
	m := startMirror(t, writesFromHere)
	absent := func(when string, img image) {
		t.Helper()
		get(t, m.url+"/images/"+img.uuid).wantError(t, 404, "ResourceNotFound")
		get(t, m.url+"/images/"+img.uuid+"/file").wantError(t, 404, "ResourceNotFound")
		if files := append(m.walk("files"), m.walk("published")...); len(files) > 0 {
			t.Errorf("killed %s: left on disk: %v", when, files)
		}
	}
	img := sample(t, sampleBase)
	for after := range 3 {
		c := newImgadm(t, m, "imgapi")
		for i, request := range c.publishing(t, img)[:after] {
			if status, got, err := request(); err != nil || status != 200 {
				t.Fatalf("request %d: %d %v, %v", i, status, got, err)
			}
		}
		m.kill()
		m.start()
		absent(fmt.Sprintf("after %d requests", after), img)
	}

	// During the upload, and about the activation.
	large := newImage("killed writer", 2<<20)
	sums := map[string]any{"sha1": large.sha1(), "size": len(large.file), "compression": "none"}
	large = newImage("killed writer", 2<<20, map[string]any{"type": "other", "files": []any{sums}})
	c := newImgadm(t, m, "imgapi")
	requests := c.publishing(t, large)
	if status, got, err := requests[0](); err != nil || status != 200 {
		t.Fatalf("%d %v, %v", status, got, err)
	}
	head := fmt.Sprintf("PUT /images/%s/file?compression=%s&sha1=%s HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n",
		large.uuid, "none", large.sha1(), len(large.file))
	if _, err := io.WriteString(c.json.conn, head+string(large.file[:1<<20])); err != nil {
		t.Fatal(err)
	}
	m.until("half of the file has come", func() bool { return len(m.walk("partial")) > 0 })
	m.kill()
	m.start()
	absent("during the upload", large)

	wholes := 0
	for i := range 6 {
		c := newImgadm(t, m, "imgapi")
		requests := c.publishing(t, large)
		for n, request := range requests[:2] {
			if status, got, err := request(); err != nil || status != 200 {
				t.Fatalf("request %d: %d %v, %v", n, status, got, err)
			}
		}
		var ended atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			status, _, err := requests[2]()
			ended.Store(err == nil && status == 200)
		}()
		time.Sleep(time.Duration(i) * 3 * time.Millisecond) // any moment will do
		m.kill()
		<-done
		m.start()
		got := get(t, m.url+"/images/"+large.uuid)
		if got.status != 200 {
			if ended.Load() {
				t.Error("an image that was activated is gone")
			}
			absent("during the activation", large)
			continue
		}
		wholes++
		if !bytes.Contains(got.body, []byte(`"active"`)) {
			t.Errorf("not active: %s", got.body)
		}
		get(t, m.url+"/images/"+large.uuid+"/file").wantFile(t, large)
		m.verb("unpublish", large.uuid).want(t, large.uuid)
	}
	t.Logf("killed during the activation: %d of 6 images were there", wholes)
	newImgadm(t, m, "imgapi").publish(t, img)
	get(t, m.url+filePath(img)).wantFile(t, img)
}

// TestWritesByKey: without the key writes are the 405 that they were; a token opens them at a SIGHUP.
func TestWritesByKey(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil)
	img := sample(t, sampleBase)
	c := newImgadm(t, m, "imgapi")
	refused := func(status int, code string) {
		t.Helper()
		for i, request := range c.publishing(t, img) {
			got, told, err := request()
			if err != nil || got != status || told["code"] != code {
				t.Errorf("request %d: %d %v, %v; want %d %s", i, got, told, err, status, code)
			}
		}
	}
	refused(405, "MethodNotAllowedError")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a token for those who build\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.set(settings{"writes.enabled": true, "writes.token_file": token, "writes.allow": []string{"192.0.2.0/24"}})
	m.configFile()
	m.signal(syscall.SIGHUP)
	m.until("the configuration is reloaded", func() bool { return strings.Contains(m.log(), "configuration reloaded") })
	refused(403, "OperatorOnly")
	said := curl(t, m.url+"/images/"+img.uuid+"?action=import", "-X", "POST", "-H", "Authorization: Bearer a token for those who build",
		"--data-binary", "@"+strings.TrimSuffix(abs(t, img.path), filepath.Base(img.path))+"manifest.json")
	if said.status != 200 {
		t.Errorf("with the token: %d %s", said.status, said.body)
	}
	said = curl(t, m.url+"/images/"+img.uuid+"/file?compression=gzip&sha1="+img.sha1(), "-T", abs(t, img.path),
		"-H", "Authorization: Bearer a token for those who build")
	if asked := said.status == 100 && bytes.HasPrefix(said.body, []byte("HTTP/1.1 200")); said.status != 200 && !asked { // by the version of curl
		t.Errorf("the file: %d %s", said.status, said.body)
	}
}
