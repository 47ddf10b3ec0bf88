package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// joined is the array of the forms of images.
func joined(images []manifest.Manifest, form func(manifest.Manifest) []byte) string {
	var forms [][]byte
	for _, m := range images {
		if b := form(m); len(b) > 0 {
			forms = append(forms, b)
		}
	}
	return "[" + string(bytes.Join(forms, []byte(",\n"))) + "]"
}

// datasetsOf is the DSAPI list of images, for clients that ask base.
func datasetsOf(images []manifest.Manifest, base, channel string) string {
	return joined(images, func(m manifest.Manifest) []byte {
		if !m.DSAPIVisible() {
			return nil
		}
		return m.V1(base, channel)
	})
}

// A list is built once for all bases, and sent as if it were built for each.
func TestListForEachHost(t *testing.T) {
	f := several(t)
	f.start()
	images := f.options.Catalog.Current().Images()
	tags := make(map[string]string)
	for _, host := range []string{"m", "mirror:8080", "[fd00::1]:8080", strings.Repeat("a", 255), "z"} {
		want := datasetsOf(images, "http://"+host, "")
		r := f.get("/datasets", "Host: "+host)
		if r.status != 200 || r.body != want || r.header.Get("Content-Length") != fmt.Sprint(len(want)) {
			t.Errorf("%s: %d, %d bytes, want %d", host, r.status, len(r.body), len(want))
		}
		etag := r.header.Get("ETag")
		if before, known := tags[etag]; known {
			t.Errorf("%s and %s have one validator", host, before)
		}
		tags[etag] = host
		if h := f.send("HEAD", "/datasets", "Host: "+host); h.status != 200 || h.header.Get("Content-Length") != fmt.Sprint(len(want)) || h.header.Get("ETag") != etag {
			t.Errorf("%s: HEAD %d %v", host, h.status, h.header)
		}
		if n := f.get("/datasets", "Host: "+host, "If-None-Match: "+etag); n.status != 304 || n.body != "" {
			t.Errorf("%s: %d", host, n.status)
		}
		if n := f.get("/", "Host: "+host); n.body != want {
			t.Errorf("%s: another list at the root", host)
		}
	}
}

// fatFixture has n images with some text each, in turn of two names, of which every seventh is of a
// type that DSAPI hides.
func fatFixture(t testing.TB, n, text int) *fixture {
	return newFixture(t, fatImages(n, text, "")...)
}

func fatImages(n, text int, mark string) []string {
	manifests := make([]string, n)
	for i := range manifests {
		m := image{uuid: id(i), name: [2]string{"base", "other"}[i/3%2], content: []byte("x"),
			published: fmt.Sprintf("2014-05-06T07:%02d:%02dZ", i/60%60, i%60),
			extra:     `,"description":"` + mark + strings.Repeat("d", text) + `"`}.v2()
		if i%7 == 0 {
			m = strings.Replace(m, "zone-dataset", "lxd", 1)
		}
		manifests[i] = m
	}
	return manifests
}

// Every part of a list has the bytes that a list of the same images alone would have, small or
// large, over each kind of connection.
func TestPartsOfLists(t *testing.T) {
	cert := selfSigned(t)
	for _, size := range []int{1, 300} {
		plain := fatFixture(t, 200, size).start()
		encrypted := fatFixture(t, 200, size)
		encrypted.options.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		encrypted.start()
		for _, f := range []*fixture{plain, encrypted} {
			images := f.options.Catalog.Current().Images()
			base := "http://mirror:8080"
			ask := f.send
			if f == encrypted {
				base = "https://mirror:8080"
				ask = func(method, target string, headers ...string) reply {
					c, err := tls.Dial("tcp", f.addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's own
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					return f.exchange(c, bufio.NewReader(c), method, target, headers...)
				}
			}
			for _, query := range []string{
				"name=base", "name=other", "name=~e", "os=smartos", "os=smartos&limit=50", "name=base&sort=published_at.desc", "sort=published_at.desc",
				"limit=1", "limit=0&os=smartos", "name=nothing", "marker=" + id(7), "marker=" + id(100) + "&sort=published_at.desc&limit=70", "type=zone-dataset", "type=lxd",
			} {
				params := parseParams(query)
				q, err := manifest.ParseQuery(params)
				if err != nil {
					t.Fatal(err)
				}
				picked, err := q.Select(images, lookupIn(f.options.Catalog.Current()))
				if err != nil {
					t.Fatal(err)
				}
				var some []manifest.Manifest
				for i := range picked.All {
					some = append(some, images[i])
				}
				check(t, ask, "/images?"+query, joined(some, manifest.Manifest.V2))
				if q, err = manifest.ParseDatasetsQuery(params); err != nil {
					t.Fatal(err)
				}
				if picked, err = q.Select(images, nil); err != nil {
					t.Fatal(err)
				}
				some = nil
				for i := range picked.All {
					some = append(some, images[i])
				}
				check(t, ask, "/datasets?"+query, datasetsOf(some, base, ""))
			}
			check(t, ask, "/images", joined(images, manifest.Manifest.V2))
			check(t, ask, "/", datasetsOf(images, base, ""))
		}
	}
}

// check asks for target by GET, HEAD and with its validator.
func check(t *testing.T, ask func(method, target string, headers ...string) reply, target, want string, headers ...string) {
	t.Helper()
	r := ask("GET", target, headers...)
	length := fmt.Sprint(len(want))
	if r.err != nil || r.status != 200 || r.body != want || r.header.Get("Content-Length") != length || !json.Valid([]byte(r.body)) {
		t.Errorf("%s: %v, %d, %d bytes of %s", target, r.err, r.status, len(r.body), length)
	}
	etag := r.header.Get("Etag")
	h := ask("HEAD", target, headers...)
	if h.status != 200 || h.header.Get("Content-Length") != length || etag == "" || h.header.Get("Etag") != etag {
		t.Errorf("%s: HEAD %d %v", target, h.status, h.header)
	}
	if n := ask("GET", target, append(headers, "If-None-Match: "+etag)...); n.status != 304 {
		t.Errorf("%s: %d for its validator", target, n.status)
	}
}

// Lists with the channels of images are sent in parts, too.
func TestPartsOfChannels(t *testing.T) {
	manifests := fatImages(60, 500, "")
	for i := range manifests {
		channels := [3]string{`["dev"]`, `["dev","release"]`, `["release"]`}[i%3]
		manifests[i] = strings.Replace(manifests[i], `"os":`, `"channels":`+channels+`,"os":`, 1)
	}
	f := newFixtureWith(t, catalog.Options{Channels: []catalog.Channel{{Name: "dev"}, {Name: "release", Default: true}}}, manifests...)
	f.start()
	images := f.options.Catalog.Current().Images()
	for _, channel := range []string{"dev", "release", "*"} {
		var some []manifest.Manifest
		for _, m := range images {
			if m.InChannel(channel) && m.Name == "base" {
				some = append(some, m)
			}
		}
		query := "?name=base&channel=" + channel
		check(t, f.send, "/images"+query, joined(some, manifest.Manifest.V2Channels), "Accept-Version: ~2")
		check(t, f.send, "/images"+query, joined(some, manifest.Manifest.V2), "Accept-Version: ~1")
		check(t, f.send, "/datasets"+query, datasetsOf(some, "http://mirror:8080", channel))
	}
}

// Filters that select the same images in another order, or other images, differ in their validators.
func TestValidatorsOfParts(t *testing.T) {
	f := fatFixture(t, 20, 10).start()
	tags := make(map[string]string)
	for _, target := range []string{"/images?name=base", "/images?name=other", "/images?name=base&sort=published_at.desc", "/images?limit=3", "/datasets?name=base", "/datasets?name=other"} {
		etag := f.get(target).header.Get("Etag")
		if before, known := tags[etag]; known {
			t.Errorf("%s and %s have one validator", before, target)
		}
		tags[etag] = target
	}
	if a, b := f.get("/images?name=base").header.Get("Etag"), f.get("/images?name=~base").header.Get("Etag"); a != b {
		t.Error("the same list has two validators")
	}
}

// A list that is sent is counted like any reply.
func TestListIsCounted(t *testing.T) {
	f := fatFixture(t, 100, 500)
	f.start()
	for n, target := range []string{"/datasets", "/datasets?name=base"} {
		f.get(target)
		waitFor(t, "the request to be counted", func() bool {
			return testutil.ToFloat64(f.server.metrics.routes[routeDatasets].codes[200]) == float64(n+1)
		})
	}
}

// The whole list has nothing of images that are found by uuid only, so one more of these is no
// reason to build it again.
func TestFormsOutliveUnlistedImages(t *testing.T) {
	f := several(t)
	f.source.get = func(context.Context, uuid.UUID) (manifest.Manifest, error) {
		return manifest.Parse([]byte(image{uuid: id(77), content: []byte("77"), extra: `,"state":"disabled","disabled":true`}.v2()), manifest.ParseOptions{})
	}
	first := datasetsForm(f)
	list := f.options.Catalog.Current()
	if _, err := f.options.Catalog.Get(t.Context(), uuid.MustParse(id(77))); err != nil {
		t.Fatal(err)
	}
	if f.options.Catalog.Current() == list {
		t.Fatal("the image made no new list")
	}
	if datasetsForm(f) != first {
		t.Error("built again")
	}
}

// datasetsForm is the form of the whole list.
func datasetsForm(f *fixture) *catalog.Text {
	view, _ := f.options.Catalog.Current().View(manifest.AllChannels)
	return view.Datasets(false)
}

func manyDatasets(t testing.TB, n int) *fixture {
	var manifests []string
	for n := range n {
		manifests = append(manifests, image{uuid: id(n), content: []byte("x")}.v2())
	}
	return newFixture(t, manifests...)
}

func TestFormIsBuiltOnce(t *testing.T) {
	f := manyDatasets(t, 500)
	forms := make(chan *catalog.Text, 32)
	var ready, all sync.WaitGroup
	ready.Add(cap(forms))
	for range cap(forms) {
		all.Go(func() {
			ready.Done()
			ready.Wait()
			forms <- datasetsForm(f)
		})
	}
	all.Wait()
	first := <-forms
	for range cap(forms) - 1 {
		if first != <-forms {
			t.Fatal("two of those who came at once got forms of their own")
		}
	}
}

// Replies with lists cost no memory for each host or query that clients make up.
func TestQueriesCostNoMemory(t *testing.T) {
	f := manyDatasets(t, 1000)
	f.start()
	size := len(f.get("/datasets").body)
	f.get("/images?os=smartos")
	for _, target := range []string{"/datasets", "/datasets?os=smartos&x=%d", "/images?os=smartos&x=%d"} {
		c := f.dial()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const requests = 50
		got := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, c) // what comes, till the end
			got <- n
		}()
		for n := range requests {
			last := ""
			if n == requests-1 {
				last = "Connection: close\r\n"
			}
			if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: host-%d\r\n%s\r\n", strings.Replace(target, "%d", fmt.Sprint(n), 1), n, last); err != nil {
				t.Fatal(err)
			}
		}
		if n := <-got; n < int64(requests*size/2) {
			t.Fatalf("%s: %d bytes came", target, n)
		}
		c.Close()
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > uint64(requests*size/8) {
			t.Errorf("%s: %d bytes were allocated for %d lists of %d bytes", target, spent, requests, size)
		}
	}
}

func BenchmarkDatasetsOfManyHosts(b *testing.B) {
	f := manyDatasets(b, 5000)
	f.start()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		b.Fatal(err)
	}
	c.Close()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		b.SetBytes(int64(len(f.get("/datasets", fmt.Sprintf("Host: host-%d", n)).body)))
	}
}

// An error reply repeats only the beginning of a long path.
func TestLongPath(t *testing.T) {
	f := newFixture(t).start()
	r := f.get("/" + strings.Repeat(`"`, 7000))
	if _, message, _ := r.errorBody(t); r.status != 404 || len(r.body) > 3*maxMessage || !strings.HasSuffix(message, "…") {
		t.Errorf("%d, %d bytes", r.status, len(r.body))
	}
	if got := shortened(strings.Repeat("ä", maxMessage)); len(got) > maxMessage+len("…") || slices.Contains([]rune(got), '\ufffd') {
		t.Errorf("%d bytes", len(got))
	}
}

// The line of a whole list tells what was sent, and comes when all was sent or the client has gone.
func TestLineOfAWholeList(t *testing.T) {
	f := fatFixture(t, fatCount, 4200)
	f.start()
	size := float64(len(f.get("/images").body))
	lines := f.log.requests(t, 1)
	if l := lines[0]; l["bytes"] != size || l["error"] != nil {
		t.Errorf("the line is %v, want %v bytes", l, size)
	}
	began := time.Now()
	slow := f.stalled("/images")
	asked := time.Now()
	f.get("/ping")
	if lines = f.log.requests(t, 2); lines[1]["path"] != "/ping" {
		t.Errorf("a line before the reply's end: %v", lines[1])
	}
	held := time.Since(asked)
	slow.Close()
	l := f.log.requests(t, 3)[2]
	if sent, ok := l["bytes"].(float64); !ok || sent <= 0 || sent >= size || l["status"] != 200.0 {
		t.Errorf("the line of a client that left is %v, of %v bytes", l, size)
	}
	if cause, ok := l["error"].(string); !ok || !strings.HasPrefix(cause, "client: ") {
		t.Errorf("error %v", l["error"])
	}
	if took, ok := l["duration"].(float64); !ok || took < float64(held) || took > float64(time.Since(began)) {
		t.Errorf("the line tells %v ns, after %v", l["duration"], held)
	}
}

// The line of a whole list that goes out by one system call comes at the end of the reply, too.
func TestLineOfASmallWholeList(t *testing.T) {
	var manifests []string
	for i := range 200 {
		manifests = append(manifests, image{uuid: id(i), content: []byte("x")}.v2())
	}
	f := newFixture(t, manifests...)
	f.options.AccessLog = accessLog(t, f.log)
	d := newDirect(t, f)
	view, _ := f.options.Catalog.Current().View(manifest.AllChannels)
	size := len(view.Reply(false, catalog.Identity).Body)
	for _, end := range []error{nil, net.ErrClosed} {
		d.read(t, []byte("GET /images HTTP/1.1\r\nHost: m\r\n\r\n"))
		d.server.handle(&d.ctx)
		if c := d.server.conns.client(d.conn); end == nil {
			d.done()
		} else {
			c.whole.ended(end)
			c.whole.ended(end) // as remove does, of a connection without a reply
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := f.options.AccessLog.Run(ctx); err != nil {
		t.Fatal(err)
	}
	lines := f.log.lines(t, "request")
	if len(lines) != 2 || size <= smallBody || size > oneCall {
		t.Fatalf("%d bytes, %v", size, lines)
	}
	if l := lines[0]; l["bytes"] != float64(size) || l["error"] != nil || l["status"] != 200.0 {
		t.Errorf("the line is %v, want %d bytes", l, size)
	}
	if l := lines[1]; l["bytes"] != 0.0 || l["error"] != fmt.Sprintf("client: %v (of a reply of %d bytes)", net.ErrClosed, size) {
		t.Errorf("the line of a broken connection is %v", l)
	}
	if n := d.server.memory.readers(); n != 0 {
		t.Errorf("%d lists are being read", n)
	}
}
