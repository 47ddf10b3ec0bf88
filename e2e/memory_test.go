package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// 300 clients that take nothing of a list of 6 MB cost the mirror no copies of the list, whatever
// part of the list each client asks for, and other clients are served meanwhile.
func TestStalledClientsCostNoCopies(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("/proc is of Linux")
	}
	texts, ids := largeCatalog(8000)
	url, stop := serveCatalog(t, texts, ids)
	t.Cleanup(stop)
	m := startMirror(t, settings{"clients.max_per_address": 0}, from(url))
	m.awaitList(len(ids))
	whole := get(t, m.url+"/images").body
	get(t, m.url+"/datasets?os=smartos")
	before := residentMB(t, m)
	for n := range 300 {
		c, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		target := [...]string{"/images?os=smartos&x=%d", "/datasets?name=~base&x=%d", "/images?sort=published_at.desc&x=%d"}[n%3]
		if _, err := fmt.Fprintf(c, "GET "+target+" HTTP/1.1\r\nHost: host-%d\r\n\r\n", n, n); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("client %d: %v", n, err)
		}
		_ = r.Body // never taken; the connection ends it
	}
	grown := residentMB(t, m) - before
	t.Logf("VmRSS has grown by %.1f MB for lists of %.1f MB", grown, float64(len(whole))/1e6)
	if grown > 100 {
		t.Errorf("VmRSS has grown by %.1f MB", grown)
	}
	if got := get(t, m.url+"/images"); got.status != 200 || !bytes.Equal(got.body, whole) {
		t.Errorf("another client: status %d, %d bytes", got.status, len(got.body))
	}
	for _, path := range []string{"/ping", "/images/" + ids[0], "/images?limit=10", "/datasets"} {
		if got := get(t, m.url+path); got.status != 200 {
			t.Errorf("%s: status %d", path, got.status)
		}
	}
}
