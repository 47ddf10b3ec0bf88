package proxy

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgmirror/proxy/eventloop"
)

// byHand is a connection without an event loop: the test calls the loop's Answer.
func byHand(t testing.TB, f *fixture) (*atOnce, *eventloop.Conn) {
	t.Helper()
	f.options.Logger = nil
	d := newDirect(t, f)
	c := eventloop.NewConn(d.conn.(*net.TCPConn))
	if _, ok, _ := d.server.conns.add(c); !ok {
		t.Fatal("the connection was refused")
	}
	return newAtOnce(d.server), c
}

// A reply with the header of another one is noted as any other.
func TestAgainIsNoted(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2())
	a, c := byHand(t, f)
	for line, want := range map[string]record{
		"/ping":                           {route: routePing, path: "/ping", status: 200},
		"/images":                         {route: routeImages, path: "/images", status: 200},
		"/images/" + id(1):                {route: routeImage, path: "/images/" + id(1), status: 200},
		"/images\r\nIf-None-Match: *\r\n": {route: routeImages, path: "/images", status: 304},
	} {
		target, header, _ := strings.Cut(line, "\r\n")
		var first []byte
		for n := range 3 {
			r := a.answer(c, []byte("GET "+target+" HTTP/1.1\r\nHost: m\r\n"+header+"\r\n"))
			got := a.server.conns.client(c).record
			if r.Then != eventloop.Wait || got.route != want.route || got.path != want.path || got.status != want.status || got.remote == nil || len(got.id) != idLength {
				t.Errorf("%s, reply %d: then %v, noted as %+v", line, n, r.Then, got)
			}
			if !bytes.Contains(r.Bytes, []byte("\r\nX-Request-Id: "+got.id+"\r\n")) {
				t.Errorf("%s, reply %d: %s", line, n, r.Bytes)
			}
			if n == 0 {
				first = bytes.Clone(r.Bytes)
			} else if len(r.Bytes) != len(first) {
				t.Errorf("%s, reply %d: %s, want\n%s", line, n, r.Bytes, first)
			}
		}
	}
}

// A header is not sent again where it does not suit the request.
func TestAgainWhere(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2())
	a, c := byHand(t, f)
	s := a.server
	const get = "GET /ping HTTP/1.1\r\nHost: m\r\n\r\n"
	a.answer(c, []byte(get))
	for _, test := range []struct {
		name, request, id string
		change            func(req *request)
		took              string // of the reply; "" = there is none
	}{
		{"as it is", get, "", func(*request) {}, "0"},
		{"a chosen id as long as ours", get, strings.Repeat("i", idLength), func(*request) {}, "0"},
		{"after 5 ms", get, "", func(req *request) { req.record.start = time.Now().Add(-5 * time.Millisecond) }, "5"},
		{"after 10 ms", get, "", func(req *request) { req.record.start = time.Now().Add(-10 * time.Millisecond) }, ""},
		{"a short id", get, "mine", func(*request) {}, ""},
		{"the last reply", get, "", func(req *request) { req.last = true }, ""},
		{"HEAD", "HEAD" + get[3:], "", func(*request) {}, ""},
		{"draining", get, "", func(*request) { s.conns.draining.Store(true) }, ""},
	} {
		a.ctx.Init2(c, nil, false)
		a.ctx.Request.Reset()
		if err := a.ctx.Request.Header.Read(bufio.NewReader(strings.NewReader(test.request))); err != nil {
			t.Fatal(err)
		}
		found, _ := wellFormed(&a.ctx)
		req := s.noted(&a.ctx, test.id)
		q, ok := s.quickReply(req, &found)
		if !ok {
			t.Fatal(test.name)
		}
		test.change(req)
		a.out.Reset()
		if got := a.again(req, &q); got != (test.took != "") {
			t.Errorf("%s: sent again %v", test.name, got)
			continue
		}
		if test.took == "" {
			if a.out.Len() > 0 {
				t.Errorf("%s: %s", test.name, a.out.Bytes())
			}
			continue
		}
		r, err := http.ReadResponse(bufio.NewReader(&a.out), nil)
		if err != nil {
			t.Fatal(err)
		}
		took, err := strconv.Atoi(r.Header.Get("X-Response-Time"))
		if least, _ := strconv.Atoi(test.took); err != nil || took < least {
			t.Errorf("%s: X-Response-Time is %q", test.name, r.Header.Get("X-Response-Time"))
		}
		if id := r.Header.Get("X-Request-Id"); test.id != "" && id != test.id {
			t.Errorf("%s: X-Request-Id is %q", test.name, id)
		}
	}
}

func TestHTTPClock(t *testing.T) {
	var c httpClock
	at := time.Date(2026, 11, 30, 23, 59, 59, 999_999_999, time.UTC)
	for _, after := range []time.Duration{0, 1, time.Second, time.Hour, -time.Hour} {
		now := at.Add(after)
		if got, want := string(c.at(now)), now.Format(http.TimeFormat); got != want || len(got) != dateLength {
			t.Errorf("%v: %q, want %q", now, got, want)
		}
	}
}
