package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// The beginning of a file and its size are learned from every kind of source, for the price of the beginning.
func TestHeadOfEachDialect(t *testing.T) {
	data := upstreamtest.Bytes(1, 3<<20)
	look := func(t *testing.T, c *Client) {
		t.Helper()
		l, err := c.List(t.Context(), manifest.Listing{})
		if err != nil {
			t.Fatal(err)
		}
		head, size, err := c.Head(t.Context(), l.Images[0], 0)
		if err != nil || size != int64(len(data)) || !bytes.Equal(head, data[:headLen]) {
			t.Errorf("%d first bytes of %d, %v", len(head), size, err)
		}
		if _, _, err := c.Head(t.Context(), l.Images[0], 1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of a file that there is not: %v", err)
		}
	}
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
			look(t, newClient(t, Options{URL: s.URL()}))
			for _, r := range s.Requests() {
				if dialect != upstreamtest.SmartOSImageServer && r.Bytes > headLen+1000 { // which knows no ranges
					t.Errorf("%s %s: %d bytes were sent", r.Method, r.Path, r.Bytes)
				}
			}
		})
	}
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		doc := upstreamtest.Manifest(upstreamtest.ID(1), "base", "1.0", map[string]any{"files": []any{map[string]any{}}})
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "a.json"), doc, 0o600), os.WriteFile(filepath.Join(dir, "a.zfs"), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		look(t, newClient(t, Options{URL: dir}))
	})
}

// Whatever a server makes of ranges and of HEAD, its files are not fetched as a whole, and a size that it does not tell
// is not made up.
func TestHeadAnswers(t *testing.T) {
	data := upstreamtest.Bytes(2, 5000)
	ranged := func(total string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%s", headLen-1, total))
			w.Header().Set("Content-Length", fmt.Sprint(headLen))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[:headLen])
		}
	}
	chunked := func(byHead string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				if byHead != "" {
					w.Header().Set("Content-Length", byHead)
				}
				return
			}
			w.(http.Flusher).Flush()
			w.Write(data)
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "9000000000")
		for r.Context().Err() == nil { // until the client hangs up
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	}
	errOfAnyKind := errors.New("an error of any kind")
	for name, c := range map[string]struct {
		file http.HandlerFunc
		size int64
		err  error
	}{
		"a range":                     {file: ranged("5000"), size: 5000},
		"a range of an unknown whole": {file: ranged("*"), size: -1},
		"chunked":                     {file: chunked(""), size: -1},
		"chunked, a size by HEAD":     {file: chunked("5000"), size: 5000},
		"chunked, HEAD is wrong":      {file: chunked("0"), size: -1},
		"no ranges, and very long":    {file: endless, size: 9_000_000_000},
		"gone":                        {file: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, err: fs.ErrNotExist},
		"refused":                     {file: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, err: fs.ErrPermission},
		"broken":                      {file: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, err: verify.ErrUnavailable},
		"another part": {file: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-9/5000")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[5:10])
		}, err: errOfAnyKind},
		"empty, by its size": {file: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes */0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/file") {
					c.file(w, r)
				} else {
					w.WriteHeader(http.StatusNotFound)
				}
			}))
			defer s.Close() // waits for answers under way
			m, err := manifest.Parse(upstreamtest.Manifest(upstreamtest.ID(1), "base", "1.0", nil, data), manifest.ParseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			head, size, err := newClient(t, Options{URL: s.URL, Kind: kindIMGAPI}).Head(t.Context(), m, 0)
			if c.err != nil {
				if !errors.Is(err, c.err) && (err == nil || c.err != errOfAnyKind) {
					t.Errorf("error %v, want %v", err, c.err)
				}
				return
			}
			if want := min(headLen, int(max(c.size, -c.size*headLen))); err != nil || size != c.size || len(head) != want || !bytes.HasPrefix(data, head) {
				t.Errorf("%d first bytes of %d, %v; want %d of %d", len(head), size, err, want, c.size)
			}
		})
	}
}
