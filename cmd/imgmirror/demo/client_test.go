package demo

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"imgmirror/manifest"
)

// An import of an image with a ring of origins ends, and names the ring.
func TestRing(t *testing.T) {
	const base, app = "5a3b1c2e-7d4f-4e8a-9b60-0c1d2e3f4a51", "7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73"
	origins := map[string]string{base: app, app: base}
	image := func(id string) string {
		return fmt.Sprintf(`{"v":2,"uuid":%q,"name":%q,"version":"1","os":"smartos","type":"zone-dataset","state":"active","public":true,
			"disabled":false,"owner":"00000000-0000-0000-0000-000000000000","published_at":"2026-01-10T00:00:00Z","origin":%q,
			"files":[{"sha1":%q,"size":1,"compression":"gzip"}]}`, id, sample, origins[id], strings.Repeat("ab", 20))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch id := strings.TrimPrefix(r.URL.Path, "/images/"); {
		case id == "/ping":
			fmt.Fprint(w, `{"imgapi":true}`)
		case id == "/images":
			fmt.Fprintf(w, "[%s]", image(app))
		case origins[id] != "":
			fmt.Fprint(w, image(id))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	_, _, err := newClient(server.URL, t.Logf).importSample(t.Context())
	if !errors.Is(err, manifest.ErrChain) || !strings.Contains(err.Error(), base) || !strings.Contains(err.Error(), "ring") {
		t.Errorf("%v", err)
	}
}
