package proxy

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/cache"
	"imgmirror/proxy/mirror"
)

// holdDigests keeps the store's followers (cache/follow.go) from hashing until the result is called.
func holdDigests(t *testing.T, s *cache.Store) (release func()) {
	t.Helper()
	field := reflect.ValueOf(s).Elem().FieldByName("followers")
	followers := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	var held []reflect.Value
	for range followers.Cap() {
		buf, _ := followers.Recv()
		held = append(held, buf)
	}
	release = sync.OnceFunc(func() {
		for _, buf := range held {
			followers.Send(buf)
		}
	})
	t.Cleanup(release)
	return release
}

// A file that has been found right and has no record yet is sent with its md5, for which the reply waits. A part of the
// file does not wait, and a client that hangs up ends its own wait alone.
func TestWaitForMD5(t *testing.T) {
	content := noise(300_000)
	f, g := withStore(t, content, "")
	release := holdDigests(t, f.options.Files.(mirror.Files).Store.(*cache.Store))
	g.pass(200_000)
	f.start()
	first := f.dial()
	if _, err := fmt.Fprintf(first, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", filePath); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(first)
	if _, err := reader.Peek(1); err != nil { // the header comes before the verdict
		t.Fatal(err)
	}
	g.pass(len(content))
	if r := f.read(reader, "GET"); r.status != 200 || r.body != string(content) || r.header.Get("Content-MD5") != "" {
		t.Fatalf("the download: %d, %d bytes, %v", r.status, len(r.body), r.header)
	}
	r := f.get(filePath, "Range: bytes=10-19")
	if r.status != 206 || r.body != string(content[10:20]) || r.header.Get("Content-MD5") != "" || r.header.Get("X-Cache") != "JOIN" {
		t.Errorf("a part: %d, %q, %v", r.status, r.body, r.header)
	}

	m := f.server.metrics
	ask := func(waiting float64) io.ReadWriteCloser {
		t.Helper()
		c := f.dial()
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", filePath); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the reply to wait for the md5", func() bool { return testutil.ToFloat64(m.waiting) == waiting })
		return c
	}
	stays, leaves := ask(1), ask(2)
	leaves.Close()
	waitFor(t, "the wait to end", func() bool { return testutil.ToFloat64(m.waiting) == 1 })
	if lines := f.log.requests(t, 3); lines[2]["status"] != 499.0 {
		t.Errorf("the line of the client that left: %v", lines[2])
	}
	if left := testutil.ToFloat64(m.left); left != 1 {
		t.Errorf("%v clients have left", left)
	}

	release()
	r = f.read(bufio.NewReader(stays), "GET")
	if r.status != 200 || r.body != string(content) || r.header.Get("Content-MD5") != md5Base64(content) {
		t.Errorf("after the wait: %d, %d bytes, %v", r.status, len(r.body), r.header)
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the source was asked %d times", n)
	}
}
