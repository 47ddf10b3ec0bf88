package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkPages is the time that the pages of a mirror with 100,000 images and 10,000 nodes take,
// warm, as medians: those of clients, and those of operators (op-).
func BenchmarkPages(b *testing.B) {
	const n, nodes, rounds = 100_000, 10_000, 50
	texts, ids := largeCatalog(n)
	source, _ := serveCatalog(b, texts, ids)
	m := newMirror(b, nil, from(source))
	m.launch()
	m.awaitReady()
	m.awaitList(n)
	var crowd errgroup.Group
	crowd.SetLimit(8)
	for i := range nodes {
		crowd.Go(func() error {
			return askFrom(net.IPv4(127, 1, byte(i/200), byte(1+i%200)), m.url+"/images/"+ids[n-1])
		})
	}
	if err := crowd.Wait(); err != nil {
		b.Fatal(err)
	}
	client, operator := &visitor{t: b, base: m.url}, &visitor{t: b, base: m.admin}
	operator.signIn(m.token())
	for name, path := range map[string]string{
		"images":      "/ui/images",
		"images-last": "/ui/images?sort=name&order=desc&page=2000",
		"search":      "/ui/images?q=base-64-42",
		"search-uuid": "/ui/images?q=" + ids[n/2],
		"search-none": "/ui/images?q=no+image+has+this",
		"image":       "/ui/images/" + ids[n-1],
		"overview":    "/ui/",
		"op-images":   "/ui/images",
		"op-image":    "/ui/images/" + ids[n-1],
		"op-overview": "/ui/",
		"op-nodes":    "/ui/nodes",
	} {
		asker := client
		if strings.HasPrefix(name, "op-") {
			asker = operator
		}
		var times []float64
		for range rounds + 1 {
			began := time.Now()
			got := asker.get(path)
			times = append(times, float64(time.Since(began).Microseconds())/1000)
			if got.status != http.StatusOK {
				b.Fatalf("%s: status %d", path, got.status)
			}
		}
		times = times[1:] // the first one is not warm
		slices.Sort(times)
		b.ReportMetric(times[rounds/2], "ms-"+name)
		b.ReportMetric(times[rounds*95/100], "ms-p95-"+name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDashboards is what ten open dashboards and the journal of nodes cost clients: the
// throughput of hits, and the rate of small answers, of a mirror with them against a mirror without.
// The two take turns, and the ratio is the median of the pairs. 1 is no cost.
func BenchmarkDashboards(b *testing.B) {
	const pairs, dashboards = 21, 10
	img := newImage("dashboards", 16<<20)
	src := newSource(b, img)
	start := func(set settings) *mirror {
		m := startMirror(b, set, from(src.URL(), settings{"refresh": "1h"}))
		m.awaitList(1)
		get(b, m.url+filePath(img)).wantFile(b, img)
		m.awaitStored(1)
		return m
	}
	bare, watched := start(settings{"nodes.keep": "0"}), start(nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := make(chan string, 1024)
	var streams errgroup.Group
	live := liveURL(b, watched.url)
	for i := range dashboards {
		streams.Go(func() error { return watchPage(ctx, net.IPv4(127, 0, 0, byte(100+i)), live, events) })
	}
	for range dashboards {
		select {
		case <-events:
		case <-time.After(20 * time.Second):
			b.Fatal("a dashboard is told nothing")
		}
	}
	for _, work := range []struct {
		unit, path string
		each       int // requests of each client
	}{
		{"hits-watched/bare", filePath(img), 12},
		{"small-watched/bare", "/images/" + img.uuid, 2000},
	} {
		loads := [2]*load{newLoad(b, bare, work.path), newLoad(b, watched, work.path)}
		loads[0].run(b, work.each)
		loads[1].run(b, work.each)
		var ratios []float64
		for i := range pairs {
			var took [2]time.Duration
			for _, side := range []int{i % 2, 1 - i%2} { // neither is always the first
				took[side] = loads[side].run(b, work.each)
			}
			ratios = append(ratios, took[0].Seconds()/took[1].Seconds())
		}
		slices.Sort(ratios)
		b.Logf("%s: quartiles %.3f %.3f %.3f", work.unit, ratios[pairs/4], ratios[pairs/2], ratios[pairs*3/4])
		b.ReportMetric(ratios[pairs/2], work.unit)
	}
	told := len(events)
	cancel()
	if err := streams.Wait(); err != nil {
		b.Errorf("a dashboard: %v", err)
	}
	b.ReportMetric(float64(told), "events")
	b.ReportMetric(0, "ns/op")
}

// liveURL is the stream of the overview's parts.
func liveURL(t testing.TB, base string) string {
	t.Helper()
	parts := (&visitor{t: t, base: base}).get("/ui/").parts()
	if len(parts) == 0 {
		t.Fatal("the overview has no parts that change by themselves")
	}
	return base + "/ui/live?want=" + url.QueryEscape(strings.Join(parts, ","))
}

// watchPage follows a stream of events, from an address of this machine, until the context ends.
func watchPage(ctx context.Context, from net.IP, url string, events chan<- string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		return fmt.Errorf("%s: %s, %q", url, resp.Status, kind)
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if event, ok := strings.CutPrefix(lines.Text(), "event:"); ok {
			select {
			case events <- strings.TrimSpace(event):
			default: // enough are counted
			}
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("%s: the stream has ended", url)
	}
	return nil
}

// load is clients of a mirror that ask for one thing again and again, each from an address and on
// a connection of its own.
type load struct {
	request []byte
	conns   []*net.TCPConn
	null    *os.File
}

func newLoad(t testing.TB, m *mirror, path string) *load {
	t.Helper()
	host := strings.TrimPrefix(m.url, "http://")
	l := &load{request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: imgadm/1.0 (node/0.10)\r\n\r\n", path, host)}
	var err error
	if l.null, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.null.Close() })
	for i := range 4 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(10+i))}}
		conn, err := dialer.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		l.conns = append(l.conns, conn.(*net.TCPConn))
	}
	return l
}

// run has each client ask so often, and returns how long that took. The bodies go nowhere, by
// splice(2) where there is such a thing: the mirror is measured.
func (l *load) run(t testing.TB, each int) time.Duration {
	t.Helper()
	began := time.Now()
	var clients errgroup.Group
	for _, conn := range l.conns {
		clients.Go(func() error {
			buf := make([]byte, 4096)
			for range each {
				if err := l.once(conn, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// once asks once and takes the whole answer.
func (l *load) once(conn *net.TCPConn, buf []byte) error {
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(l.request); err != nil {
		return err
	}
	var got int
	for {
		n, err := conn.Read(buf[got:])
		if err != nil {
			return err
		}
		got += n
		head, body, ok := bytes.Cut(buf[:got], []byte("\r\n\r\n"))
		if !ok {
			continue
		}
		_, rest, _ := bytes.Cut(head, []byte("Content-Length: "))
		var size int64
		if _, err := fmt.Sscanf(string(rest), "%d", &size); err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("reply %.300q", head)
		}
		_, err = io.CopyN(l.null, conn, size-int64(len(body)))
		return err
	}
}
