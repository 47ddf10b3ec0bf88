package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// direct gives requests to a server's handler, as the server's own loop does, over a connection that carries
// nothing.
type direct struct {
	server *Server
	conn   net.Conn
	far    net.Conn // the client's end
	ctx    fasthttp.RequestCtx
	in     bytes.Reader
	buf    *bufio.Reader
}

func newDirect(t testing.TB, f *fixture) *direct {
	t.Helper()
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); near.Close() })
	d := &direct{server: s, conn: near, far: far}
	d.buf = bufio.NewReader(&d.in)
	if _, ok, _ := s.conns.add(near); !ok {
		t.Fatal("the connection was refused")
	}
	d.ctx.Init2(near, nil, false)
	return d
}

// read takes a request in.
func (d *direct) read(t testing.TB, request []byte) {
	d.in.Reset(request)
	d.buf.Reset(&d.in)
	if err := d.ctx.Request.Header.Read(d.buf); err != nil {
		t.Fatal(err)
	}
}

// done forgets a reply.

func (d *direct) done() {
	d.server.conns.changed(d.conn, fasthttp.StateIdle)
	d.ctx.Request.Reset()
	d.ctx.Response.Reset()
}

// tagOfList is the validator of the whole list in an encoding.
func tagOfList(f *fixture, e catalog.Encoding) string {
	view, _ := f.options.Catalog.Current().View(f.options.Catalog.Current().DefaultChannel())
	return view.Reply(false, e).ETag
}

// The requests that nearly all clients send allocate nothing but the ids of requests: one piece of memory for
// sixteen of them.
func TestAllocations(t *testing.T) {
	var manifests []string
	for i := range 100 {
		manifests = append(manifests, image{uuid: id(i), content: []byte("x")}.v2())
	}
	f := newFixture(t, manifests...)
	f.options.Logger = nil
	d := newDirect(t, f)
	for _, line := range []string{
		"GET /ping", "HEAD /ping", "GET /images", "HEAD /images", "GET /images\r\nAccept-Encoding: gzip",
		"GET /images\r\nAccept-Encoding: br;q=1.0, zstd;q=0.5", "GET /images\r\nAccept-Version: ~2\r\nIf-None-Match: \"" + tagOfList(f, catalog.Identity) + "\"",
		"GET /images\r\nAccept-Encoding: gzip\r\nIf-None-Match: \"" + tagOfList(f, catalog.Gzip) + "\"",
		"GET /images/" + id(7), "HEAD /images/" + id(7), "GET /images/" + id(7) + "\r\nIf-None-Match: *",
	} {
		target, headers, _ := strings.Cut(line, "\r\n")
		if headers != "" {
			headers += "\r\n"
		}
		request := []byte(target + " HTTP/1.1\r\nHost: mirror\r\nUser-Agent: imgadm\r\n" + headers + "\r\n")
		perSixteen := testing.AllocsPerRun(50, func() {
			for range idsAtOnce {
				d.read(t, request)
				d.server.handle(&d.ctx)
				d.done()
			}
		})
		if perSixteen > 1 {
			t.Errorf("%q: %v allocations for %d requests, want the one for their ids", line, perSixteen, idsAtOnce)
		}
	}
}

// quick and the general way of dispatch answer with the same bytes, whatever headers come along.
func TestQuick(t *testing.T) {
	big := image{uuid: id(3), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", 2*smallBody) + `"`}
	for name, o := range map[string]catalog.Options{
		"no channels": {},
		"channels":    {Channels: []catalog.Channel{{Name: "dev", Default: true}, {Name: "staging"}}},
		"no default":  {Channels: []catalog.Channel{{Name: "dev"}}},
	} {
		f := newFixtureWith(t, o, image{uuid: id(1), content: []byte("x"), extra: `,"channels":["dev"]`}.v2(),
			image{uuid: id(2), content: []byte("x"), extra: `,"channels":["staging"]`}.v2(), big.v2())
		d := newDirect(t, f)
		paths := []string{"/ping", "/images", "/images/" + id(1), "/images/" + id(2), "/images/" + id(3), "/images/" + id(4), "/images/" + strings.ToUpper(id(1)), "/"}
		var tags []string
		if view, ok := f.options.Catalog.Current().View(manifest.AllChannels); ok {
			tags = append(tags, view.Reply(false, catalog.Identity).ETag, view.Reply(false, catalog.Gzip).ETag, view.Reply(true, catalog.Zstd).ETag)
		}
		headers := []string{"", "X-Request-Id: abc\r\n", "Via: 1.1 x\r\n", "If-Match: *\r\n", "If-Match: \"no\"\r\n", "Range: bytes=0-1\r\n",
			"If-Modified-Since: Sun, 06 Nov 2044 08:49:37 GMT\r\n", "Connection: close\r\n", "if-none-match: *\r\n", "If-None-Match: W/\"x\", \"y\"\r\n",
			"If-None-Match: a\r\nIf-None-Match: *\r\n", "If-None-Match:\r\n", "Accept-Encoding: gzip\r\nAccept-Encoding: zstd\r\n",
			"Accept-Encoding:\r\nAccept-Encoding: gzip\r\n", "Accept-Version: \r\nAccept-Version: ~2\r\n"}
		for _, tag := range tags {
			headers = append(headers, "If-None-Match: \""+tag+"\"\r\n", "If-None-Match: "+tag+"\r\n")
		}
		quick := 0
		for _, path := range paths {
			for _, method := range []string{"GET", "HEAD"} {
				for _, version := range []string{"", "~1", "~2", "*", ">=1.0.0", "~9"} {
					for _, encoding := range []string{"", "gzip", "zstd , gzip;q=0.5", "identity"} {
						for _, header := range headers {
							lines := header
							if version != "" {
								lines += "Accept-Version:  " + version + " \r\n"
							}
							if encoding != "" {
								lines += "accept-encoding: " + encoding + "\r\n"
							}
							text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: m\r\n%s\r\n", method, path, lines)
							short, ok := d.reply(t, text, d.server.quick)
							if !ok {
								continue
							}
							quick++
							long, _ := d.reply(t, text, func(req *request, _ *head) bool {
								if err := d.server.dispatch(req, &head{odd: true}); err != nil {
									d.server.sendError(req, err)
								}
								return true
							})
							if short != long {
								t.Errorf("%s: %s: quick says\n%.600s\nand the general way\n%.600s", name, text, short, long)
							}
						}
					}
				}
			}
		}
		if quick == 0 {
			t.Errorf("%s: no reply was quick", name)
		}
	}
}

// reply is what by answers, without what differs from reply to reply.
func (d *direct) reply(t testing.TB, text string, by func(*request, *head) bool) (reply string, ok bool) {
	t.Helper()
	d.read(t, []byte(text))
	defer d.done()
	found, refused := wellFormed(&d.ctx)
	if refused != nil {
		t.Fatal(refused)
	}
	req := d.server.newRequest(&d.ctx, requestID(&d.ctx.Request.Header))
	d.server.conns.begin(req.client)
	if !by(req, &found) {
		return "", false
	}
	d.server.finishHeader(req)
	r := req.record
	facts := fmt.Sprintf("%s %s %s %d %s %d", r.route.name, r.method, r.path, r.status, r.cache, req.bodySize())
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	d.ctx.Response.SkipBody = d.ctx.IsHead()
	if err := d.ctx.Response.Write(w); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	return facts + "\n" + ofOneReply.ReplaceAllString(b.String(), "$1"), true
}

// ofOneReply are the headers with which the same reply differs.
var ofOneReply = regexp.MustCompile(`(?m)^(X-Request-Id|Date|X-Response-Time): .*$`)
