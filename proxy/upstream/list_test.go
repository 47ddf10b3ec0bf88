package upstream

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// small is a manifest that is small enough to have thousands of them.
func small(n int) []byte {
	return upstreamtest.Manifest(upstreamtest.ID(n), "i", "1", nil, []byte("x"))
}

func smallIDs(from, to int) []uuid.UUID {
	all := []uuid.UUID{}
	for n := from; n < to; n++ {
		all = append(all, upstreamtest.ID(n))
	}
	return all
}

func TestListPaging(t *testing.T) {
	for _, test := range []struct {
		name          string
		dialect       upstreamtest.Dialect
		images, cap   int
		requests      int
		wantValidator bool
	}{
		{"one page", upstreamtest.IMGAPI, 30, 0, 1, true},
		{"none", upstreamtest.IMGAPI, 0, 0, 1, true},
		{"just below a page", upstreamtest.IMGAPI, 999, 1000, 1, true},
		{"exactly a page", upstreamtest.IMGAPI, 1000, 1000, 2, false},
		{"two pages", upstreamtest.IMGAPI, 1500, 1000, 2, false},
		{"two pages of another size", upstreamtest.IMGAPI, 1500, 1200, 2, false},
		{"three pages", upstreamtest.IMGAPI, 2500, 1000, 3, false},
		{"whole at once", upstreamtest.IMGAPI, 2500, 0, 2, true},
		{"a server that ignores markers", upstreamtest.DSAPID, 1500, 0, 2, true},
		{"dsapi has no pages", upstreamtest.DSAPI, 1500, 0, 1, true},
		{"static has no pages", upstreamtest.Static, 1500, 0, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{Dialect: test.dialect, PageCap: test.cap})
			for n := range test.images {
				add(t, s, small(n))
			}
			kind := map[upstreamtest.Dialect]string{upstreamtest.DSAPI: kindDSAPI, upstreamtest.Static: kindStatic}[test.dialect]
			if kind == "" {
				kind = kindIMGAPI
			}
			c := newClient(t, Options{Name: "here", URL: s.URL(), Kind: kind})
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(ids(l.Images), smallIDs(0, test.images)) {
				t.Errorf("%d images, want %d, or in another order", len(l.Images), test.images)
			}
			if l.Source != "here" || l.Kind != kind || l.Fetched.IsZero() {
				t.Errorf("listing of %q, kind %q, at %v", l.Source, l.Kind, l.Fetched)
			}
			if n := s.Count(""); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
			if (l.ETag != "") != test.wantValidator {
				t.Errorf("validator %q", l.ETag)
			}
		})
	}
}

func TestListRequests(t *testing.T) {
	s := newServer(t, upstreamtest.Options{PageCap: 1000})
	for n := range 1001 {
		add(t, s, small(n))
	}
	c := newClient(t, Options{URL: s.URL() + "?channel=dev", Kind: kindIMGAPI, UserAgent: "imgmirror/1.2"})
	if _, err := c.List(t.Context(), manifest.Listing{}); err != nil {
		t.Fatal(err)
	}
	requests := s.Requests()
	for i, want := range []string{
		"channel=dev&state=active",
		"channel=dev&limit=1000&marker=" + upstreamtest.ID(999).String() + "&state=active",
	} {
		if r := requests[i]; r.Path != "/images" || r.Query != want {
			t.Errorf("request %d: %s?%s, want %s", i, r.Path, r.Query, want)
		}
		for k, v := range map[string]string{
			"Accept-Version": "~2", "Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "imgmirror/1.2",
			"Authorization": "",
		} {
			if got := requests[i].Header.Get(k); got != v {
				t.Errorf("%s: %q, want %q", k, got, v)
			}
		}
	}
}

// pages answers /images with the given bodies by request number, then with the last.
func pages(t *testing.T, bodies ...string) *Client {
	t.Helper()
	n := 0
	return newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := bodies[min(n, len(bodies)-1)]
		n++
		if status, ok := strings.CutPrefix(body, "! "); ok {
			code, _ := strconv.Atoi(status)
			w.WriteHeader(code)
			return
		}
		fmt.Fprint(w, body)
	})})
}

// list is a JSON list of small manifests.
func list(from, to int) string {
	var docs [][]byte
	for n := from; n < to; n++ {
		docs = append(docs, small(n))
	}
	return "[" + string(bytes.Join(docs, []byte(","))) + "]"
}

func TestListPagingOfOddServers(t *testing.T) {
	for _, test := range []struct {
		name  string
		pages []string
		want  []uuid.UUID
		fails string
	}{
		{"exclusive marker", []string{list(0, 1000), list(1000, 1200)}, smallIDs(0, 1200), ""},
		{"ties before the marker", []string{list(0, 1000), list(900, 1900), list(1899, 1950)}, smallIDs(0, 1950), ""},
		{"empty second page", []string{list(0, 1000), "[]"}, smallIDs(0, 1000), ""},
		{"the same again and again", []string{list(0, 1100)}, smallIDs(0, 1100), ""},
		{"duplicates in one page", []string{list(0, 5)[:len(list(0, 5))-1] + "," + list(0, 5)[1:]}, smallIDs(0, 5), ""},
		{"marker deleted", []string{list(0, 1000), "! 404", list(1, 1001), list(1000, 1002)}, smallIDs(1, 1002), ""},
		{"marker deleted twice", []string{list(0, 1000), "! 404", list(0, 1000), "! 404"}, nil, "markers vanish"},
		{"second page broken", []string{list(0, 1000), "[{"}, nil, "unavailable"},
		{"second page an object", []string{list(0, 1000), `{"code":"x"}`}, nil, "not a list"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := pages(t, test.pages...).List(t.Context(), manifest.Listing{})
			switch {
			case test.fails == "" && err != nil:
				t.Error(err)
			case test.fails == "" && !slices.Equal(ids(l.Images), test.want):
				t.Errorf("%d images, want %d", len(l.Images), len(test.want))
			case test.fails != "" && (err == nil || errors.Is(err, fs.ErrNotExist) || !errors.Is(err, verify.ErrUnavailable)):
				t.Errorf("error %v, want unavailable: %s", err, test.fails)
			}
		})
	}
}

func TestListThatIsNone(t *testing.T) {
	for _, test := range []struct {
		name, body string
		header     http.Header
	}{
		{"html", "<html>login</html>", nil},
		{"empty", "", nil},
		{"an object", `{"code":"x"}`, nil},
		{"one manifest", string(small(1)), nil},
		{"a string", `"no"`, nil},
		{"cut short", list(0, 3)[:500], nil},
		{"trailing garbage", list(0, 1) + "x", nil},
		{"not modified though not asked", "304", nil},
		{"a part", "206", nil},
		{"no content", "204", nil},
		{"an encoding nobody asked for", list(0, 1), http.Header{"Content-Encoding": {"br"}}},
		{"labelled gzip", list(0, 1), http.Header{"Content-Encoding": {"gzip"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			requests := 0
			c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				for k, v := range test.header {
					w.Header()[k] = v
				}
				if status, err := strconv.Atoi(test.body); err == nil {
					w.WriteHeader(status)
					return
				}
				fmt.Fprint(w, test.body)
			})})
			if _, err := c.List(t.Context(), manifest.Listing{}); !errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
			if requests != 1 {
				t.Errorf("%d requests for something that a retry won't change", requests)
			}
		})
	}
}

func TestListGzip(t *testing.T) {
	s := newServer(t, upstreamtest.Options{Gzip: true})
	for n := range 200 {
		add(t, s, small(n))
	}
	m := NewMetrics(nil, nil)
	c := newClient(t, Options{URL: s.URL(), Metrics: m})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || len(l.Images) != 200 {
		t.Fatalf("%d images, %v", len(l.Images), err)
	}
	if sent := s.Bytes("/images"); sent > int64(len(list(0, 200)))/2 {
		t.Errorf("%d bytes for the list: not compressed", sent)
	}
}

// tooLong is a list of 65 MiB, compressed.
func tooLong(t *testing.T) []byte {
	t.Helper()
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	z.Write([]byte("["))
	space := bytes.Repeat([]byte(" "), 1<<20)
	for range 65 {
		z.Write(space)
	}
	z.Write([]byte("]"))
	z.Close()
	if bomb.Len() > 1<<20 {
		t.Fatalf("the bomb has %d bytes", bomb.Len())
	}
	return bomb.Bytes()
}

func TestListBoundIsOfTheDecodedBody(t *testing.T) {
	bomb := tooLong(t)
	c := newClient(t, Options{Kind: kindIMGAPI, maxList: 64 << 20, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb)
	})})
	_, err := c.List(t.Context(), manifest.Listing{})
	if !errors.Is(err, verify.ErrUnavailable) || !strings.Contains(err.Error(), "more than 67108864 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestListRetries(t *testing.T) {
	for _, test := range []struct {
		name     string
		fault    upstreamtest.Fault
		requests int
		match    error // nil: succeeds
	}{
		{"500 three times", upstreamtest.Fault{Status: 500, Times: 3}, 4, nil},
		{"500 for good", upstreamtest.Fault{Status: 500}, 4, verify.ErrUnavailable},
		{"503 once", upstreamtest.Fault{Status: 503, Times: 1}, 2, nil},
		{"404", upstreamtest.Fault{Status: 404}, 1, fs.ErrNotExist},
		{"410", upstreamtest.Fault{Status: 410}, 1, fs.ErrNotExist},
		{"401", upstreamtest.Fault{Status: 401}, 1, fs.ErrPermission},
		{"403", upstreamtest.Fault{Status: 403}, 1, fs.ErrPermission},
		{"302 to nowhere", upstreamtest.Fault{Status: 302}, 1, verify.ErrUnavailable},
		{"no answer twice", upstreamtest.Fault{Drop: true, Times: 2}, 3, nil},
		{"cut twice", upstreamtest.Fault{Cut: true, After: 100, Times: 2}, 3, nil},
		{"cut without a length", upstreamtest.Fault{Cut: true, After: 100, Chunked: true, Times: 1}, 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{})
			add(t, s, small(1))
			s.Inject(test.fault)
			c := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI})
			_, err := c.List(t.Context(), manifest.Listing{})
			if !errors.Is(err, test.match) {
				t.Errorf("error %v, want %v", err, test.match)
			}
			for _, other := range []error{verify.ErrUnavailable, fs.ErrNotExist, fs.ErrPermission} {
				if other != test.match && errors.Is(err, other) {
					t.Errorf("error %v matches %v", err, other)
				}
			}
			if n := s.Count("/images"); n < test.requests || n > test.requests && !test.fault.Drop {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
}

func TestListOther4xxIsPlain(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	s.Inject(upstreamtest.Fault{Status: 422})
	_, err := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI}).List(t.Context(), manifest.Listing{})
	if err == nil || errors.Is(err, verify.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v", err)
	}
	if s.Count("") != 1 {
		t.Errorf("%d requests", s.Count(""))
	}
}

func TestListOfASourceThatRefusesOurVersion(t *testing.T) {
	var versions []string
	c := newClient(t, Options{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		versions = append(versions, r.Header.Get("Accept-Version"))
		if r.Header.Get("Accept-Version") != "" {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"code":"InvalidVersion","message":"~2 is not supported"}`)
			return
		}
		paths(map[string]string{"/ping": `{"imgapi":true}`, "/images": v2List})(w, r)
	})})
	for range 2 {
		if l, err := c.List(t.Context(), manifest.Listing{}); err != nil || len(l.Images) != 1 {
			t.Fatalf("%d images, %v", len(l.Images), err)
		}
	}
	if !slices.Equal(versions, []string{"~2", "", "", ""}) {
		t.Errorf("Accept-Version %q", versions)
	}
}

func TestListNotModified(t *testing.T) {
	for _, dialect := range []upstreamtest.Dialect{upstreamtest.IMGAPI, upstreamtest.DSAPI, upstreamtest.Static} {
		t.Run(string(dialect), func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{Dialect: dialect})
			add(t, s, small(1))
			c := newClient(t, Options{URL: s.URL()})
			first, err := c.List(t.Context(), manifest.Listing{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := c.List(t.Context(), first)
			if !errors.Is(err, manifest.ErrNotModified) {
				t.Fatalf("error %v", err)
			}
			if !slices.Equal(ids(again.Images), ids(first.Images)) || again.ETag != first.ETag || again.Fetched.Before(first.Fetched) {
				t.Errorf("what comes with it is not prev: %+v", again)
			}
			add(t, s, small(2))
			second, err := c.List(t.Context(), first)
			if err != nil || len(second.Images) != 2 {
				t.Errorf("%d images, %v", len(second.Images), err)
			}
			other := second
			other.Kind = "other"
			if _, err := c.List(t.Context(), other); err != nil {
				t.Errorf("validators of another kind were sent: %v", err)
			}
		})
	}
}

func TestListByDate(t *testing.T) {
	const date = "Wed, 21 Oct 2015 07:28:00 GMT"
	c := newClient(t, Options{Kind: kindDSAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", date)
		if r.Header.Get("If-Modified-Since") == date {
			w.WriteHeader(304)
			return
		}
		fmt.Fprint(w, v1List)
	})})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || l.LastModified != date {
		t.Fatalf("%q, %v", l.LastModified, err)
	}
	if _, err := c.List(t.Context(), l); !errors.Is(err, manifest.ErrNotModified) {
		t.Errorf("error %v", err)
	}
}

func TestEmptyListTwoStrikes(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	c := newClient(t, Options{URL: s.URL()})
	if l, err := c.List(t.Context(), manifest.Listing{}); err != nil || len(l.Images) != 0 {
		t.Fatalf("empty from the start: %v", err)
	}
	add(t, s, small(1))
	full, err := c.List(t.Context(), manifest.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	s.Remove(upstreamtest.ID(1))
	strike := func() error {
		_, err := c.List(t.Context(), full)
		return err
	}
	if err := strike(); !errors.Is(err, verify.ErrUnavailable) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("first time: %v", err)
	}
	add(t, s, small(1))
	if err := strike(); !errors.Is(err, manifest.ErrNotModified) {
		t.Fatal(err)
	}
	s.Remove(upstreamtest.ID(1))
	if err := strike(); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("first time again: %v", err)
	}
	s.Inject(upstreamtest.Fault{Status: 404, Times: 1})
	if err := strike(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failure between: %v", err)
	}
	if err := strike(); err != nil {
		t.Errorf("second success in a row: %v", err)
	}
}

func TestListKeepsUnlistedOfPrev(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	add(t, s, small(1))
	prev := manifest.Listing{Unlisted: []manifest.Manifest{parse(t, small(7))}}
	l, err := newClient(t, Options{URL: s.URL()}).List(t.Context(), prev)
	if err != nil || !slices.Equal(ids(l.Unlisted), smallIDs(7, 8)) {
		t.Errorf("%v, %v", ids(l.Unlisted), err)
	}
}

// Refusals are counted exactly, whatever pages overlap, and those of named images tell whose they are.
func TestListRefusals(t *testing.T) {
	refused := func(n int) []byte { return []byte(fmt.Sprintf(`{"v":2,"uuid":%q}`, upstreamtest.ID(n))) }
	for _, test := range []struct {
		name    string
		kind    string
		dialect upstreamtest.Dialect
		images  int
		cap     int
	}{
		{"one page", kindIMGAPI, upstreamtest.IMGAPI, 30, 0},
		{"pages", kindIMGAPI, upstreamtest.IMGAPI, 2500, 1000},
		{"a server that ignores markers", kindIMGAPI, upstreamtest.DSAPID, 1500, 0},
		{"a static list", kindStatic, upstreamtest.Static, 30, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{Dialect: test.dialect, PageCap: test.cap})
			for n := range test.images {
				if n%10 == 5 {
					add(t, s, refused(n))
				} else {
					add(t, s, small(n))
				}
			}
			c := newClient(t, Options{URL: s.URL(), Kind: test.kind})
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil {
				t.Fatal(err)
			}
			if want := test.images / 10; l.Refusals.Refused != want || l.Refusals.Skipped != 0 || len(l.Images) != test.images-want {
				t.Errorf("%d refused, %d skipped, %d images; want %d refused", l.Refusals.Refused, l.Refusals.Skipped, len(l.Images), want)
			}
			if f, ok := l.Refusals.Of(upstreamtest.ID(5)); !ok || !strings.Contains(f.Reason, "name") {
				t.Errorf("of image 5: %+v", f)
			}
		})
	}
}

// An image without a date has that of the answer that it came in: on a list, a page, by uuid.
func TestDateOfTheAnswer(t *testing.T) {
	image := `{"v":2,"uuid":"` + upstreamtest.ID(1).String() + `","name":"n","version":"1","type":"other","os":"other"}`
	for _, answer := range []struct{ modified, want string }{
		{"Fri, 02 Jan 2026 03:04:05 GMT", "2026-01-02T03:04:05Z"}, {"", "1970-01-01T00:00:00Z"}, {"yesterday", "1970-01-01T00:00:00Z"},
	} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if answer.modified != "" {
				w.Header().Set("Last-Modified", answer.modified)
			}
			if strings.HasSuffix(r.URL.Path, upstreamtest.ID(1).String()) {
				fmt.Fprint(w, image)
			} else {
				fmt.Fprint(w, "["+image+"]")
			}
		})
		for _, kind := range []string{kindIMGAPI, kindDSAPI, kindStatic} {
			c := newClient(t, Options{URL: url, Kind: kind})
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil {
				t.Fatal(err)
			}
			m, err := c.Get(t.Context(), upstreamtest.ID(1))
			if err != nil {
				t.Fatal(err)
			}
			want := []byte(`"published_at":"` + answer.want + `"`)
			if !bytes.Contains(l.Images[0].V2(), want) || !bytes.Contains(m.V2(), want) {
				t.Errorf("%s, %q: listed %s, by uuid %s", kind, answer.modified, l.Images[0].V2(), m.V2())
			}
		}
	}
}

func TestListLogsWhatIsLeftOutOnce(t *testing.T) {
	var log bytes.Buffer
	bad := `{"v":2,"uuid":"` + upstreamtest.ID(9).String() + `"}`
	vm := string(upstreamtest.ManifestV1(upstreamtest.ID(8), "vm", "1", map[string]any{"type": "vmimage"}, []byte("x")))
	c := newClient(t, Options{
		Kind: kindIMGAPI, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		URL: serve(t, paths(map[string]string{"/images": "[" + bad + "," + vm + "," + v2List[1:]})),
	})
	for range 3 {
		if l, err := c.List(t.Context(), manifest.Listing{}); err != nil || len(l.Images) != 1 {
			t.Fatalf("%d images, %v", len(l.Images), err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), upstreamtest.ID(9).String()) {
		t.Errorf("log:\n%s", &log)
	}
}
