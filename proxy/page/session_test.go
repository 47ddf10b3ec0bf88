package page

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/proxy/admin"
)

// fresh is a page without an API: for what is decided before the API is asked.
func fresh(t *testing.T) *Page {
	t.Helper()
	p, err := New(Options{Token: testToken, Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// with is a request with a session's cookie.
func with(id string) *http.Request {
	r := httptest.NewRequest("GET", root, nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: id})
	return r
}

// A session ends an hour after its last use, and twelve hours after its begin, whatever its use.
func TestSessionAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fresh(t)
		id, s := p.sessions.begin()
		for range 12 {
			time.Sleep(sessionIdle - time.Minute)
			if p.sessions.find(with(id), true) != s {
				t.Fatal("a session in use has ended")
			}
		}
		time.Sleep(sessionLife - 12*(sessionIdle-time.Minute) - time.Second)
		if p.sessions.find(with(id), true) != s {
			t.Fatal("the session has ended before its time")
		}
		time.Sleep(time.Second)
		if p.sessions.find(with(id), true) != nil {
			t.Error("the session outlives twelve hours")
		}
		<-s.ended

		id, s = p.sessions.begin()
		time.Sleep(sessionIdle / 2)
		if p.sessions.find(with(id), false) != s { // an event stream
			t.Fatal("the session has ended before its time")
		}
		time.Sleep(sessionIdle / 2)
		if p.sessions.find(with(id), true) != nil {
			t.Error("an idle session goes on")
		}
	})
}

// Sessions are bounded: a new one ends the one that has been idle longest.
func TestSessionBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fresh(t)
		var ids []string
		for range maxSessions {
			id, _ := p.sessions.begin()
			ids = append(ids, id)
			time.Sleep(time.Second)
		}
		p.sessions.find(with(ids[0]), true)
		p.sessions.begin()
		if p.sessions.find(with(ids[0]), false) == nil || p.sessions.find(with(ids[1]), false) != nil || len(p.sessions.all) != maxSessions {
			t.Errorf("%d sessions", len(p.sessions.all))
		}
		for _, id := range []string{"", "x", ids[1], strings.ToUpper(ids[0])} {
			if p.sessions.find(with(id), true) != nil {
				t.Errorf("%q is a session", id)
			}
		}
	})
}

func TestCookie(t *testing.T) {
	f := newFixture(t)
	f.login()
	c := f.cookie
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != root || c.MaxAge != int(sessionLife.Seconds()) || c.Secure || len(c.Value) != 64 {
		t.Errorf("cookie %+v", c)
	}
	r := httptest.NewRequest("GET", "https://mirror/ui/", nil)
	if !cookie(r, "x", 1).Secure {
		t.Error("over TLS the cookie is not Secure")
	}
	for _, path := range paths() {
		if body := f.operator("GET", path, nil).Body.String(); strings.Contains(body, testToken) || strings.Contains(body, c.Value) {
			t.Errorf("%s tells the token or the session", path)
		}
	}
}

// A logout ends the session on the mirror, and its event streams.
func TestLogout(t *testing.T) {
	f := newFixture(t)
	f.login()
	old := f.cookie
	s := f.sessions.find(with(old.Value), false)
	if w := f.operator("POST", "/ui/logout", url.Values{"csrf": {"x"}}); w.Code != http.StatusForbidden {
		t.Errorf("without the form's token: %d", w.Code)
	}
	w := f.operator("POST", "/ui/logout", url.Values{"csrf": {f.csrf}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/ui/login" {
		t.Errorf("logout: %d %v", w.Code, w.Header())
	}
	if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("cookies %v", c)
	}
	<-s.ended
	if w := f.operator("GET", "/ui/jobs", nil); w.Code != http.StatusSeeOther {
		t.Errorf("after the logout: %d", w.Code)
	}
	if w := f.operator("GET", "/ui/live?want=fills", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("events after the logout: %d", w.Code)
	}
}

// No form does anything without the token of its own session.
func TestForms(t *testing.T) {
	f := newFixture(t)
	f.login()
	other, _ := f.sessions.begin()
	foreign := f.sessions.find(with(other), false).csrf
	asked := len(f.asked)
	for _, path := range paths() {
		for _, csrf := range []string{"", "x", foreign, f.csrf + "0"} {
			if w := f.operator("POST", path, url.Values{"do": {"refresh"}, "csrf": {csrf}}); w.Code != http.StatusForbidden && w.Code != http.StatusMethodNotAllowed {
				t.Errorf("POST %s with %q: %d", path, csrf, w.Code)
			}
		}
		r := httptest.NewRequest("POST", path, strings.NewReader("csrf="+f.csrf+"&do=refresh"))
		r.AddCookie(f.cookie)
		r.Header.Set("Content-Type", "text/plain")
		w := httptest.NewRecorder()
		if f.Operators().ServeHTTP(w, r); w.Code != http.StatusUnsupportedMediaType && w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s as text: %d", path, w.Code)
		}
	}
	large := url.Values{"csrf": {f.csrf}, "do": {strings.Repeat("x", maxForm)}}
	if w := f.operator("POST", "/ui/sources", large); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large form: %d", w.Code)
	}
	if len(f.asked) != asked {
		t.Errorf("the API was asked: %q", f.asked[asked:])
	}
	if w := f.operator("POST", "/ui/sources", url.Values{"csrf": {f.csrf}, "do": {"none"}}); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("an unknown action: %d", w.Code)
	}
	f.answers["POST /sources/check"] = []any{}
	w := f.operator("POST", "/ui/sources", url.Values{"csrf": {f.csrf}, "do": {"check"}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/ui/sources" {
		t.Errorf("check: %d %v", w.Code, w.Header())
	}
	const told = "All sources have answered"
	if first, second := f.operator("GET", "/ui/sources", nil).Body.String(), f.operator("GET", "/ui/sources", nil).Body.String(); !strings.Contains(first, told) || strings.Contains(second, told) {
		t.Error("what was done is not told once")
	}
}

// After the login the page that was asked for comes, and no page of another site.
func TestLoginLeadsOn(t *testing.T) {
	f := newFixture(t)
	for to, want := range map[string]string{
		"/ui/jobs": "/ui/jobs", "/ui/sources?x=1": "/ui/sources?x=1", "": root, "/": root, "//evil.example/ui/": root, "https://evil.example/ui/": root,
		"/ui//evil.example": root, "/ui/\\evil": root, "/ui/../api": root, "/ui/x\r\ny": root, "/api/v1": root,
	} {
		w := f.operator("POST", "/ui/login", url.Values{"token": {" " + testToken + "\n"}, "to": {to}})
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != want {
			t.Errorf("to %q: %d %q", to, w.Code, w.Header().Get("Location"))
		}
		f.tries = admin.NewTries()
	}
	if w := f.operator("GET", "/ui/sources?x=1", nil); w.Header().Get("Location") != "/ui/login?to=%2Fui%2Fsources%3Fx%3D1" {
		t.Errorf("%q", w.Header().Get("Location"))
	}
	if w := f.operator("GET", "/ui/login?to=/ui/jobs", nil); !strings.Contains(w.Body.String(), `name="to" value="/ui/jobs"`) {
		t.Error(w.Body)
	}
}

func TestNoTokenNoLogin(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/ui/login", strings.NewReader("token="))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	if p.Operators().ServeHTTP(w, r); w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) > 0 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// Tries are bounded: of one address, which costs others nothing, and of all addresses.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fresh(t)
		try := func(remote, token string) int {
			r := httptest.NewRequest("POST", "/ui/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.RemoteAddr = remote
			w := httptest.NewRecorder()
			p.Operators().ServeHTTP(w, r)
			if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			return w.Code
		}
		const burst = 5 // of one address, see admin.Tries
		begun := time.Now()
		for range 20 {
			try("[2001:db8::1]:9", "wrong")
			try("[2001:db8::2]:9", "wrong") // of the same network
		}
		m := p.metrics.logins
		if wrong, limited := testutil.ToFloat64(m[loginWrong]), testutil.ToFloat64(m[loginLimited]); wrong != burst || limited != 40-burst {
			t.Errorf("metrics: %v wrong, %v limited", wrong, limited)
		}
		if wrong := time.Since(begun); wrong < burst*300*time.Millisecond {
			t.Errorf("the tries took %s", wrong)
		}
		if code := try("[2001:db8::3]:9", testToken); code != http.StatusSeeOther {
			t.Errorf("the right token after the tries of a stranger: %d", code)
		}
		p.o.Token = "short"
		if code := try("[2001:db8::3]:9", "short"); code != http.StatusTooManyRequests {
			t.Errorf("a try too many of a token that can be guessed: %d", code)
		}
		p.o.Token = testToken
		if code := try("192.0.2.1:9", testToken); code != http.StatusSeeOther {
			t.Errorf("another address: %d", code)
		}
		time.Sleep(3 * time.Second)
		if code := try("[2001:db8::3]:9", testToken); code != http.StatusSeeOther {
			t.Errorf("after a pause: %d", code)
		}
	})
}

// deadlines keeps the last deadline for reads.
type deadlines struct {
	*httptest.ResponseRecorder
	set  int
	last time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set++
	d.last = t
	return nil
}

// A form must arrive in time, and the work that it asks for may take as long as need be.
func TestFormDeadline(t *testing.T) {
	f := newFixture(t)
	f.login()
	f.answers["POST /sources/check"] = []any{}
	r := httptest.NewRequest("POST", "/ui/sources", strings.NewReader(url.Values{"csrf": {f.csrf}, "do": {"check"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(f.cookie)
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	f.Operators().ServeHTTP(w, r)
	if w.Code != http.StatusSeeOther || w.set == 0 || !w.last.IsZero() {
		t.Errorf("%d, %d deadlines, the last is %s", w.Code, w.set, w.last)
	}
}
