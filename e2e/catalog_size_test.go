package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
)

// largeCatalog is the manifests of an image server that has very many, in the
// order in which it lists them. Every tenth is built on the one before.
func largeCatalog(n int) (texts [][]byte, ids []string) {
	for i := range n {
		sum := sha256.Sum256([]byte(strconv.Itoa(i)))
		id, _ := uuid.FromBytes(sum[:16]) // it has as many bytes as it takes
		more := ""
		if i%10 == 9 {
			more = fmt.Sprintf(`"origin":%q,`, ids[i-1])
		}
		ids = append(ids, id.String())
		published := time.Unix(1_330_560_000+int64(i)*4_600, 0).UTC().Format(time.RFC3339)
		texts = append(texts, fmt.Appendf(nil, `{"v":2,"uuid":%q,"owner":"352971aa-31ba-496c-9ade-a379feaecd52","name":"base-64-%d","version":"%d.%d.0",`+
			`"state":"active","disabled":false,"public":true,"published_at":%q,"type":"zone-dataset","os":"smartos",%s`+
			`"files":[{"sha1":"%x","size":%d,"compression":"gzip"}],`+
			`"description":"A 64-bit SmartOS image with just essential packages installed. Ideal for users who are comfortable with setting up their own environment and tools.",`+
			`"homepage":"https://docs.example.com/images/smartos/base","requirements":{"min_platform":{"7.0":"20141030T081701Z"},"networks":[{"name":"net0","description":"public"}]},`+
			`"users":[{"name":"root"},{"name":"admin"}],"tags":{"role":"os","group":"base-64-%d"}}`,
			id, i%60, 10+i/5000, i%4, published, more, sum[:20], 100_000_000+i, i%60))
	}
	return texts, ids
}

// serveCatalog serves the manifests as IMGAPI, whole or page by page.
func serveCatalog(t testing.TB, texts [][]byte, ids []string) (url string, stop func()) {
	at := make(map[string]int, len(ids))
	for i, id := range ids {
		at[id] = i
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"ping":"pong","version":"1.0.0","imgapi":true}`)
	})
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, r *http.Request) {
		page := texts[at[r.FormValue("marker")]:] // of no marker: 0
		if limit, err := strconv.Atoi(r.FormValue("limit")); err == nil {
			page = page[:min(limit, len(page))]
		}
		body := append(append([]byte("["), bytes.Join(page, []byte(","))...), ']')
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // to a mirror that may have gone
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, server.Close
}

// A mirror takes a list of 100,000 images, starts again without its source, and answers. The list is right each time,
// and the mirror then takes a bounded amount of memory. `make bench` has the times.
func TestLargeCatalog(t *testing.T) {
	const n, most = 100_000, 300 // MB
	texts, ids := largeCatalog(n)
	source, stopSource := serveCatalog(t, texts, ids)
	m := newMirror(t, nil, from(source))
	m.launch()
	m.awaitReady()
	m.awaitList(n)
	atRest := func() float64 { // once what the refresh took has been given back
		if runtime.GOOS != "linux" {
			return 0
		}
		var mb float64
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
			if mb = residentMB(t, m); mb < most {
				break
			}
		}
		return mb
	}
	refreshed := atRest()
	want := get(t, m.url+"/images")
	if got := bytes.Count(want.body, []byte(`"uuid"`)); want.status != 200 || got != n {
		t.Fatalf("status %d, %d images", want.status, got)
	}
	for i := 0; i < n; i += 9973 {
		if !bytes.Contains(want.body, texts[i]) {
			t.Errorf("manifest %d is not in the list as its source sent it", i)
		}
	}
	m.stop()
	stopSource()

	m.launch()
	var first reply
	m.until("the mirror answers", func() bool {
		var err error
		first, err = tryGet(m.url + "/images")
		return err == nil
	})
	if first.status != 200 || !bytes.Equal(first.body, want.body) {
		t.Fatalf("the first answer after a start: status %d, %d bytes, want %d", first.status, len(first.body), len(want.body))
	}
	m.awaitReady()
	restarted := atRest()
	last := ids[n-1]
	one := get(t, m.url+"/images?limit=10&marker="+last)
	m.verb("avail", "-H", "uuid="+last).want(t, last)
	m.verb("sources").want(t, strconv.Itoa(n))
	if !bytes.Equal(one.body, slices.Concat([]byte("["), texts[n-1], []byte("]"))) {
		t.Errorf("the last page: %s", tail(string(one.body), 300))
	}
	if refreshed >= most || restarted >= most {
		t.Errorf("resident %.0f MB after a refresh, %.0f MB after a start; want less than %d", refreshed, restarted, most)
	}
}
