package page

import (
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

const privateUUID = "33333333-0000-4000-8000-000000000001"

// secrets are what no client may see, wherever the API tells them.
var secrets = []string{
	privateUUID, "payroll-db", "10.99.88.77", "hunter2", "backup-user", "sources.internal", "/secret/path",
	testToken,
}

// withSecrets has the API tell operators all that clients may not see.
func (f *fixture) withSecrets() {
	text := "payroll-db on 10.99.88.77 failed: GET http://backup-user:hunter2@sources.internal/secret/path: refused"
	fault := &admin.Error{Code: "x", Message: text}
	now := time.Now()
	source := admin.Source{Name: "lab", URL: "http://backup-user@sources.internal/secret/path", State: "down", LastError: text, Reason: text, AskedFrom: now, Check: &admin.Check{Error: text}}
	fills := []admin.Fill{{UUID: privateUUID, Name: "payroll-db", Version: "1", Size: 10, State: "filling"}, {UUID: testUUID, Name: "open", Size: 10, State: "filling"}}
	job := admin.Job{ID: jobID, Kind: "fetch", State: admin.JobFailed, Error: fault, Items: []admin.Item{
		{UUID: privateUUID, Name: "payroll-db", State: "failed", Error: fault}, {UUID: testUUID, Name: "open", State: "failed", Error: fault},
	}}
	f.answers["GET /sources"] = []admin.Source{source}
	f.answers["GET /fills"] = fills
	f.answers["GET /jobs"] = []admin.Job{job}
	f.answers["GET /jobs/"+jobID] = job
	f.answers["GET /images/"+privateUUID] = admin.Image{Manifest: json.RawMessage(`{"uuid":"` + privateUUID + `","name":"payroll-db","public":false}`)}
	f.answers["GET /catalog"] = admin.Page{Total: 2, Rows: []admin.Row{
		{UUID: testUUID, Name: "open", Public: true, Listed: true}, {UUID: privateUUID, Name: "payroll-db", Listed: true},
	}}
	f.answers["GET /status"] = admin.Status{
		Ready: true, Now: now, Started: now, Trouble: []string{text}, Fills: fills, Sources: []admin.Source{source}, Jobs: []admin.Job{job},
		Events: []admin.Event{
			{Time: now, Kind: "evicted", UUID: privateUUID, Text: text, Node: "10.99.88.77", Private: true, Count: 1},
			{Time: now, Kind: "wrong_bytes", UUID: privateUUID, Text: text, Count: 1},
			{Time: now, Kind: "brought", UUID: testUUID, Source: "lab", Node: "10.99.88.77", Text: text, Count: 1},
			{Time: now, Kind: "source_down", Source: "lab", Text: text, Count: 1},
		},
	}
}

// client asks the clients' side.
func (f *fixture) client(method, path string) *httptest.ResponseRecorder {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.Clients().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// exposed names the secrets in a text.
func exposed(text string) (found []string) {
	for _, s := range secrets {
		if strings.Contains(text, s) {
			found = append(found, s)
		}
	}
	return found
}

// The chain that clients see ends at a private origin, whose own origin only its manifest tells.
func TestChainEndsAtPrivate(t *testing.T) {
	f := newFixture(t)
	f.login()
	const root2 = "33333333-0000-4000-8000-000000000002"
	image := func(id, origin string, public bool) {
		text, err := json.Marshal(map[string]any{"uuid": id, "name": "image", "origin": origin, "public": public})
		if err != nil {
			t.Fatal(err)
		}
		f.answers["GET /images/"+id] = admin.Image{Manifest: text, Listed: public}
	}
	f.answers["GET /catalog"] = admin.Page{Total: 1, Rows: []admin.Row{{UUID: testUUID, Name: "open", Public: true, Listed: true}}}
	image(testUUID, privateUUID, true)
	image(privateUUID, root2, false)
	image(root2, "", false)
	w := f.client("GET", root+"images/"+testUUID)
	if text := w.Body.String(); w.Code != 200 || !strings.Contains(text, privateUUID) || strings.Contains(text, root2) {
		t.Errorf("clients: %d\n%s", w.Code, text)
	}
	if text := f.page(root + "images/" + testUUID); !strings.Contains(text, root2) {
		t.Errorf("operators: %s", text)
	}
}

// No page and no event for clients tells of private images, addresses of nodes, URLs of sources, or
// texts of errors. Operators see them all.
func TestNothingPrivateForClients(t *testing.T) {
	f := newFixture(t)
	f.withSecrets()
	private := strings.NewReplacer(testUUID, privateUUID)
	for _, path := range append(paths(), root+"none", root+"jobs/none") {
		for _, path := range []string{path, private.Replace(path)} {
			w := f.client("GET", path)
			shown := strings.ReplaceAll(w.Body.String(), "href=\""+path, "") // the address of a page that is not there
			for _, s := range exposed(shown) {
				t.Errorf("%s (%d) tells %q", path, w.Code, s)
			}
			if strings.Contains(shown, "<form") && strings.Contains(shown, `method="post"`) {
				t.Errorf("%s has a form that acts", path)
			}
		}
	}
	if body := f.client("GET", root).Body.String(); !strings.Contains(body, "open") || !strings.Contains(body, "lab") {
		t.Errorf("the overview lacks what is public:\n%s", body)
	}

	l := &look{Context: t.Context(), page: f.Page}
	for _, row := range parts {
		id := row.id
		if strings.HasSuffix(id, ".") {
			id += strings.NewReplacer("job.", jobID, "image.", privateUUID).Replace(id)
		}
		event, err := l.event(id)
		if err != nil && !gone(err) {
			t.Errorf("part %s: %v", id, err)
		}
		for _, s := range exposed(strings.ReplaceAll(string(event), "data: "+id+"\n", "")) {
			t.Errorf("part %s tells %q", id, s)
		}
	}

	f.login()
	seen := f.operator("GET", root, nil).Body.String() + f.operator("GET", root+"sources", nil).Body.String() + f.operator("GET", root+"jobs/"+jobID, nil).Body.String()
	for _, s := range secrets {
		if s != testToken && s != "hunter2" && !strings.Contains(seen, s) {
			t.Errorf("operators do not see %q", s)
		}
	}
}

// A page that only operators may see does not exist for clients, and stands in no navigation.
func TestPrivatePages(t *testing.T) {
	f := newFixture(t)
	body := f.client("GET", root).Body.String()
	for _, rt := range routes {
		if !rt.private {
			continue
		}
		if w := f.client("GET", root+strings.NewReplacer("{uuid}", testUUID, "{id}", jobID).Replace(rt.path)); w.Code != 404 {
			t.Errorf("%s: %d", rt.path, w.Code)
		}
		if rt.nav != "" && strings.Contains(body, `href="`+root+rt.path+`"`) {
			t.Errorf("the overview leads to %s", rt.path)
		}
	}
	for _, path := range []string{"login", "logout"} {
		if w := f.client("GET", root+path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if _, _, err := f.Clients().Follow("fills", netip.Addr{}); err != nil {
		t.Error(err)
	}
}

// What is public is remembered for some seconds, in bounded room.
func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var vs verdicts
		id := uuid.New()
		if _, known := vs.find(id); known {
			t.Error("an image is known that no one asked for")
		}
		vs.note(id, true)
		time.Sleep(verdictLife - time.Second)
		if public, known := vs.find(id); !public || !known {
			t.Error("a verdict is forgotten")
		}
		time.Sleep(time.Second)
		if _, known := vs.find(id); known {
			t.Error("a verdict outlives its time")
		}
		for range 2 * maxVerdicts {
			vs.note(uuid.New(), false)
		}
		if len(vs.all) > maxVerdicts {
			t.Errorf("%d verdicts", len(vs.all))
		}
	})
}
