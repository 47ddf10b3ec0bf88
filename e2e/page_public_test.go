package e2e

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// TestPagePublic: clients see the pages without what is not theirs, in the pages and in the stream
// of events, and can do nothing.
func TestPagePublic(t *testing.T) {
	t.Parallel()
	s := newShowroom(t, nil)
	operator := &visitor{t: t, base: s.admin}
	operator.signIn(s.token())
	own := operator.walk()
	client := &visitor{t: t, base: s.url}
	pages := client.walk()
	for path := range own {
		if _, ok := pages[path]; !ok {
			pages[path] = client.get(path)
		}
	}
	for _, path := range []string{"/ui/login", "/ui/images/" + s.private.uuid, "/ui/images/" + s.hidden.uuid} {
		if pages[path] = client.get(path); pages[path].status != http.StatusNotFound {
			t.Errorf("%s: status %d for clients", path, pages[path].status)
		}
	}
	for path, page := range pages {
		for _, secret := range s.secrets() {
			if strings.Contains(page.body, secret) && !strings.Contains(path, secret) {
				t.Errorf("%s shows clients %q", path, secret)
			}
		}
		for _, f := range page.forms() {
			if f.method != http.MethodGet && f.method != "" {
				t.Errorf("%s has a form of method %s for clients", path, f.method)
			}
		}
		if len(page.header["Set-Cookie"]) > 0 {
			t.Errorf("%s gives clients a cookie", path)
		}
	}
	if page := pages["/ui/"]; page.status != http.StatusOK || strings.Contains(page.body, "Sign out") {
		t.Errorf("the overview of clients: status %d\n%s", page.status, page.body)
	}

	before := s.state()
	for _, f := range actions(own) {
		client.cookie = operator.cookie // of the other listener
		if got := f.send(client, f.fields); got.status < 400 {
			t.Errorf("POST %s %v by a client: status %d", f.action, f.fields, got.status)
		}
	}
	client.cookie = ""
	if after := s.state(); after != before {
		t.Errorf("a client has done something:\n%s\nbefore:\n%s", after, before)
	}

	var parts []string
	for _, page := range own {
		parts = append(parts, page.parts()...)
	}
	slices.Sort(parts)
	for some := range slices.Chunk(slices.Compact(parts), 16) {
		wanted := ""
		if slices.Contains(some, "fills") {
			wanted = "event: part"
		}
		said := events(t, s.url+"/ui/live?want="+url.QueryEscape(strings.Join(some, ",")), wanted)
		for _, secret := range s.secrets() {
			if strings.Contains(said, secret) && !strings.Contains(strings.Join(some, ","), secret) {
				t.Errorf("the stream tells clients %q:\n%s", secret, said)
			}
		}
		if !strings.Contains(said, wanted) {
			t.Errorf("the stream tells nothing of %q:\n%s", some, said)
		}
	}
}

// parts are the ids of what changes by itself on the page.
func (p webPage) parts() (ids []string) {
	for n := range p.root.Descendants() {
		if slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "data-live" }) {
			ids = append(ids, attribute(n, "id"))
		}
	}
	return ids
}

// events is what a stream of events tells until it has told what is wanted, and for two seconds more.
func events(t testing.TB, url, wanted string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var said strings.Builder
	told := false
	for buf := make([]byte, 4096); ; {
		if !told && strings.Contains(said.String(), wanted) {
			told = true
			time.AfterFunc(2*time.Second, cancel)
		}
		n, err := resp.Body.Read(buf)
		said.Write(buf[:n])
		if err != nil { // the time is over
			return said.String()
		}
	}
}

// TestPageRoot: browsers are led from the root to the page, clients of the API get what they always
// got. With page.public off the clients' listener has no page.
func TestPageRoot(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	m.awaitList(len(sampleUUIDs))
	browser := &visitor{t: t, base: m.url}
	if got := browser.get("/"); got.status != http.StatusFound || got.header.Get("Location") != "/ui/" {
		t.Errorf("a browser at /: status %d, Location %q", got.status, got.header.Get("Location"))
	}
	array := get(t, m.url+"/", "Accept", "*/*")
	if array.status != 200 || !strings.HasPrefix(string(array.body), "[") {
		t.Errorf("a client at /: status %d, %s", array.status, tail(string(array.body), 100))
	}
	m.stop()
	m.set(settings{"page.public": false})
	m.start()
	m.awaitList(len(sampleUUIDs))
	for _, path := range []string{"/ui/", "/ui/images", "/ui/live", "/ui/static/page.css"} {
		if got := browser.get(path); got.status != http.StatusNotFound {
			t.Errorf("page.public is off, %s: status %d", path, got.status)
		}
	}
	if got := get(t, m.url+"/", "Accept", "text/html"); string(got.body) != string(array.body) {
		t.Errorf("page.public is off, a browser at /: status %d, %s", got.status, tail(string(got.body), 100))
	}
	if got := (&visitor{t: t, base: m.admin}).get("/ui/login"); got.status != http.StatusOK {
		t.Errorf("page.public is off, the operators' login: status %d", got.status)
	}
}
