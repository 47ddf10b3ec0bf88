package page

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"imgmirror/proxy/admin"
)

// The nodes in pages, with links that sort, and the questions that the API is asked.
func TestNodes(t *testing.T) {
	f := newFixture(t)
	f.login()
	var asked url.Values
	f.answers["GET /nodes"] = func(r *http.Request) any {
		asked = r.URL.Query()
		return admin.NodePage{On: true, Total: 120, Offset: 50, Rows: []admin.Node{hostileNode()}}
	}
	w := f.operator("GET", "/ui/nodes?q=10.1.0.0/16&sort=saved&page=2&image="+testUUID, nil)
	want := url.Values{"address": {"10.1.0.0/16"}, "sort": {"saved"}, "order": {"desc"}, "offset": {"50"}, "limit": {"50"}, "image": {testUUID}}
	if w.Code != http.StatusOK || asked.Encode() != want.Encode() {
		t.Errorf("%d, asked %v, want %v", w.Code, asked, want)
	}
	for _, part := range []string{
		`href="/ui/nodes/fd12::7"`, `aria-sort="descending"`, `/ui/nodes?image=` + testUUID + `&amp;order=asc&amp;q=10.1.0.0%2F16&amp;sort=saved"`,
		"page=3&amp;", "Page 2 of 3", "51</span> to", "4.0 kB", "3.0 kB", "14 B/s", "120</strong> nodes that have",
	} {
		if !strings.Contains(w.Body.String(), part) {
			t.Errorf("no %q in\n%s", part, w.Body)
		}
	}
	f.operator("GET", "/ui/nodes?q=curl&order=asc", nil)
	if want := (url.Values{"q": {"curl"}, "sort": {"last"}, "order": {"asc"}, "limit": {"50"}}); asked.Encode() != want.Encode() {
		t.Errorf("asked %v, want %v", asked, want)
	}

	for text, page := range map[string]admin.NodePage{
		"keeps no journal of nodes": {}, "No node has asked yet": {On: true}, "There is no page 9": {On: true, Total: 3, Offset: 400},
	} {
		f.answers["GET /nodes"] = page
		w := f.operator("GET", "/ui/nodes?page=9", nil)
		if text != "There is no page 9" {
			w = f.operator("GET", "/ui/nodes", nil)
		}
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), text) {
			t.Errorf("%q: %d\n%s", text, w.Code, w.Body)
		}
	}
	f.answers["GET /nodes"] = admin.NodePage{On: true}
	if w := f.operator("GET", "/ui/nodes?q=x", nil); !strings.Contains(w.Body.String(), "No node matches") {
		t.Errorf("nothing found: %s", w.Body)
	}
	for _, path := range []string{"/ui/nodes/10.9.9.9", "/ui/nodes/x", "/ui/nodes/x/forget"} {
		if w := f.operator("GET", path, nil); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// Nodes are deleted by forms, one or all, after a question; the API is asked for no more than that.
func TestForgetNodes(t *testing.T) {
	f := newFixture(t)
	f.login()
	for _, path := range []string{"/ui/nodes/forget", "/ui/nodes/" + testAddress + "/forget"} {
		to := strings.TrimSuffix(path, "/forget")
		w := f.operator("GET", path, nil)
		if !strings.Contains(w.Body.String(), `method="post" action="`+to+`"`) || !strings.Contains(w.Body.String(), `value="forget"`) {
			t.Errorf("%s: %s", path, w.Body)
		}
		f.asked = nil
		if w := f.operator("POST", to, url.Values{"csrf": {f.csrf}, "do": {"else"}}); w.Code != http.StatusUnprocessableEntity || len(f.asked) > 0 {
			t.Errorf("%s: another action: %d, asked %q", to, w.Code, f.asked)
		}
		w = f.operator("POST", to, url.Values{"csrf": {f.csrf}, "do": {"forget"}})
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/ui/nodes" || !slices.Equal(f.asked, []string{"DELETE /nodes"}) {
			t.Errorf("%s: %d %v, asked %q", to, w.Code, w.Header(), f.asked)
		}
		if w := f.operator("GET", "/ui/nodes", nil); !strings.Contains(w.Body.String(), "deleted") {
			t.Errorf("%s: the outcome is not told: %s", to, w.Body)
		}
	}
}

// The page of an image tells operators who has the image and who lacks it.
func TestNodesOfImage(t *testing.T) {
	f := newFixture(t)
	f.login()
	body := f.operator("GET", "/ui/images/"+testUUID, nil).Body.String()
	for _, part := range []string{"Have it", "Lack it", `href="/ui/nodes/fd12::7"`, `href="/ui/nodes?image=` + testUUID + `"`, "more images than the journal keeps"} {
		if !strings.Contains(body, part) {
			t.Errorf("no %q in\n%s", part, body)
		}
	}
	f.answers["GET /images/"+testUUID+"/nodes"] = admin.ImageNodes{UUID: testUUID}
	if body := f.operator("GET", "/ui/images/"+testUUID, nil).Body.String(); !strings.Contains(body, "keeps no journal of nodes") {
		t.Errorf("without a journal: %s", body)
	}
}

// Clients see nothing of nodes, and have the API asked nothing about them.
func TestNodesAreNotForClients(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/ui/nodes", "/ui/nodes/" + testAddress, "/ui/nodes/forget", "/ui/images/" + testUUID, "/ui/"} {
		w := httptest.NewRecorder()
		f.Clients().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if strings.Contains(path, "/nodes") && w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
		if body := w.Body.String(); strings.Contains(body, testAddress) || strings.Contains(body, "/ui/nodes") {
			t.Errorf("%s tells of nodes:\n%s", path, body)
		}
	}
	for _, key := range f.asked {
		if strings.Contains(key, "/nodes") {
			t.Errorf("the API was asked %s", key)
		}
	}
}
