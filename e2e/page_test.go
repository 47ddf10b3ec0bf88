package e2e

import (
	"bytes"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"imgmirror/proxy/upstream/upstreamtest"
)

// showroom is a mirror that has something of everything that the pages show.
type showroom struct {
	*mirror
	src      *source
	images   []image // that the source lists: the first one is cached and pinned
	conflict image   // that two sources have with different bytes
	hidden   image   // that its source lists as private
	private  image   // published here, not public
}

// sourcePassword is what one of the sources wants.
const sourcePassword = "hidden-word-of-a-source"

// The names that hurt a page that takes them for more than text.
const (
	markupName = `<img src=/ui/static/x onerror=alert(1)><script>alert(2)</script>`
	escapeName = "red\x1b[31m\x07bell"
	backName   = "safe-\u202egnp.exe\u2066\u200f"
	quoteName  = `"' onmouseover=alert(3) x='`
)

// newShowroom starts the mirror.
func newShowroom(t testing.TB, set settings) *showroom {
	t.Helper()
	s := &showroom{
		conflict: newImage("in-conflict", 4000),
		hidden:   newImage("not-for-all", 4000, map[string]any{"public": false}),
	}
	for _, name := range []string{"plain-image", markupName, escapeName, backName, quoteName} {
		s.images = append(s.images, newImage(name, 5000, map[string]any{"description": name, "version": "1.0.0"}))
	}
	s.src = newSource(t, append(slices.Clone(s.images), s.conflict, s.hidden)...)
	other := newSourceWith(t, upstreamtest.Options{Username: "imgmirror", Password: sourcePassword}, newImage("in-conflict", 4000, map[string]any{
		"files": []any{map[string]any{"sha1": strings.Repeat("0123456789", 4), "size": 4000, "compression": "gzip"}}}))
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(sourcePassword), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mirror = startMirror(t, set, from(s.src.URL(), settings{"name": "first"}),
		from(other.URL(), settings{"name": "second", "username": "imgmirror", "password_file": password}), samples(t))
	s.awaitList(len(s.images) + 1 + len(sampleUUIDs))
	s.until("the conflict is seen", func() bool { return s.metric("imgmirror_catalog_conflicts") > 0 })
	if err := askFrom(net.IPv4(127, 0, 10, 9), s.url+filePath(s.images[0])); err != nil {
		t.Fatal(err)
	}
	s.awaitStored(1)
	s.verb("pin", s.images[0].uuid).want(t)
	sample := sample(t, sampleBase)
	s.private = newImage("our-secret-image", 1, map[string]any{"public": false, "description": "secret words", "files": []any{
		map[string]any{"sha1": sample.sha1(), "size": len(sample.file), "compression": "gzip"}}})
	manifest := filepath.Join(s.dir, "private.json")
	if err := os.WriteFile(manifest, s.private.manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	s.verb("publish", "-m", manifest, "-f", abs(t, sample.path)).want(t)
	return s
}

// secrets are texts that no page shows to those who have not signed in.
func (s *showroom) secrets() []string {
	return []string{
		s.token(), sourcePassword, s.private.name, s.private.uuid, "secret words", s.hidden.name, s.hidden.uuid,
		s.src.URL(), strings.TrimPrefix(s.src.URL(), "http://"), "127.0.10.9",
	}
}

// state is what the actions of the pages could have changed.
func (s *showroom) state() string {
	s.t.Helper()
	var all []string
	for _, path := range []string{"/images", "/jobs"} {
		got := s.api(path)
		if got.status != 200 {
			s.t.Fatalf("%s: %d %s", path, got.status, got.body)
		}
		all = append(all, string(got.body))
	}
	pins, _ := os.ReadFile(s.data("pins")) // none is one state, too
	return strings.Join(append(all, string(pins)), "\n")
}

// send posts a form as its page would, by a visitor.
func (f form) send(v *visitor, fields url.Values) webPage {
	v.t.Helper()
	if f.kind != "multipart/form-data" {
		return v.post(f.action, fields)
	}
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := parts.WriteField(name, fields.Get(name)); err != nil {
			v.t.Fatal(err)
		}
	}
	parts.Close()
	return v.ask(http.MethodPost, f.action, parts.FormDataContentType(), &body)
}

// actions are the forms of the pages that do something, each once.
func actions(pages map[string]webPage) []form {
	seen := map[string]form{}
	for _, page := range pages {
		for _, f := range page.forms() {
			if f.method == http.MethodPost {
				fields := maps.Clone(f.fields)
				fields.Del("csrf")
				seen[f.action+"?"+fields.Encode()] = f
			}
		}
	}
	var all []form
	for _, key := range slices.Sorted(maps.Keys(seen)) {
		all = append(all, seen[key])
	}
	return all
}

// TestPageDoors: without a session of its own nothing of the operators' pages is shown, and nothing
// is done. A form of another session, of another site or without the session's token does nothing.
func TestPageDoors(t *testing.T) {
	t.Parallel()
	s := newShowroom(t, nil)
	operator := &visitor{t: t, base: s.admin}
	operator.signIn(s.token())
	pages := operator.walk()
	for _, path := range []string{"/ui/", "/ui/images", "/ui/images/" + s.private.uuid, "/ui/images/" + s.private.uuid + "/unpublish", "/ui/publish", "/ui/nodes", "/ui/nodes/127.0.10.9", "/ui/nodes/forget", "/ui/sources", "/ui/jobs", "/ui/connect"} {
		if pages[path].status != http.StatusOK {
			t.Errorf("%s: the operator does not get there by links", path)
		}
	}
	for path, page := range pages {
		if page.status != http.StatusOK {
			t.Errorf("%s: status %d for the operator", path, page.status)
		}
		if strings.Contains(page.body, s.token()) || strings.Contains(page.body, sourcePassword) {
			t.Errorf("%s shows the token, or a source's password", path)
		}
	}
	forms := actions(pages)
	if len(forms) < 30 {
		t.Fatalf("%d forms on %d pages", len(forms), len(pages))
	}
	before := s.state()

	other := &visitor{t: t, base: s.admin}
	other.signIn(s.token())
	foreign := other.get("/ui/images/" + s.images[0].uuid).forms()
	strangers := map[string]*visitor{
		"no session":      {t: t, base: s.admin},
		"a made-up one":   {t: t, base: s.admin, cookie: strings.Split(operator.cookie, "=")[0] + "=" + strings.Repeat("a1", 32)},
		"an empty cookie": {t: t, base: s.admin, cookie: strings.Split(operator.cookie, "=")[0] + "="},
		"the token in it": {t: t, base: s.admin, cookie: strings.Split(operator.cookie, "=")[0] + "=" + s.token()},
	}
	for who, v := range strangers {
		for path := range pages {
			got := v.get(path)
			toLogin := got.status == http.StatusSeeOther && strings.HasPrefix(got.header.Get("Location"), "/ui/login")
			if path != "/ui/login" && !toLogin && got.status != 401 && got.status != 403 {
				t.Errorf("%s, %s: status %d", path, who, got.status)
			}
			for _, secret := range append(s.secrets(), s.images[0].name) {
				if strings.Contains(got.body, secret) && !strings.Contains(path, secret) {
					t.Errorf("%s, %s: the answer has %q", path, who, secret)
				}
			}
		}
		for _, path := range []string{"/ui/live", "/ui/live?want=fills"} {
			if got := v.get(path); got.status != 401 && got.status != 403 && got.status != http.StatusSeeOther {
				t.Errorf("%s, %s: status %d", path, who, got.status)
			}
		}
		for _, f := range forms {
			if got := f.send(v, f.fields); f.action != "/ui/login" && got.status != 401 && got.status != 403 {
				t.Errorf("POST %s %v, %s: status %d", f.action, f.fields, who, got.status)
			}
		}
	}
	for _, f := range forms {
		for what, csrf := range map[string][]string{"none": nil, "an empty one": {""}, "a wrong one": {strings.Repeat("b2", 32)}, "another session's": foreign[0].fields["csrf"]} {
			fields := maps.Clone(f.fields)
			fields["csrf"] = csrf
			if got := f.send(operator, fields); got.status != 403 {
				t.Errorf("POST %s %v of %s, with %s for its token: status %d", f.action, f.fields, f.page, what, got.status)
			}
		}
	}
	if after := s.state(); after != before {
		t.Errorf("something was done:\n%s\nbefore:\n%s", after, before)
	}
	if got := operator.get("/ui/"); got.status != http.StatusOK {
		t.Errorf("the operator's session has ended: status %d", got.status)
	}
}

// TestPageSession: in the browser a wrong token leads nowhere, the right one to where the visitor
// wanted to go, and a session ends with its logout, for holders of a copy of the cookie, too.
func TestPageSession(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	b := newTab(t, m.admin)
	if b.open(m.admin + "/ui/connect"); b.count("#token") != 1 {
		t.Fatalf("no login:\n%s", b.describe())
	}
	b.allow("answer 401")
	b.allow("answer 403")
	b.typed("#token", m.token()[1:])
	if status := b.load("a wrong token", chromedp.Submit(chromedp.CSS("#token"))); status != 401 && status != 403 || b.count("#token") != 1 {
		t.Fatalf("a wrong token: status %d\n%s", status, b.describe())
	}
	if b.count("[role=alert]") != 1 {
		t.Errorf("nothing tells that the token is wrong:\n%s", b.describe())
	}
	if cookies := b.cookies(); len(cookies) > 0 {
		t.Errorf("a wrong token has brought the cookie %s", cookies[0].Name)
	}
	b.typed("#token", m.token())
	b.load("the right token", chromedp.Submit(chromedp.CSS("#token")))
	var at string
	if b.js(`location.pathname`, &at); at != "/ui/connect" {
		t.Errorf("after the login the browser is at %s", at)
	}
	cookies := b.cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies", len(cookies))
	}
	c := cookies[0]
	if !c.HTTPOnly || c.SameSite != network.CookieSameSiteStrict || c.Path != "/ui/" {
		t.Errorf("the cookie: HttpOnly %v, SameSite %q, Path %q", c.HTTPOnly, c.SameSite, c.Path)
	}
	if strings.Contains(c.Value, m.token()) {
		t.Error("the cookie has the token")
	}
	var seen string
	if b.js(`document.cookie`, &seen); seen != "" {
		t.Errorf("a script of the page sees %q", seen)
	}
	copied := &visitor{t: t, base: m.admin, cookie: c.Name + "=" + c.Value}
	if got := copied.get("/ui/"); got.status != 200 {
		t.Errorf("a copy of the cookie: status %d before the logout", got.status)
	}
	b.follow("form.logout button")
	if got := copied.get("/ui/"); got.status == 200 {
		t.Error("a copy of the cookie still counts after the logout")
	}
	if b.open(m.admin + "/ui/images"); b.count("#token") != 1 {
		t.Errorf("after the logout:\n%s", b.describe())
	}
}

// cookies are those that the browser has for the page.
func (b *tab) cookies() []*network.Cookie {
	b.t.Helper()
	got, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	return got.Cookies
}
