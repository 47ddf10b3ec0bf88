package catalog_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"imgmirror/proxy/catalog"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
)

// A source that lists many images, and fails with all else, is spared: it is asked for few of their origins, and for few
// of their files.
func TestIllSourceIsSpared(t *testing.T) {
	f := func(what string, extra func(n int) map[string]any) {
		t.Helper()
		const images = 400
		var docs []string
		for n := 1; n <= images; n++ {
			docs = append(docs, string(upstreamtest.Manifest(upstreamtest.ID(n), "i", "1", extra(n), []byte("x"))))
		}
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/images/") {
				asked.Add(1)
				w.WriteHeader(500)
				return
			}
			fmt.Fprint(w, "[", strings.Join(docs, ","), "]")
		}))
		defer server.Close()
		client, err := upstream.New(upstream.Options{Name: "ill", URL: server.URL, Kind: "imgapi"})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := catalog.New(catalog.Options{Sources: []catalog.SourceOptions{{Source: client}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := asked.Load(); n < 5 || n > images/4 {
			t.Errorf("%s: asked %d times", what, n)
		}
		if c.Status()[0].AskedFrom.IsZero() {
			t.Errorf("%s: it is asked as usual", what)
		}
	}
	f("origins", func(n int) map[string]any { return map[string]any{"origin": upstreamtest.ID(n + 1000)} })
	f("files", func(int) map[string]any {
		return map[string]any{"files": []map[string]any{{"sha1": strings.Repeat("0", 40), "compression": "gzip"}}}
	})
}
