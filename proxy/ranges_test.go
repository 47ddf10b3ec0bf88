package proxy

import (
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestParseRange(t *testing.T) {
	const size = 1000
	ok := func(header string, start, length int64) {
		t.Helper()
		part, ok, satisfiable := parseRange(header, size)
		if !ok || !satisfiable || part != (span{start, length}) {
			t.Errorf("%q: %+v %v %v, want %d+%d", header, part, ok, satisfiable, start, length)
		}
	}
	ok("bytes=0-0", 0, 1)
	ok("bytes=0-", 0, 1000)
	ok("bytes=0-999", 0, 1000)
	ok("bytes=0-5000", 0, 1000)
	ok("bytes=500-599", 500, 100)
	ok("bytes=999-", 999, 1)
	ok("bytes=-1", 999, 1)
	ok("bytes=-5000", 0, 1000)
	ok("Bytes = 1-2", 1, 2)
	ok("bytes=5-99999999999999999999999999", 5, 995)
	ok("bytes=-99999999999999999999999999", 0, 1000)

	unsatisfiable := func(header string) {
		t.Helper()
		if part, ok, satisfiable := parseRange(header, size); !ok || satisfiable {
			t.Errorf("%q: %+v %v %v", header, part, ok, satisfiable)
		}
	}
	unsatisfiable("bytes=1000-")
	unsatisfiable("bytes=1000-2000")
	unsatisfiable("bytes=-0")
	unsatisfiable("bytes=99999999999999999999999999-")

	ignored := func(header string) {
		t.Helper()
		if part, ok, _ := parseRange(header, size); ok {
			t.Errorf("%q: %+v", header, part)
		}
	}
	ignored("bytes=0-1,5-6") // several: the whole file
	ignored("bytes=5-4")
	ignored("bytes=-")
	ignored("bytes=")
	ignored("bytes")
	ignored("bytes=a-b")
	ignored("bytes=0x1-2")
	ignored("bytes=1 - 2")
	ignored("bytes=--1")
	ignored("bytes=+1-2")
	ignored("lines=0-1")
}

func TestWantedSpan(t *testing.T) {
	modified := time.Date(2014, 5, 6, 7, 8, 9, 500e6, time.UTC)
	v := validators{etag: "abc", modified: modified}
	f := func(wantWhole bool, method string, headers ...string) {
		t.Helper()
		var h fasthttp.RequestHeader
		h.SetMethod(method)
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		part, whole, satisfiable := wantedSpan(&h, 1000, v)
		if whole != wantWhole || !satisfiable {
			t.Errorf("%s %q: whole %v satisfiable %v", method, headers, whole, satisfiable)
		}
		if want := (span{0, 1000}); whole && part != want {
			t.Errorf("%s %q: %+v", method, headers, part)
		}
	}
	f(true, "GET")
	f(false, "GET", "Range", "bytes=1-2")
	f(true, "HEAD", "Range", "bytes=1-2")
	f(false, "GET", "Range", "bytes=1-2", "If-Range", `"abc"`)
	f(false, "GET", "Range", "bytes=1-2", "If-Range", `abc`)
	f(true, "GET", "Range", "bytes=1-2", "If-Range", `W/"abc"`) // weak tags are not good enough for parts
	f(true, "GET", "Range", "bytes=1-2", "If-Range", `"old"`)
	f(true, "GET", "Range", "bytes=1-2", "If-Range", `*`)
	f(false, "GET", "Range", "bytes=1-2", "If-Range", "Tue, 06 May 2014 07:08:09 GMT")
	f(true, "GET", "Range", "bytes=1-2", "If-Range", "Tue, 06 May 2014 07:08:10 GMT")
	f(true, "GET", "Range", "bytes=5000-", "If-Range", `"old"`) // not even a 416
}

func TestContentRange(t *testing.T) {
	if got := (span{500, 100}).contentRange(1000); got != "bytes 500-599/1000" {
		t.Error(got)
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=1-2,3-4", "bytes=99999999999999999999-", "=", "bytes=-0", ""} {
		f.Add(s, int64(1000))
	}
	f.Add("bytes=0-", int64(1))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 || size > 1<<40 {
			return
		}
		part, ok, satisfiable := parseRange(header, size)
		if !ok || !satisfiable {
			return
		}
		if part.start < 0 || part.length < 1 || part.start+part.length > size {
			t.Fatalf("%q of %d bytes: %+v", header, size, part)
		}
	})
}
