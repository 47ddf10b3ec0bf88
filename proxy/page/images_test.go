package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
)

// newShelf is a page over the API of a mirror of two sources. The first has images 1, 2 on 1, the
// private 3, and 4 with a hostile name; the second has other files under the uuid of 1. The sources
// more come behind them.
func newShelf(t *testing.T, more ...*upstreamtest.Server) *fixture {
	t.Helper()
	var sources []mirror.Source
	for name, images := range map[string][][2][]byte{
		"first": {
			{shelfManifest(1, "base-image", nil), shelfFile(1)},
			{shelfManifest(2, "web-image", map[string]any{"origin": upstreamtest.ID(1), "description": "Serves pages."}), shelfFile(2)},
			{shelfManifest(3, "payroll-db", map[string]any{"public": false}), shelfFile(3)},
			{shelfManifest(4, hostile, map[string]any{"os": "linux", "type": "lx-dataset"}), shelfFile(4)},
		},
		"second": {{shelfManifest(1, "base-image", nil, []byte("other bytes")), []byte("other bytes")}},
	} {
		s, err := upstreamtest.New(upstreamtest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		for _, image := range images {
			if err := s.Add(image[0], image[1]); err != nil {
				t.Fatal(err)
			}
		}
		sources = append(sources, mirror.Source{
			Server: upstream.Options{Name: name, URL: s.URL(), Kind: "imgapi", StallTimeout: time.Minute}, URL: s.URL(), Refresh: time.Hour,
		})
	}
	if sources[0].Server.Name != "first" {
		sources[0], sources[1] = sources[1], sources[0]
	}
	for _, s := range more {
		sources = append(sources, mirror.Source{
			Server: upstream.Options{Name: "more", URL: s.URL(), Kind: "imgapi", StallTimeout: time.Minute}, URL: s.URL(), Refresh: time.Hour,
		})
	}
	m, err := mirror.New(t.Context(), mirror.Options{
		Cache: cache.Options{Dir: t.TempDir(), StallTimeout: time.Minute}, Sources: mirror.Sources{List: sources}, Rules: mirror.Rules{FillSlots: 4},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := admin.New(admin.Options{
		Gatherer: m.Registry(), Ready: m.Ready, Token: testToken, Mirror: m,
		Config: func() (json.RawMessage, error) { return json.RawMessage(`{}`), nil },
		Doctor: func(context.Context) []admin.Finding { return nil },
	})
	api := httptest.NewServer(server.Handler())
	t.Cleanup(api.Close)
	client, err := admin.NewClient(admin.ClientOptions{URL: api.URL, Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	f := &fixture{t: t}
	if f.Page, err = New(Options{API: client, Token: testToken, Public: func() bool { return true }}); err != nil {
		t.Fatal(err)
	}
	f.login()
	return f
}

func shelfFile(n int) []byte { return upstreamtest.Bytes(uint64(n), 10_000+n) }

func shelfManifest(n int, name string, extra map[string]any, files ...[]byte) []byte {
	if files == nil {
		files = [][]byte{shelfFile(n)}
	}
	return upstreamtest.Manifest(upstreamtest.ID(n), name, "1.0", extra, files...)
}

func imagePath(n int) string { return root + "images/" + upstreamtest.ID(n).String() }

// page asks the operators' side for a page that must come.
func (f *fixture) page(path string) string {
	f.t.Helper()
	w := f.operator("GET", path, nil)
	if w.Code != http.StatusOK {
		f.t.Fatalf("%s: %d\n%s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// press sends a form of an image, and gives the place where it leads.
func (f *fixture) press(path, do string) string {
	f.t.Helper()
	w := f.operator("POST", path, url.Values{"csrf": {f.csrf}, "do": {do}})
	if w.Code != http.StatusSeeOther {
		f.t.Fatalf("%s: %s: %d\n%s", path, do, w.Code, w.Body)
	}
	return w.Header().Get("Location")
}

// finish follows the job whose page the path is.
func (f *fixture) finish(path string) admin.Job {
	f.t.Helper()
	id, ok := strings.CutPrefix(path, root+"jobs/")
	if !ok {
		f.t.Fatalf("%s is no job", path)
	}
	job, err := f.o.API.Follow(f.t.Context(), id, func(admin.Job) {})
	if err != nil {
		f.t.Fatal(err)
	}
	return job
}

func (f *fixture) image(n int) admin.Image {
	f.t.Helper()
	image, err := f.o.API.Image(f.t.Context(), upstreamtest.ID(n))
	if err != nil {
		f.t.Fatal(err)
	}
	return image
}

// has holds a page against texts that it must have, and with - before them must not have.
func has(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		absent, not := strings.CutPrefix(text, "-")
		if there := strings.Contains(page, absent); there == not {
			t.Errorf("%q is on the page: %v", absent, there)
		}
	}
}

var rowPattern = regexp.MustCompile(`<th scope="row"[^>]*><a href="/ui/images/([0-9a-f-]{36})">`)

// listed gives the numbers of the images in the rows of a page.
func listed(page string) string {
	var all []string
	for _, found := range rowPattern.FindAllStringSubmatch(page, -1) {
		all = append(all, fmt.Sprint(uuid.MustParse(found[1])[15]))
	}
	return strings.Join(all, " ")
}

func TestImageList(t *testing.T) {
	f := newShelf(t)
	for query, want := range map[string]string{
		"":                      "4 2 1", // the newest first
		"q=WEB":                 "2",
		"q=serves+pages":        "2",
		"q=nothing+like+this":   "",
		"os=linux":              "4",
		"type=zone-dataset":     "2 1",
		"source=first&q=base":   "1",
		"filter=name=web-image": "2",
		"sort=size&order=asc":   "1 2 4",
		"sort=size&order=desc":  "4 2 1",
		"state=cached":          "",
		"state=hidden":          "3 1",
		"state=hidden.private":  "3",
		"state=hidden.conflict": "1",
		"page=2":                "",
	} {
		if got := listed(f.page(root + "images?" + query)); got != want {
			t.Errorf("%s: images %q, want %q", query, got, want)
		}
	}
	page := f.page(root + "images?sort=name")
	has(t, page, `aria-sort="ascending"><a href="/ui/images?order=desc&amp;sort=name">`, `linux (1)`, `All images (3)`, `<strong class="num">3</strong>`,
		"-<script>alert", "-\u202e", `\u202egnp.exe`, `\x1b[31m`)
	has(t, f.page(root+"images?state=hidden"), "has other files", "serve_private", "payroll-db", "private")
	has(t, f.page(root+"images?q=nothing+like+this"), "No image matches")
	has(t, f.page(root+"images?page=7"), "There is no page 7")
	if w := f.operator("GET", root+"images?sort=colour", nil); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("a wrong sort: %d", w.Code)
	}
}

// The addresses of columns and pages keep what is asked for.
func TestImageListAddresses(t *testing.T) {
	f := newFixture(t)
	f.login()
	f.answers["GET /catalog"] = admin.Page{Total: 500, Rows: []admin.Row{{UUID: testUUID, Name: "x", Cached: "none"}}}
	page := f.page(root + "images?q=a+b&os=linux&state=hidden.conflict&sort=size&order=asc&page=3&filter=name=x")
	has(t, page, "Page 3 of 10",
		`href="/ui/images?filter=name%3Dx&amp;order=asc&amp;os=linux&amp;page=2&amp;q=a&#43;b&amp;sort=size&amp;state=hidden.conflict" rel="prev"`,
		`href="/ui/images?filter=name%3Dx&amp;order=asc&amp;os=linux&amp;page=4&amp;q=a&#43;b&amp;sort=size&amp;state=hidden.conflict" rel="next"`,
		`href="/ui/images?filter=name%3Dx&amp;order=desc&amp;os=linux&amp;q=a&#43;b&amp;sort=size&amp;state=hidden.conflict">Size`,
		`<input type="hidden" name="filter" value="name=x">`)
}

func TestImagePage(t *testing.T) {
	f := newShelf(t)
	base, web := f.page(imagePath(1)), f.page(imagePath(2))
	has(t, base, "imgadm import "+upstreamtest.ID(1).String(), "conflict", f.image(1).Offers[0].Files[0].SHA1, f.image(1).Offers[1].Files[0].SHA1,
		"11 bytes", "10,001 bytes", "first", "second", "not on disk", ">Fetch<", ">Pin<", "-Verify<", "-Delete …", "-Unpublish …")
	has(t, web, "Serves pages.", `<ol class="chain">`, "base-image 1.0", `aria-current="page">web-image 1.0`, "&#34;version&#34;: &#34;1.0&#34;")
	if strings.Index(web, ">base-image 1.0") > strings.Index(web, ">web-image 1.0<") {
		t.Error("the root of the chain is not above the image")
	}
	has(t, f.page(imagePath(4)), "-<script>alert", "-\u202e", "-\x1b", `\u202egnp.exe`)
	has(t, f.page(imagePath(3)), "payroll-db", "it is private", "-Fetch<")
	for _, path := range []string{imagePath(9), root + "images/x", strings.ToUpper(imagePath(1))} {
		if w := f.operator("GET", path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestImageActions(t *testing.T) {
	f := newShelf(t)
	if job := f.finish(f.press(imagePath(2), "fetch")); job.Kind != "fetch" || job.State != admin.JobDone || !f.image(2).Cached || !f.image(1).Cached {
		t.Errorf("fetch: %+v", job)
	}
	has(t, f.page(imagePath(2)), "-Fetch<", "Verify<", "Delete …")
	if got := listed(f.page(root + "images?state=cached")); got != "2 1" {
		t.Errorf("cached images: %s", got)
	}

	if to := f.press(imagePath(2), "pin"); to != imagePath(2) || !f.image(2).Pinned {
		t.Errorf("a pin leads to %s", to)
	}
	has(t, f.page(imagePath(2)), "The image is pinned", "Unpin<")
	has(t, f.page(imagePath(2)+"/delete"), "is pinned", "-value=\"delete\"")
	if w := f.operator("POST", imagePath(2), url.Values{"csrf": {f.csrf}, "do": {"delete"}}); w.Code != http.StatusConflict || !f.image(2).Cached {
		t.Errorf("a pinned image is deleted: %d", w.Code)
	}
	if f.press(imagePath(2), "unpin"); f.image(2).Pinned {
		t.Error("the pin stays")
	}

	if job := f.finish(f.press(imagePath(2), "verify")); job.Kind != "verify" || job.State != admin.JobDone {
		t.Errorf("verify: %+v", job)
	}
	has(t, f.page(imagePath(2)+"/delete"), "10 kB", `value="delete"`)
	if !f.image(2).Cached {
		t.Fatal("the question alone has deleted the image")
	}
	if to := f.press(imagePath(2), "delete"); to != imagePath(2) || f.image(2).Cached || !f.image(1).Cached {
		t.Errorf("delete leads to %s", to)
	}
	has(t, f.page(imagePath(2)), "Deleted: 1 file, 10 kB")

	// There is no pool here: the job tells so.
	if w := f.operator("POST", imagePath(1), url.Values{"csrf": {f.csrf}, "do": {"install"}}); w.Code == http.StatusSeeOther {
		if job := f.finish(w.Header().Get("Location")); job.Kind != "install" || job.State != admin.JobFailed {
			t.Errorf("install: %+v", job)
		}
	} else if w.Code < 400 || w.Code == http.StatusForbidden {
		t.Errorf("install: %d", w.Code)
	}
	if w := f.operator("POST", imagePath(1), url.Values{"csrf": {f.csrf}, "do": {"explode"}}); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("an unknown action: %d", w.Code)
	}
	if w := f.operator("POST", imagePath(1), url.Values{"csrf": {"x"}, "do": {"pin"}}); w.Code != http.StatusForbidden || f.image(1).Pinned {
		t.Errorf("a form of another session: %d", w.Code)
	}
}

// upload sends the form of the page that publishes: parts are names and contents, in their order.
func (f *fixture) upload(parts ...[2]string) *httptest.ResponseRecorder {
	f.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, p := range parts {
		part := func() (io.Writer, error) { return form.CreateFormFile(p[0], p[0]) }
		if p[0] == "csrf" {
			part = func() (io.Writer, error) { return form.CreateFormField(p[0]) }
		}
		w, err := part()
		if err != nil {
			f.t.Fatal(err)
		}
		w.Write([]byte(p[1])) //nolint:errcheck // to memory
	}
	form.Close()
	r := httptest.NewRequest("POST", root+"publish", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.AddCookie(f.cookie)
	w := httptest.NewRecorder()
	f.Operators().ServeHTTP(w, r)
	return w
}

func TestPublishByForm(t *testing.T) {
	f := newShelf(t)
	has(t, f.page(root+"publish"), `enctype="multipart/form-data"`, `type="file" name="manifest"`, `type="file" name="file"`)
	text := string(upstreamtest.Manifest(upstreamtest.ID(8), "ours", "1.0", map[string]any{"type": "other", "public": false}, shelfFile(8)))
	file := string(shelfFile(8))
	token := [2]string{"csrf", f.csrf}
	for name, x := range map[string]struct {
		parts  [][2]string
		status int
	}{
		"no token":      {[][2]string{{"csrf", "x"}, {"manifest", text}, {"file", file}}, 403},
		"token last":    {[][2]string{{"manifest", text}, {"file", file}, token}, 400},
		"no file":       {[][2]string{token, {"manifest", text}}, 400},
		"no manifest":   {[][2]string{token, {"file", file}}, 400},
		"no JSON":       {[][2]string{token, {"manifest", "{"}, {"file", file}}, 422},
		"wrong file":    {[][2]string{token, {"manifest", text}, {"file", file + "x"}}, 422},
		"long manifest": {[][2]string{token, {"manifest", text + strings.Repeat(" ", maxManifest)}, {"file", file}}, 413},
	} {
		if w := f.upload(x.parts...); w.Code != x.status {
			t.Errorf("%s: %d, want %d\n%s", name, w.Code, x.status, w.Body)
		}
	}
	if _, err := f.o.API.Image(t.Context(), upstreamtest.ID(8)); err == nil {
		t.Fatal("the image is published")
	}

	w := f.upload(token, [2]string{"manifest", text}, [2]string{"file", file})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != imagePath(8) || !f.image(8).Cached {
		t.Fatalf("%d %q\n%s", w.Code, w.Header().Get("Location"), w.Body)
	}
	has(t, f.page(imagePath(8)), "The image is published.", "published here", "Unpublish …", "-Delete …")
	if w := f.client("GET", imagePath(8)); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "ours") {
		t.Errorf("clients see a private image: %d", w.Code)
	}
	has(t, f.page(imagePath(1)+"/unpublish"), "not published on this mirror", "-value=\"unpublish\"")
	has(t, f.page(imagePath(8)+"/unpublish"), "only copy", `value="unpublish"`)
	if to := f.press(imagePath(8), "unpublish"); to != root+"images" {
		t.Errorf("unpublish leads to %s", to)
	}
	has(t, f.page(root+"images"), "no longer published", "-ours")
	if _, err := f.o.API.Image(t.Context(), upstreamtest.ID(8)); err == nil {
		t.Error("the image is still published")
	}
}

// Manifests of any form make pages of bounded size.
func TestHugeManifests(t *testing.T) {
	f := newFixture(t)
	f.login()
	long := strings.Repeat("<\u202e", 30_000)
	nested := json.RawMessage(strings.Repeat("[", 3000) + strings.Repeat("]", 3000))
	text, err := json.Marshal(map[string]any{
		"uuid": testUUID, "name": long, "version": long, "os": long, "type": long, "description": long, "homepage": "http://" + long,
		"owner": long, "state": long, "public": true, "tags": map[string]any{long: long}, "nested": nested,
	})
	if err != nil {
		t.Fatal(err)
	}
	files := make([]admin.ImageFile, 5000)
	offer := admin.Offer{Source: "s", Public: true, Holds: true, Files: make([]admin.OfferFile, 5000)}
	f.answers["GET /catalog"] = admin.Page{Total: 1, Rows: []admin.Row{{UUID: testUUID, Public: true, Listed: true}}}
	for _, manifest := range []string{string(text), `{"uuid":"` + testUUID + `","public":true,"x":` + string(nested) + `}`} {
		f.answers["GET /images/"+testUUID] = admin.Image{Manifest: json.RawMessage(manifest), Listed: true, Files: files, Offers: []admin.Offer{offer}}
		for side, w := range map[string]*httptest.ResponseRecorder{
			"clients": f.client("GET", root+"images/"+testUUID), "operators": f.operator("GET", root+"images/"+testUUID, nil),
		} {
			if w.Code != http.StatusOK || w.Body.Len() > 3<<20 {
				t.Errorf("%s: %d, %d bytes", side, w.Code, w.Body.Len())
				continue
			}
			has(t, w.Body.String(), "4,900 more files are not shown", "and 4,900 more")
		}
	}
}

// The form for people is never longer than what was reckoned.
func TestPretty(t *testing.T) {
	for _, text := range []string{`{}`, `{"a":1}`, `[[],{"a":"\\\"[,","b":[1,2]}]`, `{"a":{"b":{"c":[{},[[1]]]}}}`} {
		if got := pretty(json.RawMessage(text)); got == "" || len(got) > indented([]byte(text)) {
			t.Errorf("%s: %s is longer than %d bytes", text, got, indented([]byte(text)))
		}
	}
}

// No source is asked for what a page for clients shows.
func TestClientsAskNoSource(t *testing.T) {
	source, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Stop)
	if err := source.Add(shelfManifest(5, "alone", map[string]any{"origin": upstreamtest.ID(77)}), shelfFile(5)); err != nil {
		t.Fatal(err)
	}
	f := newShelf(t, source)
	lost := "/images/" + upstreamtest.ID(77).String()
	if err := source.Await(t.Context(), func(all []upstreamtest.Request) bool {
		return slices.ContainsFunc(all, func(r upstreamtest.Request) bool { return r.Path == lost })
	}); err != nil {
		t.Fatal(err)
	}
	source.Forget()
	has(t, f.client("GET", imagePath(5)).Body.String(), "alone", "not all known")
	if n := source.Count(lost); n > 0 {
		t.Errorf("the source was asked %d times", n)
	}
}

// Clients see public images that lists show, nothing else, and no action.
func TestImagesForClients(t *testing.T) {
	f := newShelf(t)
	w := f.client("GET", root+"images")
	if got := listed(w.Body.String()); w.Code != http.StatusOK || got != "4 2 1" {
		t.Errorf("%d, images %s", w.Code, got)
	}
	has(t, w.Body.String(), "-payroll", "-Not shown to clients", "-pinned", "-/ui/publish", "-public=true", "-public%3Dtrue")
	for _, query := range []string{"state=hidden", "state=hidden.private", "q=payroll", "filter=public=false", "state=pinned"} {
		has(t, f.client("GET", root+"images?"+query).Body.String(), "-payroll-db", "-"+upstreamtest.ID(3).String(), "-serve_private")
	}
	w = f.client("GET", imagePath(1))
	if w.Code != http.StatusOK {
		t.Fatalf("%d\n%s", w.Code, w.Body)
	}
	has(t, w.Body.String(), "imgadm import "+upstreamtest.ID(1).String(), "first", `-method="post"`, "-conflict", "-second", "-History")
	for _, n := range []int{3, 9} {
		if w := f.client("GET", imagePath(n)); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "payroll") {
			t.Errorf("image %d: %d", n, w.Code)
		}
	}
	for _, path := range []string{imagePath(1) + "/delete", root + "publish"} {
		if w := f.client("GET", path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := f.client("POST", imagePath(1)); w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
		t.Errorf("a form of a client: %d", w.Code)
	}
}
