package proxy

import (
	"strings"
	"testing"
)

func TestScriptNamesTheMirror(t *testing.T) {
	f := newFixture(t).start()
	names := func(want string, headers ...string) {
		t.Helper()
		r := f.get("/node.sh", headers...)
		if r.status != 200 || !strings.Contains(r.body, "\nmirror='"+want+"'\n") || strings.Contains(r.body, scriptMirror) {
			t.Errorf("%q: status %d, no line mirror='%s'", headers, r.status, want)
		}
		if got := r.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
			t.Errorf("Content-Type %q", got)
		}
	}
	names("http://mirror.example:8080", "Host: mirror.example:8080")
	names("http://10.0.0.7", "Host: 10.0.0.7")
	names("http://[2001:db8::1]:80", "Host: [2001:db8::1]:80")
	names("http://"+f.addr, "Host: "+f.addr)
	for _, host := range []string{
		"a'b", "a'$(id)'", "$(id)", "`id`", "a;id", "a b", "a\\b", "a|b", "a&b", "a\"b", "é", "a/b", "a%0ab", strings.Repeat("a", 256),
	} {
		f.wantError("GET", "/node.sh", 400, "BadRequestError", "", "Host: "+host)
	}
	f.wantError("POST", "/node.sh", 405, "MethodNotAllowedError", "POST is not allowed")
	f.wantError("GET", "/node.sh/x", 404, "ResourceNotFound", "/node.sh/x does not exist")
}

// The configured URL wins over every Host header, and gives no password away, and nothing that a shell
// expands between quotes.
func TestScriptNamesThePublicURL(t *testing.T) {
	for public, want := range map[string]string{
		"https://images.example/sub/":       "https://images.example/sub",
		"http://user:secret@images.example": "http://images.example",
		"http://images.example/o'$(id)":     "http://images.example/o%27%24(id)",
		"http://images.example/`id`\"\\ x":  "http://images.example/%60id%60%22%5C%20x",
		"http://$(id)\".example":            "http://%24(id)%22.example",
	} {
		f := newFixture(t)
		f.options.PublicURL = public
		f.start()
		if r := f.get("/node.sh", "Host: $(id)"); r.status != 200 || !strings.Contains(r.body, "\nmirror='"+want+"'\n") {
			t.Errorf("%s: status %d, no line mirror='%s'", public, r.status, want)
		}
	}
}

func TestScriptIsShort(t *testing.T) {
	if size := len(nodeScript); size > smallBody {
		t.Errorf("%d bytes: beyond smallBody, bodies are booked", size)
	}
	for i, line := range strings.Split(nodeScript, "\n") {
		if len(line) > 120 || strings.Contains(line, "\r") {
			t.Errorf("line %d is not short", i+1)
		}
	}
}
