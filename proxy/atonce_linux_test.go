package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"imgmirror/manifest"
	"imgmirror/proxy/accesslog"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/eventloop"
)

// byLoop tells whether an event loop has the connection of the client's end c.
func (f *fixture) byLoop(c net.Conn) bool {
	f.Helper()
	for nc := range f.server.conns.open.Range {
		if nc.(net.Conn).RemoteAddr().String() == c.LocalAddr().String() {
			_, is := nc.(*eventloop.Conn)
			return is
		}
	}
	return false
}

// allowNoDescriptor has the process get no further descriptor until allow is called, or the test ends.
func allowNoDescriptor(t *testing.T) (allow func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	allow = sync.OnceFunc(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(allow)
	return allow
}

// slowly opens a connection that has left the event loops: the first bytes of its request came alone.
func (f *fixture) slowly(request string) net.Conn {
	f.Helper()
	c := f.dial()
	if _, err := fmt.Fprint(c, request[:1]); err != nil {
		f.Fatal(err)
	}
	waitFor(f.TB, "the connection to have left the loops", func() bool {
		for nc := range f.server.conns.open.Range {
			if nc.(net.Conn).RemoteAddr().String() == c.LocalAddr().String() {
				_, is := nc.(*eventloop.Conn)
				return !is
			}
		}
		return false
	})
	if _, err := fmt.Fprint(c, request[1:]); err != nil {
		f.Fatal(err)
	}
	return c
}

// An event loop and fasthttp answer with the same bytes, but for the date, the id and the time. The requests that nearly
// all clients send are answered by a loop, and no others.
func TestSameByLoop(t *testing.T) {
	big := image{uuid: id(2), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", 2*smallBody) + `"`}
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2(), big.v2()).start()
	view, _ := f.options.Catalog.Current().View(manifest.AllChannels)
	tag := view.Reply(false, catalog.Identity).ETag
	for _, test := range []struct {
		request string
		loop    bool
	}{
		{"GET /ping HTTP/1.1\r\nHost: m\r\n", true},
		{"HEAD /ping HTTP/1.1\r\nHost: m:80\r\n", true},
		{"GET /ping HTTP/1.1\r\nHost: m:x\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: [::1]:80\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: a:b:c\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: :80\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: u@m\r\n", false},
		{"GET /ping HTTP/1.1\r\n", false},
		{"GET /ping HTTP/1.0\r\nHost: m\r\n", false},
		{"GET /ping HTTP/1.0\r\nHost: m\r\nConnection: keep-alive\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nConnection: keep-alive\r\n", true},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nConnection: close\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n", true},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\n\r\nx", false},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\n", false},
		{"GET /ping HTTP/1.1\r\nHost: m\r\nAccept-Version: ~9\r\n", false},
		{"GET /ping?x HTTP/1.1\r\nHost: m\r\n", false},
		{"GET  /ping HTTP/1.1\r\nHost: m\r\n", false},
		{"POST /ping HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n", false},
		{"GET /images HTTP/1.1\r\nHost: m\r\n", true}, // larger than a small body
		{"HEAD /images HTTP/1.1\r\nHost: m\r\n", true},
		{"GET /images HTTP/1.1\r\nHost: m\r\nAccept-Encoding: gzip\r\n", true},
		{"HEAD /images HTTP/1.1\r\nHost: m\r\nAccept-Encoding: gzip\r\n", true},
		{"GET /images HTTP/1.1\r\nHost: m\r\nAccept-Version: ~2\r\nIf-None-Match: \"" + tag + "\"\r\n", true},
		{"GET /images HTTP/1.1\r\nHost: m\r\nIf-None-Match: \"" + tag + "\"\r\nVia: 1.1 x\r\n", false},
		{"GET /images/" + id(1) + " HTTP/1.1\r\nHost: m\r\n", true},
		{"HEAD /images/" + id(1) + " HTTP/1.1\r\nHost: m\r\n", true},
		{"GET /images/" + id(1) + " HTTP/1.1\r\nHost: m\r\nIf-None-Match: *\r\nX-Request-Id: mine\r\n", true},
		{"GET /images/" + id(2) + " HTTP/1.1\r\nHost: m\r\n", false},
		{"GET /images/" + id(3) + " HTTP/1.1\r\nHost: m\r\n", false},
		{"GET /none HTTP/1.1\r\nHost: m\r\n", false},
	} {
		request := test.request + "\r\n"
		method, _, _ := strings.Cut(request, " ")
		want := f.read(bufio.NewReader(f.slowly(request)), method) // also makes what has to be made
		begun := time.Now().Truncate(time.Second)
		timeless := func(r reply) reply {
			if r.status == http.StatusContinue {
				return r
			}
			if date, err := http.ParseTime(r.header.Get("Date")); err != nil || date.Before(begun.Add(-time.Second)) || date.After(time.Now()) {
				t.Errorf("%q: Date is %q", test.request, r.header["Date"])
			}
			if _, err := strconv.Atoi(r.header.Get("X-Response-Time")); err != nil || len(r.header["X-Response-Time"]) != 1 {
				t.Errorf("%q: X-Response-Time is %q", test.request, r.header["X-Response-Time"])
			}
			for _, name := range []string{"Date", "X-Request-Id", "X-Response-Time"} {
				if r.header.Get(name) != "mine" {
					r.header.Del(name)
				}
			}
			return r
		}
		want = timeless(want)
		quickly := f.dial()
		br := bufio.NewReader(quickly)
		ids := make(map[string]bool)
		for range 3 { // the header of the first reply serves for the next ones
			if _, err := fmt.Fprint(quickly, request); err != nil {
				t.Fatal(err)
			}
			got := f.read(br, method)
			ids[got.header.Get("X-Request-Id")] = true
			if got = timeless(got); got.status != want.status || fmt.Sprint(got.header) != fmt.Sprint(want.header) || got.body != want.body {
				t.Errorf("%q:\n%d %v %d bytes, want\n%d %v %d bytes", test.request, got.status, got.header, len(got.body), want.status, want.header, len(want.body))
			}
			if !test.loop {
				break
			}
		}
		if loop := f.byLoop(quickly); loop != test.loop {
			t.Errorf("%q: by a loop %v, want %v", test.request, loop, test.loop)
		}
		if !test.loop {
			continue
		}
		if len(ids) != 3 && !ids["mine"] {
			t.Errorf("%q: the ids are %v", test.request, ids)
		}
		if r := f.exchange(quickly, br, "GET", "/images/"+id(1)); r.status != http.StatusOK {
			t.Errorf("%q: the next request has status %d", test.request, r.status)
		}
	}
}

// panics is a Catalog that panics when asked.
type panics struct {
	Catalog
	on atomic.Bool
}

func (p *panics) Current() *catalog.List {
	if p.on.Load() {
		panic("planted")
	}
	return p.Catalog.Current()
}

// A panic in a quick answer ends neither the loop nor the connection: the reply is the 500 of every panic.
func TestPanicByLoop(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2())
	broken := &panics{Catalog: f.options.Catalog}
	f.options.Catalog = broken
	f.start()
	c := f.dial()
	br := bufio.NewReader(c)
	if r := f.exchange(c, br, "GET", "/images/"+id(1)); r.status != http.StatusOK || !f.byLoop(c) {
		t.Fatal(r.status)
	}
	broken.on.Store(true)
	if r := f.exchange(c, br, "GET", "/images/"+id(1)); r.status != http.StatusInternalServerError {
		t.Error(r.status)
	}
	broken.on.Store(false)
	for range 2 { // there are other connections
		if r := f.get("/images/" + id(1)); r.status != http.StatusOK {
			t.Error(r.status)
		}
	}
}

// An answer by a loop allocates nothing but the ids of requests: one piece of memory for sixteen of them.
func TestLoopAllocates(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2())
	f.options.Logger = nil
	d := newDirect(t, f)
	near := d.conn.(*net.TCPConn)
	c := eventloop.NewConn(near)
	if _, ok, _ := d.server.conns.add(c); !ok {
		t.Fatal("the connection was refused")
	}
	a := newAtOnce(d.server)
	for _, line := range []string{"GET /ping", "HEAD /ping", "GET /images/" + id(1), "GET /images/" + id(1) + " HTTP/1.1\r\nIf-None-Match: *", "GET /images"} {
		target, headers, _ := strings.Cut(line, " HTTP/1.1")
		request := []byte(target + " HTTP/1.1\r\nHost: mirror\r\nUser-Agent: imgadm" + headers + "\r\n\r\n")
		perSixteen := testing.AllocsPerRun(50, func() {
			for range idsAtOnce {
				if r := a.answer(c, request); r.Read != len(request) || len(r.Bytes) == 0 || r.Then != eventloop.Wait {
					t.Fatal(r.Read, len(r.Bytes), r.Then)
				}
			}
		})
		if perSixteen > 1 {
			t.Errorf("%q: %v allocations for %d requests, want the one for their ids", line, perSixteen, idsAtOnce)
		}
	}
}

// After many requests at once a connection leaves the loop, and has all replies in order.
func TestTurn(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2()).start()
	c := f.dial()
	const n = 3 * turn
	request := func(i int) string {
		return fmt.Sprintf("GET /ping HTTP/1.1\r\nHost: m\r\nX-Request-Id: %d\r\n\r\n", i)
	}
	var all strings.Builder
	for i := range n {
		all.WriteString(request(i))
	}
	if _, err := fmt.Fprint(c, all.String()); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	for i := range n {
		if got := f.read(br, "GET").header.Get("X-Request-Id"); got != fmt.Sprint(i) {
			t.Fatalf("reply %d is to request %s", i, got)
		}
	}
	if f.byLoop(c) {
		t.Error("the loop still has the connection")
	}
}

// Many requests at once are not answered by more than a connection may hold: a client may take no reply.
func TestRepliesOfTurn(t *testing.T) {
	large := image{uuid: id(1), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", smallBody-2000) + `"`}
	f := newFixture(t, large.v2())
	f.options.Logger = nil
	d := newDirect(t, f)
	c := eventloop.NewConn(d.conn.(*net.TCPConn))
	if _, ok, _ := d.server.conns.add(c); !ok {
		t.Fatal("the connection was refused")
	}
	one := "GET /images/" + id(1) + " HTTP/1.1\r\nHost: m\r\n\r\n"
	r := newAtOnce(d.server).answer(c, []byte(strings.Repeat(one, turn)))
	if r.Read == 0 || r.Read%len(one) != 0 || r.Then != eventloop.Leave || len(r.Bytes) < r.Read/len(one)*(smallBody-2000) {
		t.Errorf("%d bytes read, %d of replies, then %v", r.Read, len(r.Bytes), r.Then)
	}
	if len(r.Bytes) > ConnectionMemory-2*readBuffer {
		t.Errorf("replies of %d bytes", len(r.Bytes))
	}
}

// After a reply by a loop a client is idle while its next header drips in: the client makes room for a newcomer.
func TestDripAfterLoopIsIdle(t *testing.T) {
	f := newFixture(t)
	f.options.MaxConnections = 1
	f.start()
	c := f.dial()
	if _, err := fmt.Fprint(c, "GET /ping HTTP/1.1\r\nHost: m\r\n\r\nG"); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	if r := f.read(br, "GET"); r.status != http.StatusOK {
		t.Fatal(r.status)
	}
	waitFor(t, "the connection to have left the loop", func() bool { return !f.byLoop(c) })
	f.atRest(1)
	if r := f.get("/ping"); r.status != http.StatusOK {
		t.Errorf("a newcomer gets %d", r.status)
	}
	ended(t, c)
}

// A loop compresses no list: the first client that asks for a form of the list leaves the loop.
func TestLoopMakesNoForm(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x")}.v2()).start()
	for _, encoding := range []string{"gzip", "zstd"} {
		for _, byLoop := range []bool{false, true} {
			c := f.dial()
			r := f.exchange(c, bufio.NewReader(c), "GET", "/images", "Accept-Encoding: "+encoding)
			if r.status != http.StatusOK || r.header.Get("Content-Encoding") != encoding || f.byLoop(c) != byLoop {
				t.Errorf("%s: %d %v, by a loop %v, want %v", encoding, r.status, r.header, f.byLoop(c), byLoop)
			}
		}
	}
}

// A large list to a client that has been with a loop goes out by the TCP connection itself.
func TestListAfterPing(t *testing.T) {
	big := image{uuid: id(2), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", 2*smallBody) + `"`}
	f := newFixture(t, big.v2())
	d := newDirect(t, f)
	list := func(conn net.Conn) (*listBody, bool) {
		if _, ok, _ := d.server.conns.add(conn); !ok {
			t.Fatal("the connection was refused")
		}
		ctx := &fasthttp.RequestCtx{}
		ctx.Init2(conn, nil, false)
		body := &listBody{server: d.server, left: 2 * smallBody}
		return body, d.server.send(d.server.newRequest(ctx, ""), body, "")
	}
	if body, streamed := list(&eventloop.Resumed{TCPConn: d.conn.(*net.TCPConn)}); !streamed || !body.direct || body.conn != d.conn {
		t.Errorf("sent by a %T, direct %v", body.conn, body.direct)
	}
}

// held is a Catalog. The nth call of Current waits.
type held struct {
	Catalog
	n, nth   atomic.Int32
	in, free chan struct{}
}

func (h *held) Current() *catalog.List {
	if h.n.Add(1) == h.nth.Load() {
		h.in <- struct{}{}
		<-h.free
	}
	return h.Catalog.Current()
}

// A client that a newcomer looked at between two requests of one turn is in the order of idleness afterwards.
func TestIdleAfterTurn(t *testing.T) {
	f := newFixture(t)
	f.options.MaxConnections = 1
	h := &held{Catalog: f.options.Catalog, in: make(chan struct{}), free: make(chan struct{})}
	h.nth.Store(2)
	f.options.Catalog = h
	f.start()
	c := f.dial()
	if _, err := fmt.Fprint(c, strings.Repeat("GET /ping HTTP/1.1\r\nHost: m\r\n\r\n", 2)); err != nil {
		t.Fatal(err)
	}
	<-h.in // the first request is answered
	refused := f.dial()
	if r := f.read(bufio.NewReader(refused), "GET"); r.status != http.StatusServiceUnavailable {
		t.Errorf("a newcomer beside a request under way gets %d", r.status)
	}
	close(h.free)
	br := bufio.NewReader(c)
	for range 2 {
		f.read(br, "GET")
	}
	f.atRest(1)
	if r := f.get("/ping"); r.status != http.StatusOK {
		t.Errorf("a newcomer beside an idle client gets %d", r.status)
	}
}

// A client that took its replies slowly, and then rests, is with a loop again, and idle.
func TestSlowClientComesBack(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", smallBody-2000) + `"`}.v2())
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	small := func(option int) func(_, _ string, c syscall.RawConn) error {
		return func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 4096) })
		}
	}
	listen := net.ListenConfig{Control: small(unix.SO_SNDBUF)}
	ln, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.serve(s, ln)
	dialer := net.Dialer{Control: small(unix.SO_RCVBUF)}
	c, err := dialer.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection to be open", func() bool { return f.byLoop(c) })
	asked := 0
	for ; f.byLoop(c); asked++ {
		done := f.log.lines(t, "request")
		if _, err := fmt.Fprintf(c, "GET /images/%s HTTP/1.1\r\nHost: m\r\n\r\n", id(1)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the request to be answered", func() bool { return len(f.log.lines(t, "request")) > len(done) || !f.byLoop(c) })
	}
	br := bufio.NewReader(c)
	for range asked {
		if r := f.read(br, "GET"); r.status != http.StatusOK {
			t.Fatal(r.status)
		}
	}
	waitFor(t, "the connection to be with a loop again", func() bool { return f.byLoop(c) })
	f.atRest(1)
	if r := f.exchange(c, br, "GET", "/ping"); r.status != http.StatusOK || !f.byLoop(c) {
		t.Error(r.status)
	}
}

// A connection that the loops do not take back ends, between two requests, without a word.
func TestNotTakenBack(t *testing.T) {
	near := newDirect(t, newFixture(t))
	f := newFixture(t).start()
	f.get("/ping") // there are loops
	c := eventloop.NewConn(near.conn.(*net.TCPConn))
	if _, ok, _ := f.server.conns.add(c); !ok {
		t.Fatal("the connection was refused")
	}
	allow := allowNoDescriptor(t)
	f.server.resume(c, near.conn, []byte("the rest"), false)
	allow()
	if b, err := io.ReadAll(near.far); err != nil || string(b) != "the rest" {
		t.Errorf("%q, %v", b, err)
	}
	f.atRest(0)
}

// A client that has reset its connection keeps its address: in the log, and where connections are counted by address.
func TestAddressAfterReset(t *testing.T) {
	f := newFixture(t)
	f.options.MaxPerAddress = 10
	f.start()
	const n = 50
	for i := range n {
		c := f.dialFrom(fmt.Sprintf("127.0.1.%d", i+1))
		if _, err := fmt.Fprint(c, "DELETE /images HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	f.get("/ping") // accepted after all others
	f.atRest(0)
	f.server.conns.mu.Lock()
	if hosts := len(f.server.conns.hosts); hosts != 0 {
		t.Errorf("%d addresses without connections", hosts)
	}
	f.server.conns.mu.Unlock()
	for _, line := range f.log.lines(t, "request") {
		if line["path"] == "/ping" {
			continue
		}
		if remote, _ := line["remote"].(string); !strings.HasPrefix(remote, "127.0.1.") {
			t.Errorf("a request of %v", line["remote"])
		}
	}
}

// The last reply of a connection arrives whole, also with further requests behind.
func TestLastReplyIsWhole(t *testing.T) {
	f := newFixture(t, image{uuid: id(1), content: []byte("x"), extra: `,"description":"` + strings.Repeat("d", smallBody-2000) + `"`}.v2()).start()
	f.server.conns.draining.Store(true)
	for range 20 {
		c := f.dial()
		if _, err := fmt.Fprint(c, strings.Repeat("GET /images/"+id(1)+" HTTP/1.1\r\nHost: m\r\n\r\n", 5)); err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		if r := f.read(br, "GET"); r.status != http.StatusOK {
			t.Fatal(r.status)
		}
		if b, err := io.ReadAll(br); err != nil || len(b) > 0 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
}

// BenchmarkAtOnce is what an answer by a loop costs beside the system calls, the line of the access log included.
func BenchmarkAtOnce(b *testing.B) {
	f := newFixture(b, image{uuid: id(1), content: []byte("x")}.v2())
	f.options.Logger = nil
	log, err := accesslog.New(accesslog.Options{Writer: io.Discard, Common: "level=INFO msg=request component=proxy"})
	if err != nil {
		b.Fatal(err)
	}
	f.options.AccessLog = log
	d := newDirect(b, f)
	c := eventloop.NewConn(d.conn.(*net.TCPConn))
	if _, ok, _ := d.server.conns.add(c); !ok {
		b.Fatal("the connection was refused")
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = log.Run(ctx)
	}()
	defer func() { stop(); <-ended }()
	a := newAtOnce(d.server)
	for _, line := range []string{"/ping", "/images/" + id(1), "/images HTTP/1.1\r\nIf-None-Match: *"} {
		target, header, _ := strings.Cut(line, " HTTP/1.1")
		request := []byte("GET " + target + " HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: imgadm/3.9.5\r\nAccept: */*" + header + "\r\n\r\n")
		b.Run(target, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := a.answer(c, request); len(r.Bytes) == 0 || r.Then != eventloop.Wait {
					b.Fatal(len(r.Bytes), r.Then)
				}
			}
		})
	}
}
