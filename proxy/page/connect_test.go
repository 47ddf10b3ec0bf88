package page

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// The lines for a node name the clients' listener, as the visitor or the configuration calls it.
func TestConnect(t *testing.T) {
	f := newFixture(t)
	scheme, port, public, operator := "http", "8080", "", true
	f.o.Client = func() (string, string) { return scheme, port }
	ask := func(host string) string {
		t.Helper()
		f.o.PublicURL = public
		r := httptest.NewRequest("GET", root+"connect", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if operator {
			r.AddCookie(f.cookie)
			f.Operators().ServeHTTP(w, r)
		} else {
			f.Clients().ServeHTTP(w, r)
		}
		body := w.Body.String()
		if w.Code != 200 || !strings.Contains(body, "/datasets -t dsapi") {
			t.Fatalf("%d\n%s", w.Code, body)
		}
		if trap := strings.Contains(body, "IMGADM_INSECURE=1"); trap != strings.Contains(body, "sources -a https:") {
			t.Errorf("%s: the variable is told: %t", host, trap)
		}
		_, script, _ := strings.Cut(body, "curl -fsS ")
		script, _, _ = strings.Cut(script, "/node.sh | sh</code>")
		_, url, _ := strings.Cut(body, "imgadm sources -a ")
		url, _, _ = strings.Cut(url, "</code>")
		if script != url {
			t.Errorf("%s: the script is of %q, the source %q", host, script, url)
		}
		if local := strings.Contains(body, "other machines cannot use this address"); local {
			url += " local"
		}
		return url
	}
	is := func(host, want string) {
		t.Helper()
		if got := ask(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	f.login()
	is("mirror:8081", "http://mirror:8080")
	is("mirror", "http://mirror:8080")
	is("localhost:8081", "http://localhost:8080 local")
	is("127.0.0.1:8081", "http://127.0.0.1:8080 local")
	is("[2001:db8::1]:8081", "http://[2001:db8::1]:8080")
	is("[::1]:8081", "http://[::1]:8080 local")
	is("a;reboot", "http://MIRROR:8080")
	scheme, port = "https", "443"
	is("mirror:8081", "https://mirror")
	is("[2001:db8::1]:8081", "https://[2001:db8::1]")
	operator, scheme, port = false, "http", "8080"
	is("mirror:8080", "http://mirror:8080")
	is("mirror:9999", "http://mirror:9999") // a port that is handed on
	is("mirror", "http://mirror")
	is("$(reboot):1", "http://MIRROR:1")
	is("mirror:$(reboot)", "http://mirror:8080")
	public = "https://user:secret@images.example.com/base/"
	is("mirror", "https://images.example.com/base")
}
