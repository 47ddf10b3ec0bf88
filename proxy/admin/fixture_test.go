package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"imgmirror/proxy/mirror"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
)

const testToken = "0123456789-0123456789"

// fixture is a server over a real mirror of one source.
type fixture struct {
	*Server
	t      *testing.T
	source *upstreamtest.Server
	store  *cache.Store // of the mirror
	pool   *fakePools
	doc    apiDoc
	dir    string

	courier      *Client // of imports
	sent, toSend int64   // by the last one
}

// sampleFile is the file of image n.
func sampleFile(n int) []byte {
	size := 200_000 + n
	if n == bigImage {
		size = 6 << 20
	}
	return upstreamtest.Bytes(uint64(n), size)
}

// bigImage has a file that is larger than the others'.
const bigImage = 99

// sample is a manifest of image n, whose origin is image origin unless that is 0.
func sample(n, origin int) []byte {
	extra := map[string]any{}
	if origin != 0 {
		extra["origin"] = upstreamtest.ID(origin)
	}
	return upstreamtest.Manifest(upstreamtest.ID(n), fmt.Sprintf("image%d", n), "1.0", extra, sampleFile(n))
}

// newFixture has images 1, 2 on 1, 3 on 2, and 4. The sources' list has been read.
func newFixture(t *testing.T, change ...func(*mirror.Options)) *fixture {
	t.Helper()
	source, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	for n, origin := range map[int]int{1: 0, 2: 1, 3: 2, 4: 0} {
		if err := source.Add(sample(n, origin), sampleFile(n)); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{t: t, source: source, doc: readDoc(t), dir: t.TempDir(), pool: &fakePools{}}
	o := mirror.Options{
		Cache: cache.Options{Dir: f.dir, StallTimeout: time.Minute},
		Pools: f.pool,
		Sources: mirror.Sources{PublishedLast: true, List: []mirror.Source{{
			Server: upstream.Options{Name: "source", URL: source.URL(), Kind: "imgapi", StallTimeout: time.Minute},
			URL:    source.URL(), Refresh: time.Hour,
		}}},
	}
	for _, c := range change {
		c(&o)
	}
	m, err := mirror.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	f.store = m.Store.(*cache.Store)
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Server = New(Options{
		Gatherer: m.Registry(), Ready: m.Ready, Token: testToken, Mirror: m,
		Config: func() (json.RawMessage, error) { return json.RawMessage(`{"listen":":8080"}`), nil },
		Doctor: func(context.Context) []Finding {
			return []Finding{{Check: "disk", State: "ok", Message: "there is room"}}
		},
	})
	t.Cleanup(f.jobs.stop)
	return f
}

// fromBundles lists the images of the catalogue that bundles brought.
func (f *fixture) fromBundles() (all []uuid.UUID) {
	for _, image := range f.mirror.Current().Images() {
		if _, ok := f.mirror.Provenance(image.UUID); ok {
			all = append(all, image.UUID)
		}
	}
	return all
}

// own publishes image n with a manifest of its own.
func (f *fixture) own(n, origin int) {
	f.t.Helper()
	if _, err := f.mirror.Publish(f.t.Context(), ownManifest(n, origin), bytes.NewReader(ownFile(n))); err != nil {
		f.t.Fatal(err)
	}
}

// call makes a request of an operator's, holds the answer against openapi.json
// and reads it into reply, unless that is nil.
func (f *fixture) call(method, path string, body any, reply any) int {
	f.t.Helper()
	var text io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		text = bytes.NewReader(data)
	}
	r := httptest.NewRequest(method, apiPrefix+path, text)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", typeJSON)
	}
	return f.send(r, reply)
}

func (f *fixture) send(r *http.Request, reply any) int {
	f.t.Helper()
	r.Header.Set("Authorization", "Bearer "+testToken)
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	f.doc.check(f.t, r, w.Result(), w.Body.Bytes())
	if reply != nil {
		if err := json.Unmarshal(w.Body.Bytes(), reply); err != nil {
			f.t.Fatalf("%s %s: %v in %q", r.Method, r.URL, err, w.Body)
		}
	}
	return w.Code
}

// want is call for a status that must come.
func (f *fixture) want(status int, method, path string, body any, reply any) {
	f.t.Helper()
	if got := f.call(method, path, body, reply); got != status {
		f.t.Fatalf("%s %s %+v: status %d, want %d: %+v", method, path, body, got, status, reply)
	}
}

// refused is want for an error.
func (f *fixture) refused(status int, code, method, path string, body any) {
	f.t.Helper()
	var told Error
	f.want(status, method, path, body, &told)
	if told.Code != code || told.Message == "" {
		f.t.Errorf("%s %s: %+v, want %s", method, path, told, code)
	}
}

// await waits for a job to be over.
func (f *fixture) await(job Job) Job {
	f.t.Helper()
	j, err := f.jobs.get(job.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	<-j.done
	return j.snapshot()
}

// fetched runs a fetch job over the images n to its end.
func (f *fixture) fetched(n ...int) Job {
	f.t.Helper()
	var job Job
	f.want(202, "POST", "/fetch", wanted(n...), &job)
	return f.await(job)
}

func wanted(n ...int) Wanted {
	var w Wanted
	for _, n := range n {
		w.UUIDs = append(w.UUIDs, id(n))
	}
	return w
}

func id(n int) string { return upstreamtest.ID(n).String() }

// states tells a job in one line: "done: 1 done, 2 present".
func states(j Job) string {
	var all []string
	for _, item := range j.Items {
		all = append(all, strings.TrimPrefix(item.Name, "image")+" "+item.State)
	}
	return j.State + ": " + strings.Join(all, ", ")
}

// ownFile is the file of image n where the mirror itself publishes the image.
func ownFile(n int) []byte { return upstreamtest.Bytes(uint64(1000+n), 20_000) }

// ownManifest is a manifest of image n with ownFile, on image origin unless that is 0.
func ownManifest(n, origin int) []byte {
	extra := map[string]any{"type": "other"}
	if origin != 0 {
		extra["origin"] = upstreamtest.ID(origin)
	}
	return upstreamtest.Manifest(upstreamtest.ID(n), fmt.Sprintf("image%d", n), "1.0", extra, ownFile(n))
}
