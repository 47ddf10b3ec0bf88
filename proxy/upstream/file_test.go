package upstream

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// read gives the whole of a file.
func read(t *testing.T, c *Client, m manifest.Manifest, index int) []byte {
	t.Helper()
	s, err := c.File(t.Context(), m, index, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFileOfEachDialect(t *testing.T) {
	data := upstreamtest.Bytes(1, 300_000)
	sum := md5.Sum(data)
	for _, dialect := range []upstreamtest.Dialect{
		upstreamtest.IMGAPI, upstreamtest.DSAPI, upstreamtest.DSAPID, upstreamtest.SmartOSImageServer, upstreamtest.Static,
	} {
		t.Run(string(dialect), func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{Dialect: dialect, Prefix: "/sub"})
			make := upstreamtest.ManifestV1
			if dialect == upstreamtest.IMGAPI || dialect == upstreamtest.DSAPID {
				make = upstreamtest.Manifest
			}
			add(t, s, make(upstreamtest.ID(1), "base", "1.0", nil, data), data)
			c := newClient(t, Options{URL: s.URL()})
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil {
				t.Fatal(err)
			}
			for _, offset := range []int64{0, 1, 100_000, 299_999} {
				st, err := c.File(t.Context(), l.Images[0], 0, offset)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(st)
				if err != nil || !bytes.Equal(got, data[offset:]) || st.Size != int64(len(data)) {
					t.Errorf("from %d: %d bytes of %d, %v", offset, len(got), st.Size, err)
				}
				honest := dialect != upstreamtest.SmartOSImageServer
				if wantMD5 := honest && offset == 0; bytes.Equal(st.MD5, sum[:]) != wantMD5 || (st.MD5 == nil) == wantMD5 {
					t.Errorf("from %d: md5 %x", offset, st.MD5)
				}
				if st.ModTime.IsZero() == honest || st.ContentType != "application/octet-stream" {
					t.Errorf("from %d: type %q, time %v", offset, st.ContentType, st.ModTime)
				}
				if err := st.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestFileRequest(t *testing.T) {
	data := upstreamtest.Bytes(1, 1000)
	s := newServer(t, upstreamtest.Options{})
	add(t, s, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data), data)
	c := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI})
	m, err := c.Get(t.Context(), upstreamtest.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 10} {
		st, err := c.File(t.Context(), m, 0, offset)
		if err != nil {
			t.Fatal(err)
		}
		st.Close()
	}
	r := s.Requests()
	for i, want := range []map[string]string{
		{"Accept": "*/*", "Accept-Encoding": "identity", "Accept-Version": "~2", "User-Agent": "imgmirror", "Range": "", "If-Range": ""},
		{"Accept-Encoding": "identity", "Range": "bytes=10-", "If-Range": `"` + m.Files[0].SHA1.String() + `"`},
	} {
		for k, v := range want {
			if got := r[i+1].Header.Get(k); got != v {
				t.Errorf("request %d: %s: %q, want %q", i, k, got, v)
			}
		}
	}
}

// The addresses of spec 4.1, 4.2 and 5.4, as they are asked for.
func TestFileAddresses(t *testing.T) {
	data := []byte("the bytes")
	id := upstreamtest.ID(1).String()
	files := func(entries ...map[string]any) map[string]any {
		for _, e := range entries {
			e["sha1"], e["size"] = "0123456789012345678901234567890123456789", len(data)
		}
		return map[string]any{"files": entries}
	}
	path := func(p string) map[string]any { return map[string]any{"path": p} }
	url := func(u string) map[string]any { return map[string]any{"url": u, "path": ""} }
	both := func(p, u string) map[string]any { return map[string]any{"path": p, "url": u} }
	const here = "http://HOST"

	for _, test := range []struct {
		name, kind, base string
		files            map[string]any
		index            int
		serves           string   // the one path (or path?query) that has the file
		asked            []string // all paths that were asked, in order; nil: not looked at
	}{
		{"imgapi", kindIMGAPI, "", files(path("a")), 0, "/images/U/file", []string{"/images/U/file"}},
		{"imgapi below a path", kindIMGAPI, "/sub", files(path("a")), 0, "/sub/images/U/file", nil},
		{"imgapi, index", kindIMGAPI, "", files(path("a"), path("b")), 1, "/images/U/file?index=1",
			[]string{"/ping", "/images/U/file?index=1"}},
		{"imgapi, index, other form", kindIMGAPI, "", files(path("a"), path("b")), 1, "/images/U/file1",
			[]string{"/ping", "/images/U/file?index=1", "/images/U/file1"}},
		{"dsapi", kindDSAPI, "", files(path("a b.zfs.gz")), 0, "/datasets/U/a%20b.zfs.gz", []string{"/datasets/U/a%20b.zfs.gz"}},
		{"dsapi, index", kindDSAPI, "", files(path("a"), path("b")), 1, "/datasets/U/b", nil},
		{"dsapi, url as the second choice", kindDSAPI, "", files(both("a", here+"/else/a")), 0, "/else/a",
			[]string{"/datasets/U/a", "/else/a"}},
		{"dsapi, relative url", kindDSAPI, "", files(both("a", "/else/a")), 0, "/else/a", nil},
		{"dsapi, no path", kindDSAPI, "", files(url(here + "/else/a")), 0, "/else/a", []string{"/else/a"}},
		{"dsapi, no path, derived", kindDSAPI, "", files(url(here + "/else/a.gz")), 0, "/datasets/U/n-1.zfs.gz",
			[]string{"/else/a.gz", "/datasets/U/n-1.zfs.gz"}},
		{"dsapi, url with the port twice", kindDSAPI, "", files(both("a", "http://h:80:80/a")), 0, "/datasets/U/a", nil},
		{"dsapi, url to be filled in", kindDSAPI, "", files(both("a", "-automatic-")), 0, "/datasets/U/a", nil},
		{"static", kindStatic, "", files(path("a.zfs.gz")), 0, "/U/a.zfs.gz", []string{"/", "/U/a.zfs.gz"}},
		{"static, path of several segments", kindStatic, "", files(path("x/a b#c")), 0, "/U/x/a%20b%23c", nil},
		{"static, index", kindStatic, "", files(path("a"), path("b")), 1, "/U/b", nil},
		{"static, absolute url first", kindStatic, "", files(both("a", here+"/else/a")), 0, "/else/a", []string{"/", "/else/a"}},
		{"static, relative url", kindStatic, "/tree/", files(both("a", "U/b")), 0, "/tree/U/b", []string{"/tree/", "/tree/U/b"}},
		{"static, relative url after a redirect", kindStatic, "/redirect", files(both("a", "U/b")), 0, "/redirect/U/b", nil},
		{"static, path after a redirect", kindStatic, "/redirect", files(path("a")), 0, "/redirect/U/a", nil},
		{"static, the other form", kindStatic, "", files(both("a", here+"/else/a")), 0, "/U/a", []string{"/", "/else/a", "/U/a"}},
		{"static, forbidden there", kindStatic, "", files(both("a", here+"/forbidden")), 0, "/U/a", []string{"/", "/forbidden", "/U/a"}},
		{"static, gone there", kindStatic, "", files(both("a", here+"/gone")), 0, "/U/a", []string{"/", "/gone", "/U/a"}},
		{"static, nobody there", kindStatic, "", files(both("a", "http://127.0.0.1:1/a")), 0, "/U/a", []string{"/", "/U/a"}},
		{"static, a scheme we refuse", kindStatic, "", files(both("a", "file:///etc/passwd")), 0, "/U/a", []string{"/", "/U/a"}},
		{"static v2 without path", kindStatic, "", files(map[string]any{}), 0, "/U/file", []string{"/", "/U/file"}},
		{"static v2 with url", kindStatic, "", files(url("x/y")), 0, "/x/y", []string{"/", "/x/y"}},
		{"static, a document", kindStatic, "/list.json", files(path("a")), 0, "/U/a", []string{"/list.json", "/U/a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked []string
			address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, strings.ReplaceAll(r.URL.RequestURI(), id, "U"))
				switch r.URL.RequestURI() {
				case strings.ReplaceAll(test.serves, "U", id):
					w.Write(data)
				case "/", "/tree/", "/redirect/", "/list.json":
					fmt.Fprint(w, v1List)
				case "/redirect":
					http.Redirect(w, r, "/redirect/", http.StatusMovedPermanently)
				case "/forbidden":
					w.WriteHeader(http.StatusForbidden)
				case "/gone":
					w.WriteHeader(http.StatusGone)
				default:
					http.NotFound(w, r)
				}
			})
			doc := upstreamtest.ManifestV1(upstreamtest.ID(1), "n", "1", test.files)
			doc = bytes.ReplaceAll(doc, []byte(here), []byte(address))
			doc = bytes.ReplaceAll(doc, []byte(`"U/b"`), []byte(`"`+id+`/b"`))
			if test.name == "static v2 without path" || test.name == "static v2 with url" {
				doc = upstreamtest.Manifest(upstreamtest.ID(1), "n", "1", test.files)
				doc = bytes.ReplaceAll(doc, []byte(`"size"`), []byte(`"compression":"none","size"`))
			}
			if test.base == "" && test.kind == kindStatic {
				test.base = "/"
			}
			c := newClient(t, Options{URL: address + test.base, Kind: test.kind})
			if got := read(t, c, parse(t, doc), test.index); !bytes.Equal(got, data) {
				t.Errorf("got %q", got)
			}
			if test.asked != nil && !slices.Equal(asked, test.asked) {
				t.Errorf("asked %q, want %q", asked, test.asked)
			}
		})
	}
}

// dsapid ignores the index parameter: asked that way it would give the first file for the second.
func TestSecondFileOfDSAPID(t *testing.T) {
	files := [][]byte{[]byte("first"), []byte("second")}
	s := newServer(t, upstreamtest.Options{Dialect: upstreamtest.DSAPID})
	doc := upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, files...)
	add(t, s, doc, files...)
	for _, kind := range []string{kindIMGAPI, kindAuto} {
		s.Forget()
		c := newClient(t, Options{URL: s.URL(), Kind: kind})
		for range 2 {
			if got := read(t, c, parse(t, doc), 1); string(got) != "second" {
				t.Errorf("%s: %q", kind, got)
			}
		}
		if s.Count("/ping") != 1 || s.Count("/file1") != 2 || s.Count("") != 3 {
			t.Errorf("%s: %d requests", kind, s.Count(""))
		}
	}
}

// After a restart a file may be asked for before any list.
func TestFileOfAStaticSourceWithoutItsList(t *testing.T) {
	data := []byte("the bytes")
	s := newServer(t, upstreamtest.Options{Dialect: upstreamtest.Static})
	doc := upstreamtest.ManifestV1(upstreamtest.ID(1), "a", "1", nil, data)
	add(t, s, doc, data)
	for _, status := range []int{200, 404, 500} {
		s.Heal()
		s.Inject(upstreamtest.Fault{Path: "/", Status: status, Body: v1List})
		c := newClient(t, Options{URL: s.URL() + "/", Kind: kindStatic})
		st, err := c.File(t.Context(), parse(t, doc), 0, 0)
		if err != nil {
			t.Errorf("list with %d: %v", status, err)
			continue
		}
		if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, data) {
			t.Errorf("list with %d: %q, %v", status, got, err)
		}
		st.Close()
	}
	s.Stop()
	c := newClient(t, Options{URL: s.URL() + "/", Kind: kindStatic})
	if _, err := c.File(t.Context(), parse(t, doc), 0, 0); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("a source that is down: %v", err)
	}
}

func TestFileErrors(t *testing.T) {
	data := []byte("the bytes")
	file := map[string]any{"sha1": "0123456789012345678901234567890123456789", "size": len(data)}
	with := func(k, v string) map[string]any {
		f := map[string]any{k: v}
		for k, v := range file {
			f[k] = v
		}
		return map[string]any{"files": []any{f}}
	}
	for _, test := range []struct {
		name, kind string
		files      map[string]any
		index      int
		status     int
		match      error
		requests   int // but for the static list
	}{
		{"not there", kindIMGAPI, with("path", "a"), 0, 404, fs.ErrNotExist, 1},
		{"gone", kindDSAPI, with("path", "a"), 0, 410, fs.ErrNotExist, 1},
		{"forbidden", kindIMGAPI, with("path", "a"), 0, 403, fs.ErrPermission, 1},
		{"broken", kindIMGAPI, with("path", "a"), 0, 500, verify.ErrUnavailable, 1},
		{"no content", kindIMGAPI, with("path", "a"), 0, 204, verify.ErrUnavailable, 1},
		{"broken is not tried elsewhere", kindDSAPI, map[string]any{"files": []any{map[string]any{
			"path": "a", "url": "/b", "sha1": file["sha1"], "size": 9}}}, 0, 500, verify.ErrUnavailable, 1},
		{"index beyond", kindIMGAPI, with("path", "a"), 1, 200, fs.ErrNotExist, 0},
		{"index below", kindIMGAPI, with("path", "a"), -1, 200, fs.ErrNotExist, 0},
		{"nobody at the other host", kindStatic, with("url", "http://127.0.0.1:1/a"), 0, 404, verify.ErrUnavailable, 1},
		{"path that climbs", kindStatic, with("path", "../../etc/passwd"), 0, 404, fs.ErrNotExist, 0},
		{"path with nothing", kindStatic, with("path", "a//b"), 0, 404, fs.ErrNotExist, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			requests := 0
			address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					fmt.Fprint(w, v1List)
					return
				}
				requests++
				w.WriteHeader(test.status)
			})
			c := newClient(t, Options{URL: address, Kind: test.kind})
			m := parse(t, upstreamtest.ManifestV1(upstreamtest.ID(1), "n", "1", test.files))
			s, err := c.File(t.Context(), m, test.index, 0)
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, test.match) {
				t.Errorf("error %v, want %v", err, test.match)
			}
			if requests != test.requests {
				t.Errorf("%d requests, want %d", requests, test.requests)
			}
		})
	}
}

// A manifest must not make the mirror ask its own machine or the cloud's metadata service.
func TestReservedAddressesInManifestsAreRefused(t *testing.T) {
	for _, address := range []string{
		"http://169.254.169.254/latest/meta-data", "http://[fe80::1]/x", "http://127.0.0.1:8081/api", "http://localhost/x",
		"http://[::ffff:127.0.0.1]/", "ftp://images.example/x", "file:///etc/passwd", "gopher://x",
	} {
		c := newClient(t, Options{URL: "http://images.example/datasets"})
		u, err := c.statedURL(&c.addr.given, manifest.File{URL: address})
		if u != nil || !errors.Is(err, errRefused) {
			t.Errorf("%s: %v, %v", address, u, err)
		}
	}
	// unless the source is there itself, or at the same host
	for source, address := range map[string]string{
		"http://127.0.0.1:8080": "http://127.0.0.1:8081/x",
		"http://169.254.1.1":    "http://169.254.1.2/x",
		"http://images.example": "http://images.example/x",
		"http://10.0.0.1":       "http://10.0.0.2/x",
	} {
		c := newClient(t, Options{URL: source})
		if u, err := c.statedURL(&c.addr.given, manifest.File{URL: address}); u == nil || err != nil {
			t.Errorf("%s at %s: %v, %v", address, source, u, err)
		}
	}
	if urls, err := addresses(errRefused, nil, nil); urls != nil || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("nothing but a refused address: %v, %v", urls, err)
	}
}

func TestIcon(t *testing.T) {
	icon := []byte("\x89PNG\r\n\x1a\n and more")
	s := newServer(t, upstreamtest.Options{})
	add(t, s, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", map[string]any{"icon": true}, []byte("x")))
	add(t, s, upstreamtest.Manifest(upstreamtest.ID(2), "b", "1", nil, []byte("x")))
	s.SetIcon(upstreamtest.ID(1), icon)
	c := newClient(t, Options{URL: s.URL()})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Icon(t.Context(), l.Images[0])
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	got, err := io.ReadAll(st)
	if sum := md5.Sum(icon); err != nil || !bytes.Equal(got, icon) || st.ContentType != "image/png" || !bytes.Equal(st.MD5, sum[:]) {
		t.Errorf("%q of type %q, %v", got, st.ContentType, err)
	}
	s.Forget()
	if _, err := c.Icon(t.Context(), l.Images[1]); !errors.Is(err, fs.ErrNotExist) || s.Count("") != 0 {
		t.Errorf("an image without an icon: %v, %d requests", err, s.Count(""))
	}
}

// BenchmarkFile reads a file over loopback; BenchmarkFile/bare does so with nothing but net/http.
func BenchmarkFile(b *testing.B) {
	data := upstreamtest.Bytes(1, 64<<20)
	doc := upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}))
	defer server.Close()
	buf := make([]byte, 256<<10)
	drain := func(b *testing.B, body io.ReadCloser) {
		defer body.Close()
		for {
			if _, err := body.Read(buf); err == io.EOF {
				return
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			resp, err := http.Get(server.URL)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, resp.Body)
		}
	})
	b.Run("client", func(b *testing.B) {
		c, err := New(Options{Name: "a", URL: server.URL, Kind: kindIMGAPI, dial: dialLoopback})
		if err != nil {
			b.Fatal(err)
		}
		m, err := manifest.Parse(doc, manifest.ParseOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			st, err := c.File(b.Context(), m, 0, 0)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, st)
		}
	})
}
