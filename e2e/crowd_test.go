package e2e

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// download is one client's download, and how it went.
type download struct {
	file  string // what came
	first time.Time
	took  time.Duration
}

// fetch downloads a url into a file. The bytes go from the socket to the file
// by splice(2) where there is such a thing: many clients at once shall measure
// the mirror, not the race detector in this process.
func fetch(url, file string, size int64) (download, error) {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	out, err := os.Create(file)
	if err != nil {
		return download{}, err
	}
	defer out.Close()
	start := time.Now()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return download{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(start.Add(60 * time.Second)); err != nil {
		return download{}, err
	}
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return download{}, err
	}
	// The head, and at least one byte of the body.
	var head, body []byte
	for buf := make([]byte, 4096); len(body) == 0; {
		n, err := conn.Read(buf)
		if err != nil {
			return download{}, fmt.Errorf("after %q: %w", head, err)
		}
		head = append(head, buf[:n]...)
		if i := bytes.Index(head, []byte("\r\n\r\n")); i >= 0 {
			body = head[i+4:]
		}
	}
	d := download{file: file, first: time.Now()}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(head, fmt.Appendf(nil, "Content-Length: %d\r\n", size)) {
		return d, fmt.Errorf("reply %.300q", head)
	}
	if _, err := out.Write(body); err != nil {
		return d, err
	}
	if n, err := io.CopyN(out, conn, size-int64(len(body))); err != nil {
		return d, fmt.Errorf("after %d bytes: %w", n+int64(len(body)), err)
	}
	d.took = time.Since(start)
	return d, nil
}

// check wants what came to have that sha1, and takes it away.
func (d download) check(t testing.TB, want string) {
	t.Helper()
	file, err := os.Open(d.file)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha1.New()
	if n, err := io.Copy(sum, file); err != nil || hex.EncodeToString(sum.Sum(nil)) != want {
		t.Fatalf("%s: %d bytes, and not the right ones (%v)", d.file, n, err)
	}
	if err := os.Remove(d.file); err != nil {
		t.Fatal(err)
	}
}

// crowd has 32 clients ask at once for an uncached file on a source limited to 20 MB/s. The source sees one request,
// and all clients get the right bytes. The results are the time of the last client against that of one direct
// download, and how long after the source's first byte the last client had one.
func crowd(t testing.TB) (ratio float64, late time.Duration) {
	t.Helper()
	const (
		clients = 32
		size    = 32 << 20
		rate    = 20_000_000
	)
	src := newSource(t)
	url := src.link(rate)
	dir := t.TempDir()
	m := startMirror(t, nil, from(url, settings{"refresh": "1h"}))
	// Not listed when the mirror started: found by its uuid.
	img := newImage("crowd", size)
	src.add(img)
	if get(t, m.url+"/images/"+img.uuid).status != 200 {
		t.Fatal("the mirror does not find a new image by uuid")
	}
	sum := img.sha1()
	direct, err := fetch(url+filePath(img), filepath.Join(dir, "direct"), size)
	if err != nil {
		t.Fatalf("direct download: %v", err)
	}
	direct.check(t, sum)
	src.Forget()

	all := make([]download, clients)
	var g errgroup.Group
	for i := range clients {
		g.Go(func() (err error) {
			all[i], err = fetch(m.url+filePath(img), filepath.Join(dir, fmt.Sprint(i)), size)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		d.check(t, sum)
	}
	if n := src.requests(img); n != 1 {
		t.Fatalf("the source saw %d requests, want 1", n)
	}
	if n := src.sent(img); n != size {
		t.Fatalf("the source sent %d bytes, want %d", n, size)
	}
	last := slices.MaxFunc(all, func(a, b download) int { return cmp.Compare(a.took, b.took) }).took
	late = slices.MaxFunc(all, func(a, b download) int { return a.first.Compare(b.first) }).first.Sub(src.firstByte(img))
	return last.Seconds() / direct.took.Seconds(), late
}

// TestCrowd: clients that ask at once for one uncached file share one download.
func TestCrowd(t *testing.T) { crowd(t) }

func BenchmarkCrowd(b *testing.B) {
	var ratios, firsts []float64
	for b.Loop() {
		ratio, late := crowd(b)
		ratios, firsts = append(ratios, ratio), append(firsts, late.Seconds()*1000)
	}
	slices.Sort(ratios)
	slices.Sort(firsts)
	b.ReportMetric(ratios[len(ratios)/2], "last/direct")
	b.ReportMetric(firsts[len(firsts)/2], "ms-to-last-first-byte")
}
