package proxy

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program makes a file of a folder for nodes.
func program(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func newDist(t testing.TB) (f *fixture, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dist")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f = newFixture(t)
	f.options.DistDir = dir
	return f.start(), dir
}

func TestDist(t *testing.T) {
	f, dir := newDist(t)
	text := strings.Repeat("a program\n", 300_000) // more than one step
	program(t, dir, "imgmirror-1.2.3-illumos-amd64", text)
	r := f.get("/dist/imgmirror-1.2.3-illumos-amd64")
	if r.status != 200 || r.err != nil || r.body != text {
		t.Fatalf("status %d, %d bytes, %v", r.status, len(r.body), r.err)
	}
	if got := r.header.Get("Content-Type"); got != "application/octet-stream" || r.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("Content-Type %q, %q", got, r.header.Get("X-Content-Type-Options"))
	}
	if r := f.get("/dist/imgmirror-1.2.3-illumos-amd64", "If-Modified-Since: "+r.header.Get("Last-Modified")); r.status != 304 {
		t.Errorf("the same again: status %d", r.status)
	}
	if r := f.common(f.send("HEAD", "/dist/imgmirror-1.2.3-illumos-amd64")); r.status != 200 || r.header.Get("Content-Length") != fmt.Sprint(len(text)) {
		t.Errorf("HEAD: status %d, length %s", r.status, r.header.Get("Content-Length"))
	}
	f.wantError("PUT", "/dist/imgmirror-1.2.3-illumos-amd64", 405, "MethodNotAllowedError", "PUT is not allowed")
	if n := f.server.metrics.routes[routeDist]; n == nil {
		t.Error("the route has no metrics")
	}
}

// Only regular files of the folder itself are there, by their names.
func TestDistHasNothingElse(t *testing.T) {
	f, dir := newDist(t)
	secret := program(t, filepath.Dir(dir), "secret", "secret")
	program(t, dir, ".hidden", "secret")
	program(t, dir, "a b", "secret")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	program(t, filepath.Join(dir, "sub"), "file", "secret")
	program(t, dir, "good", "good")
	for name, target := range map[string]string{
		"out": secret, "relative": "../secret", "inside": "good", "folder": "sub", "loop": "loop", "dangling": "none",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/dist", "/dist/", "/dist//", "/dist/.", "/dist/..", "/dist/../secret", "/dist/%2e%2e/secret", "/dist/%2e%2e%2fsecret",
		"/dist/..%2Fsecret", "/dist/sub", "/dist/sub/", "/dist/sub/file", "/dist/sub%2ffile", "/dist/.hidden", "/dist/a%20b",
		"/dist/%00", "/dist/good%00", "/dist/..%5csecret", "/dist/" + strings.ReplaceAll(secret, "/", "%2f"),
		"/dist/out", "/dist/relative", "/dist/inside", "/dist/folder", "/dist/loop", "/dist/dangling", "/dist/pipe", "/dist/none",
		"/dist/" + strings.Repeat("a", maxProgramName+1),
	} {
		if r := f.get(path); r.status != 404 || strings.Contains(r.body, `"secret"`) {
			t.Errorf("%s: status %d, %.80s", path, r.status, r.body)
		}
	}
	if r := f.get("/dist/good"); r.body != "good" {
		t.Errorf("good: status %d, %q", r.status, r.body)
	}
	if r := f.get("/dist/SHA256SUMS"); r.status != 200 || r.body != line("good", "good") {
		t.Errorf("sums: status %d, %q", r.status, r.body)
	}
}

// line is a line of sha256sum.
func line(text, name string) string {
	return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(text)), name)
}

// The list of sums follows the folder, reads a file once, and gives way to the operator's own.
func TestDistSums(t *testing.T) {
	f, dir := newDist(t)
	if r := f.get("/dist/SHA256SUMS"); r.status != 200 || r.body != "" {
		t.Errorf("an empty folder: status %d, %q", r.status, r.body)
	}
	b := program(t, dir, "b", "first")
	program(t, dir, "a", "other")
	if r := f.get("/dist/SHA256SUMS"); r.body != line("other", "a")+line("first", "b") {
		t.Errorf("%q", r.body)
	}
	// The same size and time, in the same place: the file counts as the one that was read.
	info, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	program(t, dir, "b", "again")
	if err := os.Chtimes(b, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if r := f.get("/dist/SHA256SUMS"); r.body != line("other", "a")+line("first", "b") {
		t.Errorf("read again without need: %q", r.body)
	}
	if err := os.Chtimes(b, time.Now(), info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if r := f.get("/dist/SHA256SUMS"); r.body != line("other", "a")+line("again", "b") {
		t.Errorf("after a change: %q", r.body)
	}
	for i := range maxPrograms + 3 {
		program(t, dir, fmt.Sprintf("c%03d", i), "c")
	}
	if r := f.get("/dist/SHA256SUMS"); strings.Count(r.body, "\n") != maxPrograms {
		t.Errorf("%d lines, want %d", strings.Count(r.body, "\n"), maxPrograms)
	}
	program(t, dir, "SHA256SUMS", "of the operator\n")
	if r := f.get("/dist/SHA256SUMS"); r.body != "of the operator\n" || r.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%q, %q", r.body, r.header.Get("Content-Type"))
	}
}

// Without a folder, and with one that is not there, nothing is below /dist.
func TestNoDist(t *testing.T) {
	f := newFixture(t).start()
	f.wantError("GET", "/dist/SHA256SUMS", 404, "ResourceNotFound", "/dist/SHA256SUMS does not exist")
	g := newFixture(t)
	g.options.DistDir = filepath.Join(t.TempDir(), "none")
	g.start()
	g.wantError("GET", "/dist/SHA256SUMS", 404, "ResourceNotFound", "/dist/SHA256SUMS does not exist")
	g.wantError("GET", "/dist/imgmirror", 404, "ResourceNotFound", "/dist/imgmirror does not exist")
}
