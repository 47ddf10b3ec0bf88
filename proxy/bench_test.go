package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/nodes"
)

// benchmark sends the same request over and over on one connection.
func benchmark(b *testing.B, f *fixture, request string) {
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReaderSize(c, 256<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(c, request); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
	}
}

func benchFixture(b *testing.B, manifests ...string) *fixture {
	f := newFixture(b, manifests...)
	f.options.Logger = slog.New(slog.DiscardHandler)
	f.options.AccessLog = accessLog(b, io.Discard)
	return f
}

func BenchmarkManifest(b *testing.B) {
	f := benchFixture(b, image{uuid: id(1), content: []byte("x")}.v2())
	benchmark(b, f.start(), "GET /images/"+id(1)+" HTTP/1.1\r\nHost: m\r\nAccept-Version: ~2\r\n\r\n")
}

func BenchmarkNotModified(b *testing.B) {
	f := benchFixture(b, image{uuid: id(1), content: []byte("x")}.v2())
	view, _ := f.options.Catalog.Current().View(manifest.AllChannels)
	_, etag := view.JSON(false)
	benchmark(b, f.start(), fmt.Sprintf("GET /images HTTP/1.1\r\nHost: m\r\nIf-None-Match: %q\r\n\r\n", etag))
}

func BenchmarkList(b *testing.B) {
	var manifests []string
	for i := range 1000 {
		manifests = append(manifests, image{uuid: id(i), content: []byte("x")}.v2())
	}
	benchmark(b, benchFixture(b, manifests...).start(), "GET /images HTTP/1.1\r\nHost: m\r\n\r\n")
}

func BenchmarkHit(b *testing.B) {
	content := noise(64 << 20)
	f := benchFixture(b, image{uuid: id(1), content: content}.v2())
	g := newGate(content)
	g.pass(len(content))
	f.source.file = g.file
	store, err := cache.Open(b.Context(), cache.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	f.options.Files = mirror.Files{Store: store}
	f.start()
	f.get(filePath)
	waitFor(b, "the file to be published", func() bool { return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT" })
	benchmark(b, f, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n")
}

// The end of a request takes no memory: metrics, the journal of nodes and the access log have room of their own.
func TestFinishAllocatesNothing(t *testing.T) {
	f := newFixture(t)
	f.options.Nodes = nodes.New(nodes.Options{Limits: nodes.Limits{Keep: time.Hour, Max: 100}})
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	r := &record{
		start: time.Now(), route: routeImage, method: "GET", path: "/images/" + id(1), status: 200,
		remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4711}, id: id(2), agent: "imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u)",
	}
	if n := testing.AllocsPerRun(1000, func() { s.finish(r, 1234, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
