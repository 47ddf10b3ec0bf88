package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream"
)

// odd is a shelf with manifests of all kinds: v1 and v2, with paths that are
// safe and paths that are not, with urls that lead elsewhere.
func odd(t testing.TB) *shelf {
	s := newShelf(t).put(1, 0, 700).put(2, 1, 800, 900)
	v1 := func(n int, file string) {
		e := Export{}
		b := noise(n, 1000+n)
		d := digests(b)
		s.files[d.SHA1] = b
		e.Files = append(e.Files, d)
		s.add(strings.NewReplacer("ID", id(n).String(), "FILE", file, "SHA1", d.SHA1.String(), "OWNER", id(99).String()).Replace(
			`{"uuid":"ID","urn":"a:b:c:1","name":"old","version":"1.0.0","type":"zone-dataset","os":"smartos","creator_uuid":"OWNER",`+
				`"vendor_uuid":"OWNER","published_at":"2012-01-02T03:04:05.000Z","description":"</script><b>","big":12345678901234567890,`+
				`"files":[{"sha1":"SHA1","size":`+strconv.Itoa(1000+n)+`,FILE}]}`), e)
	}
	v1(3, `"path":"old-1.0.zfs.bz2","url":"http://127.0.0.1:1/elsewhere"`)
	v1(4, `"path":"../../etc/passwd","compression":"none"`)
	v1(5, `"path":"manifest.json","compression":"none"`)
	v1(6, `"path":"with space.gz"`)
	return s
}

// Unpacked, a bundle is a source: a folder for kind directory, and behind any web
// server for kind static. All images and files are had from it, and nobody complains.
func TestUnpackedIsSource(t *testing.T) {
	s := odd(t)
	x := s.plan(options())
	dir := unpack(t, s, x, nil, 1)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for kind, url := range map[string]string{"static": server.URL, "auto": server.URL + "/", "directory": dir} {
		var log bytes.Buffer
		c, err := upstream.New(upstream.Options{Name: "bundle", URL: url, Kind: kind, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		list, err := c.List(context.Background(), manifest.Listing{})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if len(list.Images) != len(x.Images) || kind == "auto" && list.Kind != "static" {
			t.Errorf("%s: %d images, want %d; kind %s", kind, len(list.Images), len(x.Images), list.Kind)
		}
		for _, m := range list.Images {
			for i, f := range m.Files {
				r, err := c.File(context.Background(), m, i, 0)
				if err != nil {
					t.Errorf("%s: file %d of %s: %v", kind, i, m.UUID, err)
					continue
				}
				b, err := io.ReadAll(r)
				r.Close()
				if err != nil || !bytes.Equal(b, s.files[f.SHA1]) {
					t.Errorf("%s: file %d of %s: %d bytes, %v", kind, i, m.UUID, len(b), err)
				}
			}
			was, err := s.Manifest(context.Background(), m.UUID)
			if err != nil {
				t.Fatal(err)
			}
			want := normal(t, was.V2())
			if kind == "directory" { // reads manifest.json, which is for imgadm
				want = normal(t, was.InstallText())
			}
			if got := normal(t, m.V2()); got != want {
				t.Errorf("%s: manifest of %s is\n%s\nwant\n%s", kind, m.UUID, got, want)
			}
		}
		if log.Len() > 0 {
			t.Errorf("%s: logged: %s", kind, &log)
		}
	}
}

// normal writes JSON in one way.
func normal(t *testing.T, b []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestWebList(t *testing.T) {
	s := odd(t)
	x := s.plan(options())
	var list webList
	for i, im := range x.Images {
		m, err := s.Manifest(context.Background(), im.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.add(m, x.Images[i].Files); err != nil {
			t.Fatal(err)
		}
	}
	b := list.bytes()
	if bytes.ContainsAny(b, "<>&") {
		t.Errorf("a browser could find tags in %s", b)
	}
	if !bytes.Contains(b, []byte("12345678901234567890")) {
		t.Errorf("a number was changed: %s", b)
	}
	var images []struct {
		UUID  string
		Files []struct{ Path, URL string }
	}
	if err := json.Unmarshal(b, &images); err != nil || len(images) != len(x.Images) {
		t.Fatalf("%d images, %v", len(images), err)
	}
	for i, im := range images {
		for j, f := range im.Files {
			if want := x.Images[i].Files[j].Path; im.UUID+"/"+f.Path != want || f.URL != "" {
				t.Errorf("%s/%s, url %q; want %s", im.UUID, f.Path, f.URL, want)
			}
		}
	}
	if got := string(new(webList).bytes()); got != "[]\n" {
		t.Errorf("an empty list is %q", got)
	}
}
