package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// formOf gets the form of the whole list.
func formOf(c *datasetsCache, list *catalog.List, channel string) *datasetsForm {
	view, _ := list.View(manifest.AllChannels)
	return c.get(list, view, channel)
}

// A list is built once for all bases, and sent as if it were built for each.
func TestListForEachHost(t *testing.T) {
	f := several(t)
	f.start()
	list := f.options.Catalog.Current()
	view, _ := list.View(manifest.AllChannels)
	form := formOf(&f.server.datasets, list, "")
	tags := make(map[string]string)
	for _, host := range []string{"m", "mirror:8080", "[fd00::1]:8080", strings.Repeat("a", 255), "z"} {
		want := string(buildDatasets(visibleDatasets(view), "http://"+host, ""))
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
	if formOf(&f.server.datasets, list, "") != form {
		t.Error("built again")
	}
	// A body is the same in whatever pieces it is read.
	for _, size := range []int{1, 7, 100, 1 << 20} {
		body := &formBody{rest: form.text, base: "http://m", left: form.size("http://m")}
		var got []byte
		for buf := make([]byte, size); ; {
			n, err := body.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if string(got) != string(buildDatasets(visibleDatasets(view), "http://m", "")) {
			t.Errorf("in pieces of %d: %d bytes", size, len(got))
		}
	}
	// Channels come and go: a few are kept.
	for n := range 3 * maxForms {
		formOf(&f.server.datasets, list, fmt.Sprint(n))
	}
	if n := len(f.server.datasets.forms); n > maxForms {
		t.Errorf("%d forms are kept", n)
	}
}

// A list that is sent is counted like any reply.
func TestListIsCounted(t *testing.T) {
	f := several(t)
	f.start()
	f.get("/datasets")
	waitFor(t, "the request to be counted", func() bool {
		return testutil.ToFloat64(f.server.metrics.routes["datasets"].codes[200]) == 1
	})
}

// The whole list has nothing of images that are found by uuid only, so one more
// of these is no reason to build it again.
func TestFormsOutliveUnlistedImages(t *testing.T) {
	f := several(t)
	f.source.get = func(context.Context, uuid.UUID) (manifest.Manifest, error) {
		return manifest.Parse([]byte(image{uuid: id(77), content: []byte("77"), extra: `,"state":"disabled","disabled":true`}.v2()), manifest.ParseOptions{})
	}
	var c datasetsCache
	list := f.options.Catalog.Current()
	first := formOf(&c, list, "")
	if _, err := f.options.Catalog.Get(t.Context(), uuid.MustParse(id(77))); err != nil {
		t.Fatal(err)
	}
	next := f.options.Catalog.Current()
	if next == list {
		t.Fatal("the image made no new list")
	}
	if formOf(&c, next, "") != first {
		t.Error("built again")
	}
}

func manyDatasets(t testing.TB, n int) *fixture {
	var manifests []string
	for n := range n {
		manifests = append(manifests, image{uuid: id(n), content: []byte("x")}.v2())
	}
	return newFixture(t, manifests...)
}

func TestFormIsBuiltOnce(t *testing.T) {
	list := manyDatasets(t, 500).options.Catalog.Current()
	var c datasetsCache
	forms := make(chan *datasetsForm, 32)
	var ready, all sync.WaitGroup
	ready.Add(cap(forms))
	for range cap(forms) {
		all.Go(func() {
			ready.Done()
			ready.Wait()
			forms <- formOf(&c, list, "")
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

// A client that makes up hosts costs no memory for each.
func TestHostsCostNoMemory(t *testing.T) {
	f := manyDatasets(t, 2000)
	f.start()
	c := f.dial()
	defer c.Close()
	size := len(f.get("/datasets").body)
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
		if _, err := fmt.Fprintf(c, "GET /datasets HTTP/1.1\r\nHost: host-%d\r\n%s\r\n", n, last); err != nil {
			t.Fatal(err)
		}
	}
	if n := <-got; n < int64(requests*size*9/10) { // these hosts are short
		t.Fatalf("%d bytes came", n)
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > uint64(requests*size/4) {
		t.Errorf("%d bytes were allocated for %d lists of %d bytes", spent, requests, size)
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
