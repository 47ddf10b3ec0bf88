package proxy

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// What a server in front of this one may read in another way is refused, and
// nothing that follows on the connection is read as a request. What old and simple
// clients send is taken.
func TestWellFormed(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2())
	f.start()
	const next = "GET /images/no-such HTTP/1.1\r\nHost: smuggled\r\n\r\n"
	send := func(text string) (statuses []int) {
		t.Helper()
		c := f.dial()
		defer c.Close()
		if _, err := io.WriteString(c, text+next); err != nil {
			t.Fatal(err)
		}
		for br := bufio.NewReader(c); ; {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				return statuses
			}
			_, _ = io.Copy(io.Discard, resp.Body) // the status counts
			statuses = append(statuses, resp.StatusCode)
			if resp.StatusCode == 404 || resp.Close {
				return statuses
			}
		}
	}
	refused := func(status int, text string) {
		t.Helper()
		if got := send(text); len(got) != 1 || got[0] != status {
			t.Errorf("%q: %v, want %d and the end", text, got, status)
		}
	}
	taken := func(text string) {
		t.Helper()
		if got := send(text); len(got) == 0 || got[0] != 200 || len(got) == 2 && got[1] != 404 {
			t.Errorf("%q: %v, want 200", text, got)
		}
	}
	for _, version := range []string{"HTTP/9.9", "HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"} {
		refused(505, "GET /ping "+version+"\r\nHost: m\r\n\r\n")
	}
	for _, line := range []string{"GET /ping", "GET /ping http/1.1", "GET /ping HTTP/11", "GET /ping HTTP/1.1 ", "GET  /ping HTTP/1.1", "GET /ping XTTP/1.1", "GET\t/ping HTTP/1.1"} {
		refused(400, line+"\r\nHost: m\r\n\r\n")
	}
	refused(400, "GET /ping HTTP/1.1\r\n\r\n")
	for _, header := range []string{
		"Host: m\n", "Host: m\nAccept: a\r\n", "Host: m\r\nAccept: a\n", "Host: m\r\nAccept: a\n\r\n",
		"Host: m\r\nX: a\r\n b\r\n", "Host: m\r\nX: a\r\n\tb\r\n", " Host: m\r\n", "Host: m\r\n X: a\r\n",
		"Host : m\r\n", "Host: m\r\nX : a\r\n", "Host: m\r\nX\t: a\r\n", "Host: m\r\nX y: a\r\n", "Host: m\r\n: a\r\n", "Host: m\r\nX\r\n",
		"Host: m\r\nX(: a\r\n", "Host: m\r\nX\x00: a\r\n", "Host: m\r\nX\x80: a\r\n",
		"Host: m\r\nX: a\x00b\r\n", "Host: m\r\nX: a\x01b\r\n", "Host: m\r\nX: a\x7fb\r\n", "Host: m\r\nX: a\rb\r\n", "Host: m\r\nX: a\r\r\n",
		"Host: m\r\nHost: m\r\n", "Host: m\r\nhost: other\r\n",
		"Host: m\r\nContent-Length: 0\r\nContent-Length: 0\r\n", "Host: m\r\nContent-Length: 0, 0\r\n", "Host: m\r\nContent-Length: +0\r\n",
		"Host: m\r\nContent-Length: -1\r\n", "Host: m\r\nContent-Length: 0x0\r\n", "Host: m\r\nContent-Length: \r\n",
		"Host: m\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", "Host: m\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
		"Host: m\r\nTransfer-Encoding: chunked\r\n", "Host: m\r\nTransfer-Encoding: identity\r\n", "Host: m\r\nTransfer-Encoding: xchunked\r\n",
		"Host: m\r\nTransfer-Encoding: gzip, chunked\r\n", "Host: m\r\ntransfer-encoding:\tchunked\r\n",
	} {
		refused(400, "GET /ping HTTP/1.1\r\n"+header+"\r\n")
		refused(400, "HEAD /ping HTTP/1.1\r\n"+header+"\r\n")
	}
	refused(400, "POST /images HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	refused(400, "GET /ping HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
	refused(400, "GET /ping HTTP/1.1\nHost: m\n\n")

	for _, header := range []string{
		"", "Accept: application/json\r\nAccept-Version: ~2\r\nDate: x\r\nConnection: keep-alive\r\n", "X:\r\n", "X: \r\n", "X: \t a \t \r\n",
		"X: \xc3\xa9\r\n", "Content-Length: 0\r\n", "user-agent: restify/1.4.1 (ia32-sunos; v8/3.14; OpenSSL/1.0.1i) node/0.10.26\r\n", "!#$%&'*+-.^_`|~: a\r\n",
		"X: " + strings.Repeat("a", 4000) + "\r\n",
	} {
		taken("GET /ping HTTP/1.1\r\nHost: m\r\n" + header + "\r\n")
		taken("GET /ping HTTP/1.0\r\nHost: m\r\n" + header + "\r\n")
		taken("GET /ping HTTP/1.0\r\n" + header + "\r\n")
	}
	taken("\r\nGET /ping HTTP/1.1\r\nHost: m\r\n\r\n")
	taken("GET http://other/ping HTTP/1.1\r\nHost: m\r\n\r\n")
}

func BenchmarkWellFormed(b *testing.B) {
	var ctx fasthttp.RequestCtx
	text := "GET /images/x/file HTTP/1.1\r\nHost: mirror:8080\r\naccept: application/octet-stream\r\naccept-version: ~2\r\n" +
		"user-agent: restify/1.4.1 (ia32-sunos; v8/3.14; OpenSSL/1.0.1i) node/0.10.26\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n" +
		"x-request-id: 4a1b4c5d-0000-4000-8000-000000000000\r\nconnection: keep-alive\r\n\r\n"
	if err := ctx.Request.Header.Read(bufio.NewReader(strings.NewReader(text))); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wellFormed(&ctx); err != nil {
			b.Fatal(err)
		}
	}
}
