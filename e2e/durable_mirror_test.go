package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// tracedMirror makes an installation whose processes run under strace, which writes what they call to a file.
func tracedMirror(t *testing.T, sources ...map[string]any) (m *mirror, trace string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("strace is of Linux")
	}
	m = newMirror(t, nil, sources...)
	trace = filepath.Join(m.dir, "trace")
	m.under = []string{need(t, "strace"), "-D", "-f", "-y", "-s", "0", "-o", trace,
		"-e", "trace=write,pwrite64,fsync,fdatasync,msync,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat"}
	return m, trace
}

// lasting are the calls on what has to outlive a power loss. The index is not among it, which the database writes in
// ways of its own, nor are unfinished downloads, which are hashed again, nor what each start makes anew.
func lasting(m *mirror, text string) []fileCall {
	return slices.DeleteFunc(fileCalls(text, m.dir), func(c fileCall) bool {
		below := func(folder string) bool { return strings.HasPrefix(c.path, m.data(folder)+string(filepath.Separator)) }
		return c.name != "fsync" && !strings.HasPrefix(c.path, m.data()) || below("index") || below("partial") && c.name != "write" && c.name != "fsync" ||
			strings.HasPrefix(c.path, m.data("admin.")) || strings.HasPrefix(c.path, m.data(".s"))
	})
}

// syncedIndex are calls by which the database makes its log last.
var syncedIndex = regexp.MustCompile(`(?m)^\d+ +(msync\(|f(data)?sync\(\d+<[^>]*/index/)`)

// TestMirrorDurable: what a running mirror has acknowledged is on disk, and so is each file before another one, or the
// index, speaks of it.
func TestMirrorDurable(t *testing.T) {
	t.Parallel()
	cached, deleted, published, imported := newImage("cached", 300_000), newImage("deleted", 200_000), sample(t, sampleBase), newImage("imported", 100_000)
	bundle := filepath.Join(t.TempDir(), "bundle.tar")
	carrier(t, imported).verb("bundle", "export", "-q", "-o", bundle, "name=imported").want(t)
	m, trace := tracedMirror(t, from(newSource(t, cached, deleted).URL()))

	read := func() string {
		text, err := os.ReadFile(trace)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text)
	}
	// during gives what was called while f ran: all of that is before what comes after f.
	during := func(f func()) string {
		before := len(read())
		f()
		return read()[before:]
	}
	file := func(img image) string { return m.data("files", img.sha1()[:2], img.sha1()) }
	manifest := func(img image) string { return m.data("manifests", img.uuid+".json") }
	pid := regexp.MustCompile(`(?m)^\d+ `)

	text := during(func() {
		m.start()
		m.awaitList(2)
	})
	if !pid.MatchString(text) {
		missing(t, "the right to strace a process: "+m.log())
	}
	wantDurable(t, lasting(m, text), m.data(), m.data("files"), m.data("manifests"))
	for i, img := range []image{cached, deleted} {
		text = during(func() {
			get(t, m.url+filePath(img)).wantFile(t, img)
			m.awaitStored(i + 1)
		})
		wantDurable(t, lasting(m, text), file(img), manifest(img))
	}
	text = during(func() { m.verb("pin", cached.uuid).want(t) })
	wantDurable(t, lasting(m, text), m.data("pins"))

	text = during(func() { m.verb("publish", "-m", m.create(published), "-f", abs(t, published.path)).want(t) })
	wantDurable(t, lasting(m, text), file(published), manifest(published), m.data("published"), m.data("published", published.uuid+".json"))
	if !syncedIndex.MatchString(text[strings.LastIndex(text, manifest(published)):]) {
		t.Error("publish: the index was not synced behind the manifest")
	}
	text = during(func() { m.verb("bundle", "import", "-q", bundle).want(t) })
	wantDurable(t, lasting(m, text), file(imported), manifest(imported), m.data("imported"), m.data("imported", imported.uuid+".json"))

	text = during(func() { m.verb("unpublish", published.uuid).want(t) })
	wantDurable(t, lasting(m, text))
	if !syncedIndex.MatchString(text) {
		t.Error("unpublish: the index was not synced")
	}
	text = during(func() { m.verb("delete", deleted.uuid).want(t) })
	wantDurable(t, lasting(m, text), file(deleted))
}
