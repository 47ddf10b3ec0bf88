package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

var (
	v1List = "[" + string(upstreamtest.ManifestV1(upstreamtest.ID(1), "old", "1.0", nil, []byte("x"))) + "]"
	v2List = "[" + string(upstreamtest.Manifest(upstreamtest.ID(2), "new", "2.0", nil, []byte("y"))) + "]"
)

// paths answers each path with a body, and 404 with HTML elsewhere. A body of the form "> URL" is a redirect,
// and "! STATUS" an error.
func paths(answers map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if to, redirect := strings.CutPrefix(body, "> "); redirect {
			http.Redirect(w, r, to, http.StatusMovedPermanently)
			return
		}
		status := http.StatusOK
		if !ok {
			body, status = "<html><title>404</title></html>", http.StatusNotFound
		}
		if _, err := fmt.Sscanf(body, "! %d", &status); err == nil {
			body = `{"code":"Oops"}`
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func TestDiscovery(t *testing.T) {
	const pong = `{"ping":"pong"}`
	for _, test := range []struct {
		name, url string
		answers   map[string]string
		want      string // kind, or what the error says
	}{
		{"1 imgapi", "/", map[string]string{"/ping": `{"ping":"pong","imgapi":true}`}, "imgapi"},
		{"1 dsapid", "/", map[string]string{"/ping": `{"ping":"pong","imgapi":true,"dsapi":true}`, "/datasets": v1List}, "imgapi"},
		{"1 below a path", "/sub", map[string]string{"/sub/ping": `{"imgapi":true}`}, "imgapi"},
		{"2 dsapi", "/", map[string]string{"/ping": pong}, "dsapi"},
		{"2 with datasets in the url", "/datasets", map[string]string{"/ping": pong}, "dsapi"},
		{"2 not a pong", "/", map[string]string{"/ping": `{"ping":"pang"}`}, "no image server"},
		{"2 ping is a page", "/", map[string]string{"/ping": "<html>Welcome</html>"}, "no image server"},
		{"3 static v1", "/images", map[string]string{"/images": v1List}, "static"},
		{"3 static with a byte order mark", "/", map[string]string{"/": "\ufeff\n" + v1List}, "static"},
		{"3 static behind a redirect", "/x", map[string]string{"/x": "> /x/", "/x/": v1List}, "static"},
		{"3 one object", "/m.json", map[string]string{"/m.json": v1List[1 : len(v1List)-1]}, "static"},
		{"3 an object without uuid", "/m.json", map[string]string{"/m.json": `{"a":1}`}, "no image server"},
		{"3 an array of numbers", "/m.json", map[string]string{"/m.json": `[1,2]`}, "no image server"},
		{"3 static v2", "/list", map[string]string{"/list": v2List}, "static"},
		{"3 then 4: v2 with images", "/", map[string]string{"/": v2List, "/images": v2List}, "imgapi"},
		{"3 mixed is static", "/", map[string]string{"/": v1List[:len(v1List)-1] + "," + v2List[1:], "/images": v2List}, "static"},
		{"4 a v2 tree", "/images", map[string]string{"/images": v2List}, "imgapi"},
		{"4 images only", "/", map[string]string{"/images": v2List}, "imgapi"},
		{"5 datasets only", "/", map[string]string{"/datasets": v1List}, "dsapi"},
		{"5 redirect to images", "/", map[string]string{"/datasets": "> /other/images", "/other/images": v2List}, "imgapi"},
		{"hint: both APIs", "/datasets", map[string]string{"/ping": `{"ping":"pong","imgapi":true,"dsapi":true}`, "/datasets": v1List}, "dsapi"},
		{"hint: imgapi that redirects", "/datasets", map[string]string{"/ping": `{"ping":"pong","imgapi":true}`, "/datasets": "> /images", "/images": v2List}, "imgapi"},
		{"hint: imgapi alone", "/datasets", map[string]string{"/ping": `{"ping":"pong","imgapi":true}`}, "imgapi"},
		{"hint: datasets without ping", "/datasets", map[string]string{"/datasets": v1List}, "dsapi"},
		{"6 nothing", "/", nil, "no image server"},
		{"6 broken for now", "/", map[string]string{"/ping": "! 503", "/datasets": "! 500"}, "503"},
		{"6 ping broken, images there", "/", map[string]string{"/ping": "! 500", "/images": v2List}, "imgapi"},
		{"6 not for us", "/", map[string]string{"/ping": "! 401", "/": "! 401", "/images": "! 401"}, "401"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, Options{URL: serve(t, paths(test.answers)) + test.url})
			if c.Kind() != kindAuto {
				t.Errorf("kind %s before anything was asked", c.Kind())
			}
			v, err := c.resolve(t.Context())
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %s", err, test.want)
				}
				if errors.Is(err, verify.ErrUnavailable) == errors.Is(err, fs.ErrPermission) {
					t.Errorf("error %v matches both or none of unavailable and not permitted", err)
				}
			} else if v.kind != test.want || c.Kind() != test.want {
				t.Errorf("kind %s, Kind %s, want %s", v.kind, c.Kind(), test.want)
			}
		})
	}
}

func TestParsePing(t *testing.T) {
	f := func(doc string, want pingReply) {
		t.Helper()
		if got, ok := parsePing([]byte(doc)); got != want || ok != want.pong {
			t.Errorf("%s: %+v, %v", doc, got, ok)
		}
	}
	f(`{"ping":"pong","imgapi":true}`, pingReply{pong: true, imgapi: true})
	f(`{"imgapi":1}`, pingReply{pong: true, imgapi: true, bare: true})
	f(`{"imgapi":"yes"}`, pingReply{pong: true, imgapi: true, bare: true})
	f(`{"imgapi":{}}`, pingReply{pong: true, imgapi: true, bare: true})
	f("\ufeff {\"ping\":\"pong\",\"imgapi\":0,\"dsapi\":true} ", pingReply{pong: true, dsapi: true})
	f(`{"ping":"pong","imgapi":"","dsapi":null}`, pingReply{pong: true})
	f(`{"ping":"pong","imgapi":false}`, pingReply{pong: true})
	f(`{"ping":"pong"}`, pingReply{pong: true, bare: true})
	for _, doc := range []string{"", "null", "[]", `"pong"`, `{"ping":1}`, `{"ping":"pong"`, "{}"} {
		f(doc, pingReply{})
	}
}

func TestDiscoverySmartOSImageServer(t *testing.T) {
	s := newServer(t, upstreamtest.Options{Dialect: upstreamtest.SmartOSImageServer})
	v, err := newClient(t, Options{URL: s.URL()}).resolve(t.Context())
	if err != nil || v.kind != kindDSAPI || v.dialect != "smartos-image-server" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestDiscoveryOfADeadHostAsksOnce(t *testing.T) {
	var dials atomic.Int32
	c := newClient(t, Options{URL: "http://127.0.0.1:1", dial: func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, &net.OpError{Op: "dial", Err: errors.New("nobody there")}
	}})
	_, err := c.resolve(t.Context())
	if !errors.Is(err, verify.ErrUnavailable) || !retryable(err) {
		t.Errorf("error %v", err)
	}
	if dials.Load() != 1 {
		t.Errorf("%d connects", dials.Load())
	}
}

func TestVerdictIsKeptThenProvedAnew(t *testing.T) {
	var api atomic.Pointer[map[string]string]
	imgapi := map[string]string{"/ping": `{"imgapi":true}`, "/images": v2List}
	api.Store(&imgapi)
	var pings atomic.Int32
	c := newClient(t, Options{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			pings.Add(1)
		}
		paths(*api.Load())(w, r)
	})})
	list := func() (manifest.Listing, error) { return c.List(t.Context(), manifest.Listing{}) }
	for range 2 {
		if l, err := list(); err != nil || l.Kind != kindIMGAPI {
			t.Fatalf("%s, %v", l.Kind, err)
		}
	}
	if pings.Load() != 1 {
		t.Errorf("%d pings for two lists", pings.Load())
	}

	broken := map[string]string{"/images": "! 503"}
	api.Store(&broken)
	for range 4 {
		if _, err := list(); !errors.Is(err, verify.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if pings.Load() != 1 {
		t.Error("asked for its kind because it is down")
	}

	dsapi := map[string]string{"/ping": `{"ping":"pong"}`, "/datasets": v1List}
	api.Store(&dsapi)
	for n := range protocolFailures {
		if _, err := list(); !errors.Is(err, fs.ErrNotExist) || pings.Load() != 1 {
			t.Fatalf("failure %d: %v, %d pings", n, err, pings.Load())
		}
	}
	if l, err := list(); err != nil || l.Kind != kindDSAPI || c.Kind() != kindDSAPI {
		t.Errorf("%s, %v", l.Kind, err)
	}
}

func TestLastKnownKindStaysWhileNobodyAnswers(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	add(t, s, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, []byte("x")), []byte("x"))
	c := newClient(t, Options{URL: s.URL()})
	if _, err := c.List(t.Context(), manifest.Listing{}); err != nil {
		t.Fatal(err)
	}
	s.Inject(upstreamtest.Fault{Path: "/images", Status: 200, Body: "<html>portal</html>"})
	for range protocolFailures {
		if _, err := c.List(t.Context(), manifest.Listing{}); !errors.Is(err, verify.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	s.Stop()
	if v, err := c.resolve(t.Context()); err != nil || v.kind != kindIMGAPI {
		t.Errorf("%+v, %v", v, err)
	}
}
