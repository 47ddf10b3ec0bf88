package page

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"imgmirror/proxy/admin"
)

const testToken = "0123456789-0123456789"

// hostile is a name that a stranger has made.
const hostile = "<script>alert(1)</script>\"'&\x1b[31m\u202egnp.exe"

const (
	testUUID = "11111111-0000-4000-8000-000000000001"
	jobID    = "22222222-0000-4000-8000-000000000001"

	testAddress = "fd12::7"
)

// fixture is a page over an API with fixed answers.
type fixture struct {
	*Page
	t       *testing.T
	answers map[string]any // by path below /api/v1; a func makes the answer
	asked   []string
	cookie  *http.Cookie
	csrf    string
}

// hostileImage is a public image whose texts are a stranger's.
func hostileImage() admin.Image {
	text, err := json.Marshal(map[string]any{
		"uuid": testUUID, "name": hostile, "version": hostile, "os": hostile, "type": hostile, "description": hostile, "homepage": "javascript:" + hostile,
		"owner": hostile, "state": hostile, "public": true, "origin": hostile, "tags": map[string]any{hostile: hostile, "n": 1}, "files": []any{map[string]any{"size": 7}},
	})
	if err != nil {
		panic(err)
	}
	return admin.Image{
		Manifest: text, Source: hostile, Sources: []string{hostile}, Listed: true,
		Hidden: []admin.Hidden{{Source: hostile, Reason: hostile, Detail: hostile}},
		Files:  []admin.ImageFile{{SHA1: hostile, Size: 7, Compression: hostile, Cached: "part", CachedBytes: 3}},
		Offers: []admin.Offer{
			{Source: hostile, State: hostile, Name: hostile, Version: hostile, Public: true, Holds: true, Files: []admin.OfferFile{{SHA1: hostile, Size: 7, Compression: hostile}}},
			{Source: hostile, State: "up", Name: hostile, Conflict: true, Files: []admin.OfferFile{{}}, Hidden: &admin.Hidden{Reason: hostile, Detail: hostile}},
		},
	}
}

// hostileNode is a node whose client sends a stranger's texts.
func hostileNode() admin.Node {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	fetch := admin.NodeFetch{UUID: testUUID, Name: hostile, Version: hostile, When: now, Result: "hit", Bytes: 1000, Took: 70_000, Rate: 14, Fetches: 2, Cut: true}
	return admin.Node{
		Address: testAddress, FirstSeen: now, LastSeen: now, Agent: hostile, Client: hostile, ClientVersion: hostile, Platform: hostile,
		Requests: 7, Lists: 1, Manifests: 2, Files: 4, Errors: 1, Served: map[string]int64{"hit": 3000, "miss": 1000}, Saved: 3000, Rate: 14,
		Images: 1, Forgotten: 3, Fetch: &fetch, Fetches: []admin.NodeFetch{fetch},
	}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sources := []admin.Source{{Name: hostile, URL: "http://" + hostile, Kind: "imgapi", State: "down", Images: 7, Hidden: map[string]int{hostile: 3}, LastError: hostile, Reason: hostile}}
	fills := []admin.Fill{{UUID: testUUID, Name: hostile, Version: hostile, Size: 1000, Have: 500, Rate: 10, ETA: 50, Readers: 2, Source: hostile, State: "filling"}}
	f := &fixture{t: t, answers: map[string]any{
		"GET /status": admin.Status{
			Version: "1.2.3", Started: now, Now: now, Ready: true, Trouble: []string{hostile},
			Traffic: admin.Traffic{Requests: map[string]int64{"hit": 3, "miss": 1}, Served: map[string]int64{"hit": 3000, "miss": 1000}, Saved: 3000},
			Fills:   fills, Sources: sources, Disk: admin.Disk{Size: 10, Limit: 100},
			Bounds: []admin.Bound{{Name: hostile, Key: "x.y", Used: 9, Limit: 10, Refused: 1}},
			Events: []admin.Event{{Time: now, Kind: hostile, UUID: testUUID, Source: hostile, Node: hostile, Text: hostile, Count: 2}},
		},
		"GET /history":       []admin.Event{{Time: now, Kind: hostile, UUID: testUUID, Source: hostile, Node: hostile, Text: hostile, Count: 2}},
		"GET /traffic":       admin.Series{Span: "hour", Step: 60, Points: []admin.Point{{Time: now, Served: 100, Fetched: 10}, {Time: now.Add(time.Minute), Served: 50}}},
		"GET /sources":       sources,
		"GET /jobs":          []admin.Job{{ID: jobID, Kind: "fetch", State: admin.JobRunning, Items: []admin.Item{}}},
		"GET /jobs/" + jobID: admin.Job{ID: jobID, Kind: "fetch", State: admin.JobRunning, Items: []admin.Item{{UUID: testUUID, Name: hostile, Version: hostile, State: "failed", Error: &admin.Error{Code: "x", Message: hostile}}}},
		"GET /catalog": admin.Page{Total: 1, Rows: []admin.Row{{
			UUID: testUUID, Name: hostile, Version: hostile, OS: hostile, Type: hostile, Source: hostile, Cached: "part", Public: true,
			Hidden: []admin.Hidden{{Source: hostile, Reason: hostile, Detail: hostile}},
		}}, Facets: map[string]map[string]int{"os": {hostile: 1}, "type": {hostile: 1}, "source": {hostile: 1}, "reason": {hostile: 1}}},
		"GET /images/" + testUUID:               hostileImage(),
		"GET /images/" + testUUID + "/ancestry": []admin.Image{hostileImage()},
		"GET /images/" + testUUID + "/nodes":    admin.ImageNodes{UUID: testUUID, On: true, HaveTotal: 9, Have: []admin.Node{hostileNode()}, LackTotal: 1, Lack: []admin.Node{hostileNode()}},
		"GET /nodes":                            admin.NodePage{On: true, Total: 120, Rows: []admin.Node{hostileNode()}},
		"GET /nodes/" + testAddress:             hostileNode(),
		"DELETE /nodes":                         admin.Forgotten{Removed: 1},
		"POST /delete":                          []admin.Removed{{SHA1: hostile, UUIDs: []string{testUUID, hostile}, Size: 7}},
	}}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v1")
		f.asked = append(f.asked, key)
		answer, ok := f.answers[key]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = admin.Error{Code: "ResourceNotFound", Message: "none"}
		}
		if make, ok := answer.(func(*http.Request) any); ok {
			answer = make(r)
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(api.Close)
	client, err := admin.NewClient(admin.ClientOptions{URL: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if f.Page, err = New(Options{API: client, Version: "1.2.3", Token: testToken, Public: func() bool { return true }}); err != nil {
		t.Fatal(err)
	}
	return f
}

// operator asks the operators' side, in the session of login.
func (f *fixture) operator(method, path string, form url.Values) *httptest.ResponseRecorder {
	f.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, path, body)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if f.cookie != nil {
		r.AddCookie(f.cookie)
	}
	w := httptest.NewRecorder()
	f.Operators().ServeHTTP(w, r)
	for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Cache-Control"} {
		if w.Header().Get(name) == "" {
			f.t.Errorf("%s %s: no %s", method, path, name)
		}
	}
	return w
}

// login signs in.
func (f *fixture) login() {
	f.t.Helper()
	w := f.operator("POST", "/ui/login", url.Values{"token": {testToken}})
	if cookies := w.Result().Cookies(); w.Code == http.StatusSeeOther && len(cookies) == 1 {
		f.cookie = cookies[0]
		f.csrf = f.sessions.find(&http.Request{Header: http.Header{"Cookie": {f.cookie.Name + "=" + f.cookie.Value}}}, false).csrf
		return
	}
	f.t.Fatalf("login: %d %v", w.Code, w.Header())
}

// paths are a request for each page.
func paths() (all []string) {
	for _, rt := range routes {
		path := strings.NewReplacer("{id}", jobID, "{uuid}", testUUID, "{address}", testAddress).Replace(rt.path)
		all = append(all, root+path)
	}
	return all
}

// Names of strangers are text on each page.
func TestHostileNames(t *testing.T) {
	f := newFixture(t)
	f.login()
	seen := false
	for _, path := range paths() {
		w := f.operator("GET", path, nil)
		body := w.Body.String()
		if w.Code != http.StatusOK || !strings.Contains(body, "</html>") {
			t.Errorf("%s: %d", path, w.Code)
		}
		for _, bad := range []string{"<script>alert", "\x1b", "\u202e"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
		seen = seen || strings.Contains(body, `\u202egnp.exe`) && strings.Contains(body, `\x1b[31m`)
	}
	if !seen {
		t.Error("no page shows the hostile name as text")
	}
}

// Without a session, and with a wrong token, there is the login and nothing else.
func TestNoSession(t *testing.T) {
	f := newFixture(t)
	for _, path := range paths() {
		if w := f.operator("GET", path, nil); w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/ui/login") {
			t.Errorf("GET %s: %d %q", path, w.Code, w.Header())
		}
		if w := f.operator("POST", path, url.Values{"do": {"refresh"}}); w.Code != http.StatusUnauthorized {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	w := f.operator("POST", "/ui/login", url.Values{"token": {testToken + "x"}})
	if w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) > 0 || strings.Contains(w.Body.String(), testToken) {
		t.Errorf("wrong token: %d %v", w.Code, w.Header())
	}
	if len(f.asked) > 0 {
		t.Errorf("the API was asked: %q", f.asked)
	}
}
