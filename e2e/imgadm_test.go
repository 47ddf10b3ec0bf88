package e2e

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgmirror/proxy/upstream/upstreamtest"
)

// imgadm plays imgadm 3.9.5 as it was observed: the same requests, header for
// header, on the same kind of sockets, and the same checks of every reply. It
// is one invocation of the command against one source.
type imgadm struct {
	host  string // of the source, "127.0.0.1:8080"
	kind  string // "imgapi" or "dsapi"
	reqID string

	json  *socket      // for everything but files
	files chan *socket // idle sockets for files
}

// newImgadm is an invocation with the mirror as its one source.
func newImgadm(t *testing.T, m *mirror, kind string) *imgadm {
	t.Helper()
	c := &imgadm{host: strings.TrimPrefix(m.url, "http://"), kind: kind, reqID: uuid.NewString(), files: make(chan *socket, 5)}
	t.Cleanup(func() {
		c.json.close()
		close(c.files)
		for s := range c.files {
			s.close()
		}
	})
	return c
}

// socket is one kept-alive connection of a node agent.
type socket struct {
	conn net.Conn
	read *bufio.Reader
}

func dialSocket(host string) (*socket, error) {
	conn, err := net.DialTimeout("tcp", host, 15*time.Second)
	if err != nil {
		return nil, err
	}
	return &socket{conn, bufio.NewReader(conn)}, nil
}

func (s *socket) close() {
	if s != nil {
		s.conn.Close()
	}
}

// ask sends one request, given to the byte, and reads the reply's head.
func (s *socket) ask(text string) (*http.Response, error) {
	if err := s.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(s.conn, text); err != nil {
		return nil, err
	}
	return http.ReadResponse(s.read, &http.Request{Method: http.MethodGet})
}

// request is a request of imgadm, header names and order as seen on the wire.
func (c *imgadm) request(target string, file bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\n", target)
	if c.kind == "imgapi" {
		fmt.Fprintf(&b, "x-request-id: %s\r\n", c.reqID)
	}
	if c.kind == "imgapi" || !file {
		b.WriteString("accept: application/json\r\n")
	}
	b.WriteString("user-agent: imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u)\r\n")
	if c.kind == "imgapi" {
		b.WriteString("accept-version: ~2\r\n")
	}
	fmt.Fprintf(&b, "date: %s\r\n", time.Now().UTC().Format(http.TimeFormat))
	fmt.Fprintf(&b, "Host: %s\r\nConnection: keep-alive\r\n\r\n", c.host)
	return b.String()
}

// imgadmError is an error as imgadm words it: the code and message of a reply.
type imgadmError struct {
	status        int
	code, message string
}

func (e *imgadmError) Error() string { return fmt.Sprintf("error (%s): %s", e.code, e.message) }

// getJSON makes a request on the one socket for JSON. What imgadm would take
// in silence but must not be sent (a redirect, a page, Content-MD5) is an error.
func (c *imgadm) getJSON(target string, into any) error {
	if c.json == nil {
		s, err := dialSocket(c.host)
		if err != nil {
			return err
		}
		c.json = s
	}
	resp, err := c.json.ask(c.request(target, false))
	if err != nil {
		return fmt.Errorf("GET %s: %w", target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", target, err)
	}
	if resp.Close {
		return fmt.Errorf("GET %s: the server ends a kept-alive connection", target)
	}
	if md5 := resp.Header.Get("Content-Md5"); md5 != "" {
		return fmt.Errorf("GET %s: Content-MD5 %q on JSON: BadDigest for non-ASCII bodies", target, md5)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		return fmt.Errorf("GET %s: Content-Type %q", target, got)
	}
	if resp.ContentLength != int64(len(body)) {
		return fmt.Errorf("GET %s: Content-Length %d, %d bytes", target, resp.ContentLength, len(body))
	}
	if got := resp.Header.Get("X-Request-Id"); c.kind == "imgapi" && got != c.reqID {
		return fmt.Errorf("GET %s: x-request-id %q, sent %q", target, got, c.reqID)
	}
	if resp.StatusCode >= 400 {
		var e struct{ Code, Message string }
		if err := json.Unmarshal(body, &e); err != nil || e.Code == "" || e.Message == "" {
			return fmt.Errorf("GET %s: status %d with body %q", target, resp.StatusCode, body)
		}
		return &imgadmError{resp.StatusCode, e.Code, e.Message}
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: status %d, which the client takes for success", target, resp.StatusCode)
	}
	return json.Unmarshal(body, into)
}

// addSource is `imgadm sources -a`.
func (c *imgadm) addSource() error {
	var pong map[string]any
	if err := c.getJSON("/ping", &pong); err != nil {
		return err
	}
	if c.kind == "imgapi" && pong["imgapi"] != true {
		return fmt.Errorf("SourcePing: imgapi is %v", pong["imgapi"])
	}
	return nil
}

// avail is `imgadm avail`: the whole list, page after page.
func (c *imgadm) avail() ([]map[string]any, error) {
	if c.kind == "dsapi" {
		var v1 []map[string]any
		err := c.getJSON("/datasets", &v1)
		for i := range v1 {
			if err == nil {
				v1[i], err = upgrade(v1[i])
			}
		}
		return v1, err
	}
	var all []map[string]any
	marker := ""
	for {
		target := "/images"
		if marker != "" {
			target += "?marker=" + marker + "&limit=1000"
		}
		var page []map[string]any
		if err := c.getJSON(target, &page); err != nil {
			return nil, err
		}
		short := len(page) < 1000
		if len(page) > 0 && marker != "" && page[0]["uuid"] == marker {
			page = page[1:]
		}
		if len(page) == 0 || page[len(page)-1]["uuid"] == marker {
			return all, nil
		}
		marker, _ = page[len(page)-1]["uuid"].(string)
		all = append(all, page...)
		if short {
			return all, nil
		}
	}
}

// show is `imgadm show`, and the first step of an import.
func (c *imgadm) show(id string) (map[string]any, error) {
	var m map[string]any
	if c.kind == "imgapi" {
		if err := c.getJSON("/images/"+id, &m); err != nil {
			return nil, err
		}
		if m["v"] == nil {
			return nil, fmt.Errorf("InvalidManifest: %s does not have a \"v\" field", id)
		}
		return m, nil
	}
	if err := c.getJSON("/datasets/"+id, &m); err != nil {
		return nil, err
	}
	return upgrade(m)
}

// imported is what `imgadm import` would hand to zfs receive.
type imported struct {
	uuid        string
	compression string
	origin      string
	file        []byte
}

// importImage is `imgadm import`: the manifest, those of its origins one by
// one, then the files, up to five at once. The result is base first.
func (c *imgadm) importImage(id string) ([]imported, error) {
	var chain []map[string]any
	for next, top := id, true; next != ""; top = false {
		m, err := c.show(next)
		if err != nil {
			return nil, err
		}
		if top && m["state"] != "active" {
			return nil, fmt.Errorf("ActiveImageNotFound: %s is %v", next, m["state"])
		}
		chain = append([]map[string]any{m}, chain...)
		next, _ = m["origin"].(string)
	}
	result := make([]imported, len(chain))
	var g errgroup.Group
	g.SetLimit(5)
	for i, m := range chain {
		if c.kind == "dsapi" { // it asks for the top manifest a second time, for the url
			if _, err := c.show(m["uuid"].(string)); err != nil {
				return nil, err
			}
		}
		g.Go(func() (err error) {
			result[i], err = c.download(m)
			return err
		})
	}
	return result, g.Wait()
}

// download fetches one file and checks what imgadm checks, in its order.
func (c *imgadm) download(m map[string]any) (imported, error) {
	id, _ := m["uuid"].(string)
	files, _ := m["files"].([]any)
	if len(files) == 0 {
		return imported{}, fmt.Errorf("%s: AssertionError: no files", id)
	}
	file, _ := files[0].(map[string]any)
	size, ok := file["size"].(float64)
	if !ok {
		return imported{}, fmt.Errorf("%s: AssertionError: size is %v", id, file["size"])
	}
	im := imported{uuid: id}
	im.origin, _ = m["origin"].(string)
	im.compression, _ = file["compression"].(string)
	if !strings.Contains(" gzip bzip2 xz none ", " "+im.compression+" ") {
		return imported{}, fmt.Errorf("%s: AssertionError: compression is %q", id, im.compression)
	}
	target := "/images/" + id + "/file"
	if c.kind == "dsapi" {
		target, _ = file["url"].(string) // whole, into the request line
	}

	var s *socket
	select {
	case s = <-c.files:
	default:
		var err error
		if s, err = dialSocket(c.host); err != nil {
			return imported{}, err
		}
	}
	resp, err := s.ask(c.request(target, true))
	if err != nil {
		s.close()
		return imported{}, fmt.Errorf("GET %s: %w", target, err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.Close {
		s.close()
	} else {
		c.files <- s // five at once at most, so there is room
	}
	sum := sha1.Sum(body)
	switch {
	case resp.StatusCode >= 400:
		return imported{}, fmt.Errorf("GET %s: status %d: %s", target, resp.StatusCode, body)
	case resp.StatusCode != http.StatusOK:
		return imported{}, fmt.Errorf("GET %s: status %d, which the client takes for success", target, resp.StatusCode)
	case len(resp.TransferEncoding) > 0 || resp.ContentLength < 0:
		return imported{}, fmt.Errorf("GET %s: DownloadError: missing or invalid Content-Length", target)
	case resp.ContentLength != int64(size):
		return imported{}, fmt.Errorf("GET %s: DownloadError: Content-Length %d, size %v", target, resp.ContentLength, size)
	case err != nil:
		return imported{}, fmt.Errorf("GET %s: %w", target, err)
	case hex.EncodeToString(sum[:]) != file["sha1"]:
		return imported{}, fmt.Errorf("GET %s: DownloadError: sha1 %x, manifest %v", target, sum, file["sha1"])
	}
	im.file = body
	return im, nil
}

// upgrade turns a v1 manifest into v2 as the client's imgmanifest does, with
// its exceptions.
func upgrade(m map[string]any) (map[string]any, error) {
	if m["v"] != nil {
		return nil, fmt.Errorf("%v: has a v, so the client would not upgrade it", m["uuid"])
	}
	if s, _ := m["creator_uuid"].(string); s == "" {
		return nil, fmt.Errorf("%v: invalid dsmanifest: no creator_uuid", m["uuid"])
	}
	if m["owner"] != nil {
		return nil, fmt.Errorf("%v: both owner and creator_uuid", m["uuid"])
	}
	if m["restricted_to_uuid"] != nil && m["public"] != nil {
		return nil, fmt.Errorf("%v: both restricted_to_uuid and public", m["uuid"])
	}
	m["v"], m["owner"], m["state"] = 2.0, m["creator_uuid"], "active"
	if disabled, _ := m["disabled"].(bool); disabled {
		m["state"] = "disabled"
	}
	files, _ := m["files"].([]any)
	for _, f := range files {
		file, ok := f.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%v: files[] is %v", m["uuid"], f)
		}
		if file["compression"] == nil {
			path, _ := file["path"].(string)
			switch {
			case strings.HasSuffix(path, ".gz"):
				file["compression"] = "gzip"
			case strings.HasSuffix(path, ".bz2"):
				file["compression"] = "bzip2"
			default:
				file["compression"] = "none"
			}
		}
	}
	return m, nil
}

// TestImgadmImport: sources -a, avail, show and import of every compression
// and of a three-level chain, as type imgapi and as type dsapi.
// The images are real ZFS streams.
func TestImgadmImport(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"imgapi", "dsapi"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := startMirror(t, nil, samples(t))
			m.awaitList(len(sampleUUIDs))
			c := newImgadm(t, m, kind)
			if err := c.addSource(); err != nil {
				t.Fatal(err)
			}
			list, err := c.avail()
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != len(sampleUUIDs) {
				t.Errorf("avail: %d images, want %d", len(list), len(sampleUUIDs))
			}
			for _, result := range []string{"cold", "cached"} {
				for _, tc := range []struct {
					id    string
					chain []string
				}{
					{sampleApp, []string{sampleBase, sampleWeb, sampleApp}},
					{sampleBase, []string{sampleBase}},
					{sampleBzip2, []string{sampleBzip2}},
					{sampleXZ, []string{sampleXZ}},
					{samplePlain, []string{samplePlain}},
				} {
					got, err := c.importImage(tc.id)
					if err != nil {
						t.Fatalf("import %s, %s: %v", tc.id, result, err)
					}
					wantImport(t, got, tc.chain)
				}
				m.awaitStored(len(sampleUUIDs))
			}
		})
	}
}

// wantImport compares what was imported with the sample images of a chain, and
// does what zfs receive would: fit each stream on its origin's.
func wantImport(t *testing.T, got []imported, chain []string) {
	t.Helper()
	if len(got) != len(chain) {
		t.Fatalf("%d images imported, want %d", len(got), len(chain))
	}
	var last uint64
	for i, im := range got {
		want := sample(t, chain[i])
		if im.uuid != want.uuid || string(im.file) != string(want.file) {
			t.Fatalf("link %d: %s, %d bytes; want %s, %d", i, im.uuid, len(im.file), want.uuid, len(want.file))
		}
		to, from := snapshotGUIDs(t, decompress(t, im.compression, im.file))
		if from != last {
			t.Errorf("%s goes on from snapshot %d, want %d", im.uuid, from, last)
		}
		last = to
	}
}

// TestImgadmAbsoluteForm: the DSAPI client puts the manifest's whole url into
// the request line; the server goes by its path, whatever authority it names.
func TestImgadmAbsoluteForm(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	m.awaitList(len(sampleUUIDs))
	c := newImgadm(t, m, "dsapi")
	v1, err := c.show(sampleBase)
	if err != nil {
		t.Fatal(err)
	}
	file := v1["files"].([]any)[0].(map[string]any)
	own, err := url.Parse(file["url"].(string))
	if err != nil || own.Scheme != "http" || own.Host != c.host {
		t.Errorf("files[0].url is %v, want one of http://%s", file["url"], c.host)
	}
	for _, authority := range []string{c.host, "any.host:81", "datasets.joyent.com", "[2001:db8::1]:8080"} {
		file["url"] = "http://" + authority + own.Path
		got, err := c.download(v1)
		if err != nil {
			t.Errorf("%s: %v", authority, err)
			continue
		}
		wantImport(t, []imported{got}, []string{sampleBase})
	}
	// The self URLs follow the Host field, also then.
	var m1 map[string]any
	if err := c.getJSON("http://any.host:81/datasets/"+sampleBase, &m1); err != nil {
		t.Fatal(err)
	}
	if got := m1["files"].([]any)[0].(map[string]any)["url"]; got != own.String() {
		t.Errorf("absolute-form target: files[0].url is %v, want %s", got, own)
	}
}

// TestImgadmAvailPages: a list of more than 1000 images reaches the client
// whole, and once; also from a source that pages.
func TestImgadmAvailPages(t *testing.T) {
	t.Parallel()
	const n = 1203
	images := make([]image, n)
	for i := range images {
		// Ten of each date, so that pages end in the midst of equal ones.
		images[i] = newImage(fmt.Sprintf("many-%04d", i), 1,
			map[string]any{"published_at": fmt.Sprintf("2020-01-01T%02d:%02d:00Z", i/10/60, i/10%60)})
	}
	src := newSourceWith(t, upstreamtest.Options{PageCap: 1000}, images...)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(n)
	list, err := newImgadm(t, m, "imgapi").avail()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[any]bool{}
	for _, img := range list {
		if seen[img["uuid"]] {
			t.Errorf("avail: %v twice", img["uuid"])
		}
		seen[img["uuid"]] = true
	}
	if len(seen) != n {
		t.Errorf("avail: %d images, want %d", len(seen), n)
	}
}

// TestImgadmNotFound: what is not here is a 404 that sends imgadm to its next
// source; an inactive image is shown but not listed.
func TestImgadmNotFound(t *testing.T) {
	t.Parallel()
	disabled := newImage("disabled-origin", 1000, map[string]any{"state": "disabled", "disabled": true})
	child := newImage("child", 1000, map[string]any{"origin": disabled.uuid})
	src := newSource(t, disabled, child)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	c := newImgadm(t, m, "imgapi")

	for _, target := range []string{
		"/images/00000000-1111-4222-8333-444444444444",
		"/sub/ping", "/sub/images", // a source added with a base path
		"//x/ping",
		"/images/" + strings.ToUpper(sampleBase),
	} {
		err := c.getJSON(target, new(any))
		if e, ok := err.(*imgadmError); !ok || e.status != 404 || e.code != "ResourceNotFound" {
			t.Errorf("GET %s: %v, want 404 ResourceNotFound", target, err)
		}
	}
	list, err := c.avail()
	if err != nil || len(list) != 1 || list[0]["uuid"] != child.uuid {
		t.Errorf("avail: %v, %v; want the child alone", list, err)
	}
	got, err := c.importImage(child.uuid)
	if err != nil {
		t.Fatalf("import of an image with a disabled origin: %v", err)
	}
	if len(got) != 2 || string(got[0].file) != string(disabled.file) || string(got[1].file) != string(child.file) {
		t.Errorf("import: %d images, or wrong bytes", len(got))
	}
	if _, err := c.importImage(disabled.uuid); err == nil || !strings.HasPrefix(err.Error(), "ActiveImageNotFound") {
		t.Errorf("import of a disabled image: %v", err)
	}
	// `import -C` and a source added with ?channel=: without channels they mean nothing.
	var m1 map[string]any
	if err := c.getJSON("/images/"+child.uuid+"?channel=dev", &m1); err != nil || m1["uuid"] != child.uuid {
		t.Errorf("?channel=dev: %v, %v", m1, err)
	}
}
