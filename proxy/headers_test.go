package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/proxy/catalog"
)

func TestMatchTags(t *testing.T) {
	const tag = "97f2deadbeef"
	f := func(list string, want bool) {
		t.Helper()
		if got := matchTags([]byte(list), tag); got != want {
			t.Errorf("%q: %v", list, got)
		}
	}
	f(`"97f2deadbeef"`, true)
	f(`97f2deadbeef`, true) // as the reference server writes it
	f(`W/"97f2deadbeef"`, true)
	f(`*`, true)
	f(`"a", "97f2deadbeef"`, true)
	f(`"a",W/"b" , 97f2deadbeef`, true)
	f(` , ,"97f2deadbeef",`, true)
	f(`"a,97f2deadbeef"`, false) // one tag with a comma in it
	f(`"a"`, false)
	f(`"*"`, false)
	f(`"97f2deadbee"`, false)
	f(`97f2deadbeef"`, false)
	f(`"97f2deadbeef`, true) // its end is missing; no other tag is meant
	f(``, false)
	f(`,`, false)
	f(`W/`, false)

	if matchTags([]byte(`""`), "") || matchTags([]byte(`W/""`), "") {
		t.Error("an unknown tag matched an empty one")
	}
	if !matchTags([]byte("*"), "") {
		t.Error("* did not match an unknown tag")
	}
}

// Every line of RFC 9110 13.2.2 that a GET can take.
func TestPrecondition(t *testing.T) {
	modified := time.Date(2014, 5, 6, 7, 8, 9, 500e6, time.UTC)
	known := validators{etag: "abc", modified: modified}
	same, before, after := modified.Format(http.TimeFormat), modified.Add(-time.Hour).Format(http.TimeFormat), modified.Add(time.Hour).Format(http.TimeFormat)

	f := func(v validators, want int, headers ...string) {
		t.Helper()
		var h fasthttp.RequestHeader
		for i := 0; i < len(headers); i += 2 {
			h.Add(headers[i], headers[i+1])
		}
		if got := precondition(&h, v); got != want {
			t.Errorf("%q: %d, want %d", headers, got, want)
		}
	}
	f(known, 0)
	f(known, 0, "If-Match", `"abc"`)
	f(known, 0, "If-Match", `*`)
	f(known, 412, "If-Match", `"x", "y"`)
	f(known, 304, "If-None-Match", `"abc"`)
	f(known, 304, "If-None-Match", `abc`)
	f(known, 304, "If-None-Match", `W/"abc"`)
	f(known, 304, "If-None-Match", `"x", "abc"`)
	f(known, 304, "If-None-Match", `*`)
	f(known, 304, "If-None-Match", `"x"`, "If-None-Match", `"abc"`) // in two lines
	f(known, 0, "If-None-Match", `"x"`)
	f(known, 304, "If-Modified-Since", same)
	f(known, 304, "If-Modified-Since", after)
	f(known, 0, "If-Modified-Since", before)
	f(known, 0, "If-Unmodified-Since", same)
	f(known, 0, "If-Unmodified-Since", after)
	f(known, 412, "If-Unmodified-Since", before)
	f(known, 304, "If-Modified-Since", modified.Format(time.RFC850))
	f(known, 304, "If-Modified-Since", modified.Format(time.ANSIC))
	// Tags come before dates.
	f(known, 0, "If-None-Match", `"x"`, "If-Modified-Since", after)
	f(known, 304, "If-None-Match", `"abc"`, "If-Modified-Since", before)
	f(known, 0, "If-Match", `"abc"`, "If-Unmodified-Since", before)
	f(known, 412, "If-Match", `"x"`, "If-None-Match", `"abc"`)
	f(known, 304, "If-Match", `"abc"`, "If-None-Match", `"abc"`)
	f(known, 412, "If-Unmodified-Since", before, "If-None-Match", `"abc"`)
	// What is no date, or has no date to compare with, says nothing.
	f(known, 0, "If-Modified-Since", "yesterday")
	f(known, 0, "If-Unmodified-Since", "yesterday")
	f(validators{etag: "abc"}, 0, "If-Modified-Since", after)
	f(validators{etag: "abc"}, 0, "If-Unmodified-Since", before)
	f(validators{}, 0, "If-None-Match", `"abc"`)
	f(validators{}, 412, "If-Match", `"abc"`)
}

func TestAcceptedEncoding(t *testing.T) {
	f := func(header string, want catalog.Encoding) {
		t.Helper()
		if got := acceptedEncoding([]byte(header)); got != want {
			t.Errorf("%q: %s", header, encodingNames[got])
		}
	}
	for header, name := range map[string]catalog.Encoding{"gzip": catalog.Gzip, "zstd": catalog.Zstd} {
		f(header, name)
		f(strings.ToUpper(header), name)
		f("deflate, "+header+";q=0.5", name)
		f("deflate,"+header+"; q=1.000", name)
		f(header+";level=1;q=0.1", name)
		f(header+";q=0", catalog.Identity)
		f(header+";q=0.000", catalog.Identity)
		f(header+"; Q = 0", catalog.Identity)
		f("identity;q=0.5, "+header+";q=0.4", catalog.Identity)
		f("identity;q=0.5, "+header+";q=0.5", name)
		f(header+";q=x", name)
		f(header+"ped", catalog.Identity)
		f("x-"+header, catalog.Identity)
	}
	f("", catalog.Identity)
	f("identity", catalog.Identity)
	f("*", catalog.Identity)
	f("br, deflate", catalog.Identity)
	f("gzip, zstd", catalog.Zstd)
	f("zstd, gzip", catalog.Zstd)
	f("zstd;q=0.9, gzip", catalog.Gzip)
	f("zstd;q=0.001, gzip;q=0.002", catalog.Gzip)
	f("gzip, deflate, br, zstd", catalog.Zstd)
	f("zstd;q=0, gzip;q=0", catalog.Identity)
	f(",,;,gzip,", catalog.Gzip)
}

func TestRequestID(t *testing.T) {
	f := func(want string, headers ...string) {
		t.Helper()
		var h fasthttp.RequestHeader
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		got := requestID(&h)
		if got != want {
			t.Errorf("%q: %q, want %q", headers, got, want)
		}
	}
	long := string(make([]byte, 129))
	f("abc-1", "x-request-id", "abc-1")
	f("abc-2", "request-id", "abc-2")
	f("abc-1", "x-request-id", "abc-1", "request-id", "abc-2")
	f("abc-2", "x-request-id", "not sane", "request-id", "abc-2")
	f("")
	f("", "x-request-id", "")
	f("", "x-request-id", "two words")
	f("", "x-request-id", "tab\there")
	f("", "x-request-id", "caf\u00e9")
	f("", "x-request-id", long)
}

func TestSaneHost(t *testing.T) {
	f := func(host string, want bool) {
		t.Helper()
		if got := saneHost(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	f("mirror", true)
	f("mirror.example.com:8080", true)
	f("10.0.0.1:8080", true)
	f("[fd00::1]:8080", true)
	f("", false)
	f("a/b", false)
	f("user@host", false)
	f(`a"b`, false)
	f("a b", false)
	f("host?x", false)
	f(string(make([]byte, 300)), false)
}
