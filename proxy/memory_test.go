package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/proxy/catalog"
)

// readers is the number of replies with lists that are under way.
func (m *memory) readers() int {
	n := 0
	for _, value := range m.conns.open.Range {
		if value.(*client).reading.Load() != nil {
			n++
		}
	}
	return n
}

// inUse is the whole account.
func (m *memory) inUse() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bodies + m.old
}

// slowClient is a connection with a reply that its client does not take.
type slowClient struct {
	net.Conn
	reader *bufio.Reader
}

// stalled asks for target and takes nothing of the reply, of which it waits for the beginning.
func (f *fixture) stalled(target string, headers ...string) slowClient {
	f.Helper()
	c := f.dial()
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		f.Fatal(err)
	}
	if len(headers) == 0 {
		headers = []string{"Host: mirror:8080"}
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\n%s\r\n\r\n", target, strings.Join(headers, "\r\n")); err != nil {
		f.Fatal(err)
	}
	br := bufio.NewReaderSize(c, 16)
	if _, err := br.Peek(1); err != nil {
		f.Fatal(err)
	}
	return slowClient{c, br}
}

// fatCount images with fat texts make a list that no socket's buffers hold, 6 MB.
const fatCount = 1300

// heapInUse is the memory that is in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // sync.Pool keeps things for one more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) + int64(m.StackInuse) //nolint:gosec // fits
}

// Many clients that take nothing share the prepared texts, whatever they ask for, and other clients
// are served meanwhile. All memory comes back when the clients leave.
func TestStalledClientsShareLists(t *testing.T) {
	const clients = 20 // for each target
	f := fatFixture(t, fatCount, 4200)
	f.start()
	whole := f.get("/images").body
	f.get("/")
	f.get("/images?os=smartos")
	f.get("/images", "Accept-Encoding: gzip")
	before := heapInUse()
	var conns []slowClient
	for n := range clients {
		conns = append(conns,
			f.stalled("/images?os=smartos"),
			f.stalled(fmt.Sprintf("/images?type=zone-dataset&x=%d", n)),
			f.stalled(fmt.Sprintf("/images?sort=published_at.desc&os=smartos&x=%d", n)),
			f.stalled("/datasets?name=~e", fmt.Sprintf("Host: host-%d", n)),
			f.stalled("/images"),
			f.stalled("/datasets"))
	}
	grown := heapInUse() - before
	if limit := int64(len(conns)) * ConnectionMemory; grown > limit {
		t.Errorf("%d clients hold %d KiB of the heap, %d KiB each", len(conns), grown>>10, grown>>10/int64(len(conns)))
	}
	t.Logf("%d clients hold %d KiB of the heap, %d KiB each", len(conns), grown>>10, grown>>10/int64(len(conns)))
	if n := f.server.memory.readers(); n != len(conns) {
		t.Errorf("%d replies are under way", n)
	}
	used := testutil.ToFloat64(f.server.metrics.bodies)
	if used < clients*fatCount/8 || used > float64(len(conns)*fatCount/8*2) {
		t.Errorf("%v bytes are counted", used)
	}
	if r := f.get("/images"); r.body != whole {
		t.Errorf("%d, %d bytes", r.status, len(r.body))
	}
	for _, target := range []string{"/ping", "/images/" + id(1), "/datasets/" + id(1), "/images?name=base", "/"} {
		if r := f.get(target); r.status != 200 {
			t.Errorf("%s: %d", target, r.status)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	waitFor(t, "the memory to come back", func() bool {
		return f.server.memory.readers() == 0 && testutil.ToFloat64(f.server.metrics.bodies) == 0
	})
}

// A reply that finds no memory is a 503 with Retry-After; replies under way, and replies that need
// none of that memory, go on.
func TestMemoryIsUsedUp(t *testing.T) {
	big := image{uuid: id(9999), name: "big", content: []byte("x"), extra: `,"description":"` + strings.Repeat("b", 100_000) + `"`}.v2()
	f := newFixture(t, append(fatImages(fatCount, 4200, ""), big)...)
	f.start()
	whole := f.get("/images").body
	if r := f.get("/images/" + id(9999)); r.status != 200 || r.body != big {
		t.Fatalf("%d, %d bytes", r.status, len(r.body))
	}
	waitFor(t, "the memory to come back", func() bool { return f.server.memory.inUse() == 0 })

	f.server.memory.mu.Lock()
	f.server.memory.limit = 4 * fatCount / 7 // a bit for each image
	f.server.memory.mu.Unlock()
	var slow []slowClient
	for range 4 {
		slow = append(slow, f.stalled("/images?os=smartos"))
	}
	for _, target := range []string{"/images?os=smartos", "/datasets?os=smartos", "/images/" + id(9999), "/datasets/" + id(9999)} {
		r := f.get(target)
		if code, _, _ := r.errorBody(t); r.status != 503 || code != "ServiceUnavailableError" || r.header.Get("Retry-After") != "5" || r.header.Get("Etag") != "" {
			t.Errorf("%s: %d %v", target, r.status, r.header)
		}
		if r := f.send("HEAD", target); strings.Contains(target, "?") && r.status != 200 { // takes no memory
			t.Errorf("HEAD %s: %d", target, r.status)
		}
	}
	if n := testutil.ToFloat64(f.server.metrics.bodiesRefused["memory"]); n < 4 {
		t.Errorf("%v refusals are counted", n)
	}
	if r := f.get("/images"); r.body != whole {
		t.Errorf("%d, %d bytes", r.status, len(r.body))
	}
	for _, target := range []string{"/ping", "/images/" + id(1), "/datasets/" + id(1), "/", "/datasets", "/images?limit=3"} {
		if r := f.get(target); r.status != 200 {
			t.Errorf("%s: %d", target, r.status)
		}
	}
	slow[1].Close()
	waitFor(t, "a reply to be possible", func() bool { return f.send("GET", "/images?os=smartos").status == 200 })
	// The first client was slow, and gets all of its list.
	if r := f.read(slow[0].reader, "GET"); r.status != 200 || r.body != whole {
		t.Errorf("%d, %d bytes of %d, %v", r.status, len(r.body), len(whole), r.err)
	}
	for _, c := range slow {
		c.Close()
	}
	waitFor(t, "the memory to come back", func() bool { return f.server.memory.inUse() == 0 })
}

// changing is a catalogue whose list a test replaces.
type changing struct {
	Catalog
	list atomic.Pointer[catalog.List]
}

func (c *changing) Current() *catalog.List                        { return c.list.Load() }
func (c *changing) Known(context.Context) (*catalog.List, error)  { return c.list.Load(), nil }
func (c *changing) Reachable(context.Context, catalog.Entry) bool { return true }

// Lists that newer lists have replaced take no more memory than the limit, however many clients
// hold them; clients of the newest lists are left alone.
func TestClientsOfOldLists(t *testing.T) {
	const versions = 6
	f := fatFixture(t, fatCount, 4200)
	lists := &changing{Catalog: f.options.Catalog}
	lists.list.Store(f.options.Catalog.Current())
	f.options.Catalog = lists
	f.start()
	whole := f.get("/images").body
	f.server.memory.limit = int64(len(whole)) * 3 // no reply is under way yet
	before := heapInUse()
	var conns []slowClient
	for version := range versions {
		next := fatFixtureList(t, version)
		lists.list.Store(next)
		conns = append(conns, f.stalled("/images"), f.stalled("/images?os=smartos"), f.stalled("/images?type=zone-dataset"))
		if used := f.server.memory.inUse(); used > f.server.memory.limit {
			t.Errorf("version %d: %d bytes are in use", version, used)
		}
	}
	waitFor(t, "the clients of old lists to be cut", func() bool { return f.server.memory.readers() <= 3*3 })
	if n := f.server.memory.readers(); n != 3*3 {
		t.Errorf("%d replies are left", n)
	}
	if n := testutil.ToFloat64(f.server.metrics.bodiesRefused["old_list"]); n != (versions-3)*3 {
		t.Errorf("%v replies are counted as cut", n)
	}
	if grown := heapInUse() - before; grown > 5*int64(len(whole)) {
		t.Errorf("the heap has grown by %d lists", grown/int64(len(whole)))
	}
	view, _ := lists.Current().View("*")
	want, _ := view.JSON(false)
	for n, c := range conns {
		r, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if n < (versions-3)*3 && err == nil {
			t.Errorf("client %d got all of an old list", n)
		}
		if n >= (versions-3)*3 && (err != nil || n%3 < 2 && len(body) != len(want)) {
			t.Errorf("client %d: %v, %d bytes", n, err, len(body))
		}
		c.Close()
	}
	waitFor(t, "the memory to come back", func() bool { return f.server.memory.inUse() == 0 && f.server.memory.readers() == 0 })
}

// fatFixtureList is a version of fatFixture's list.
func fatFixtureList(t *testing.T, version int) *catalog.List {
	return newFixture(t, fatImages(fatCount, 4200, fmt.Sprint(version))...).options.Catalog.Current()
}

// account is a memory of its own, with readers on pipes.
func account(limit int64) *memory {
	m := newMetrics(nil)
	a, c := &memory{}, &conns{}
	c.limit(100, 0, m)
	a.init(limit, c, m.bodies, m.bodiesRefused)
	return a
}

// The readers that took nothing for the longest time are cut first, and one replaced list is left in
// any case: an honest client may have it.
func TestOldListsInOrder(t *testing.T) {
	m := account(250)
	lists := make([]*sharedText, 5)
	clients := make([]*client, len(lists))
	open := func(c *client) bool {
		return c.nc.SetWriteDeadline(time.Time{}) == nil // an error once it is closed
	}
	newClient := func() *client {
		far, near := net.Pipe()
		t.Cleanup(func() { far.Close() })
		m.conns.add(near)
		return m.conns.client(near)
	}
	hold := func(n int) {
		lists[n], clients[n] = sharedOf(new(catalog.Account), 100), newClient()
		m.hold(clients[n], textKind{}, lists[n])
	}
	want := func(used int64, left ...bool) {
		t.Helper()
		if got := m.inUse(); got != used {
			t.Errorf("%d bytes are in use, want %d", got, used)
		}
		for n, want := range left {
			if open(clients[n]) != want {
				t.Errorf("reader %d goes on: %v", n, !want)
			}
		}
	}
	hold(0)
	want(0)
	hold(1)
	want(100)
	hold(2)
	want(200)
	lists[0].progress.Store(1 << 62) // takes its list
	hold(3)
	want(200, true, false, true, true)
	// The reply to a request from before the change takes list 2, which is current until the next one.
	late := newClient()
	m.hold(late, textKind{}, lists[2])
	want(200)
	hold(4)
	want(200, true, false, true, false, true)
	// A new reply goes before old lists.
	if err := m.take(200); err != nil {
		t.Error(err)
	}
	want(200, false, false, false, false, true)
	if m.take(51) == nil {
		t.Error("more than the limit is given")
	}
	m.give(200)
	for _, c := range append(clients, late) {
		m.release(c)
	}
	if want(0); len(m.booked) != 0 {
		t.Errorf("%d texts are left", len(m.booked))
	}
	// A list above the limit is left to its readers.
	hold(0)
	lists[0].size.Store(1000)
	hold(1)
	want(1000, true, true)
	// The last reader gives the memory of the list back.
	m.release(clients[0])
	if want(0, true, true); len(m.booked) != 0 {
		t.Errorf("%d texts are left", len(m.booked))
	}
}
