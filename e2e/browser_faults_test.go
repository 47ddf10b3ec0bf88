package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestBrowserSeesFaults: the tests of the pages rest on this: whatever goes wrong in a page is
// seen, and a page in which nothing goes wrong has no fault, with and without its script.
func TestBrowserSeesFaults(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	parts := map[string]string{
		"":          `<title>well</title><p id="p">a page</p>`,
		"console":   `<script src="/console.js"></script>`,
		"exception": `<script src="/exception.js"></script>`,
		"promise":   `<script src="/promise.js"></script>`,
		"policy":    `<script>var inline = 1</script>`,
		"style":     `<p style="color: red">red</p>`,
		"absent":    `<img src="/absent.png" alt="">`,
		"elsewhere": `<img src="` + elsewhere.URL + `/a.png" alt="">`,
		"name":      `<img src="http://images.example/a.png" alt="">`,
		"fetch":     `<script src="/fetch.js"></script>`,
	}
	scripts := map[string]string{
		"/console.js":   `console.error("an error", 7)`,
		"/exception.js": `throw new Error("thrown")`,
		"/promise.js":   `Promise.reject(new Error("rejected"))`,
		"/fetch.js":     `fetch("/gone").then(() => document.title = "fetched")`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src * data:")
		name := strings.TrimPrefix(r.URL.Path, "/")
		switch body, ok := parts[name]; {
		case ok:
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,">`, body)
		case scripts[r.URL.Path] != "":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, scripts[r.URL.Path])
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	b := rawTab(t, server.URL)
	for name, want := range map[string]string{
		"console": "an error", "exception": "thrown", "promise": "rejected",
		"policy": "Content Security Policy", "style": "Content Security Policy",
		"absent": "answer 404", "elsewhere": elsewhere.URL, "name": "images.example", "fetch": "answer 404",
	} {
		if status := b.open(server.URL + "/" + name); status != 200 {
			t.Fatalf("%s: status %d", name, status)
		}
		if name == "fetch" {
			b.until(`document.title == "fetched"`)
		}
		faults := b.takeFaults()
		if !slices.ContainsFunc(faults, func(fault string) bool { return strings.Contains(fault, want) }) {
			t.Errorf("%s: faults %q, want one with %q", name, faults, want)
		}
	}
	b.allow("answer 404")
	b.open(server.URL + "/absent")
	if faults := b.takeFaults(); len(faults) > 0 {
		t.Errorf("an allowed fault: %q", faults)
	}

	well := newTab(t, server.URL)
	if well.open(server.URL + "/"); well.text("#p") != "a page" || well.count("p") != 1 {
		t.Errorf("the page has %q", well.describe())
	}
	well.withoutScript()
	well.open(server.URL + "/exception")
	well.until(`document.readyState == "complete"`)
}

// TestBrowserSeesLooks: a page that is too wide, hides the focus or cannot be read by all is seen.
func TestBrowserSeesLooks(t *testing.T) {
	t.Parallel()
	ill := `<style>a { outline: none } p { color: #ccc } div { width: 3000px }</style>
		<div>wide</div><a href="/">a link</a><p>pale</p><img src="data:,"><input>`
	well := `<main><h1>Well</h1><a href="/">a link</a><label>a field <input></label></main>`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		body := well
		if r.URL.Path == "/ill" {
			body = ill
		}
		fmt.Fprint(w, `<!doctype html><html lang="en"><title>looks</title><link rel="icon" href="data:,">`, body)
	}))
	defer server.Close()
	b := newTab(t, server.URL)
	b.open(server.URL + "/ill")
	b.look("light", 390)
	if wide := strings.Join(b.overflow(), "\n"); !strings.Contains(wide, "<div>wide") {
		t.Errorf("too wide: %q", wide)
	}
	if unmarked := b.unmarked(); len(unmarked) != 1 || !strings.Contains(unmarked[0], "<a href") {
		t.Errorf("without a sign of the focus: %q", unmarked)
	}
	faults := strings.Join(b.accessible(), "\n")
	for _, want := range []string{"color-contrast", "image-alt", "label"} {
		if !strings.Contains(faults, want+" (") {
			t.Errorf("no %s among the faults:\n%s", want, faults)
		}
	}
	b.open(server.URL + "/well")
	if faults := slices.Concat(b.overflow(), b.unmarked(), b.accessible()); len(faults) > 0 {
		t.Errorf("a page that is well: %q", faults)
	}
}
