package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/proxy/catalog"
)

// listFixture has a list of about 800 KiB, which an event loop sends.
func listFixture(t *testing.T) (f *fixture, list []byte) {
	t.Helper()
	f = fatFixture(t, 180, 4200)
	current := f.options.Catalog.Current()
	view, _ := current.View(current.DefaultChannel())
	list = view.Reply(false, catalog.Identity).Body
	if len(list) > mostInFile || len(list) < mostInFile/2 {
		t.Fatalf("the list has %d bytes", len(list))
	}
	return f, list
}

// startNarrow starts a server with small send buffers: the kernel has room for a small part of a list.
func (f *fixture) startNarrow() {
	f.Helper()
	s, err := New(f.options)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		f.Fatal(err)
	}
	ln := *s.listener.Load()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		f.Fatal(err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) { // connections inherit the size
		fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 32<<10)
	})
	if err := errors.Join(err, fault); err != nil {
		f.Fatal(err)
	}
	f.serve(s, ln)
}

// narrow asks for the list. The client takes nothing of the list until the test reads.
func (f *fixture) narrow() net.Conn {
	f.Helper()
	c := f.dial()
	if err := errors.Join(c.(*net.TCPConn).SetReadBuffer(64<<10), writeAll(c, getImages)); err != nil {
		f.Fatal(err)
	}
	return c
}

func writeAll(c net.Conn, text string) error {
	_, err := io.WriteString(c, text)
	return err
}

const getImages = "GET /images HTTP/1.1\r\nHost: m\r\n\r\n"

// A list that an event loop sends is whole, also to a slow client, and the connection stays with the loop. The
// reply's line in the log comes at the end, with all bytes.
func TestListByLoop(t *testing.T) {
	f, list := listFixture(t)
	f.startNarrow()
	slow := f.narrow()
	br := bufio.NewReaderSize(slow, 16)
	if _, err := br.Peek(1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := f.get("/images"); r.body != string(list) {
			t.Fatalf("%d bytes, want %d", len(r.body), len(list))
		}
	}
	for _, l := range f.log.requests(t, 2) {
		if l["bytes"] != float64(len(list)) || l["error"] != nil || l["status"] != 200.0 || l["path"] != "/images" {
			t.Errorf("the line is %v", l)
		}
	}
	if n := f.server.memory.readers(); n != 1 {
		t.Errorf("%d lists are being read", n)
	}
	if r := f.read(br, "GET"); r.body != string(list) {
		t.Fatalf("%d bytes, want %d", len(r.body), len(list))
	}
	if l := f.log.requests(t, 3)[2]; l["bytes"] != float64(len(list)) || l["error"] != nil {
		t.Errorf("the line is %v", l)
	}
	if r := f.exchange(slow, br, "GET", "/images"); r.body != string(list) || !f.byLoop(slow) {
		t.Errorf("%d bytes, want %d, by a loop %v", len(r.body), len(list), f.byLoop(slow))
	}
	waitFor(t, "the readers to end", func() bool { return f.server.memory.readers() == 0 })
}

// A client that leaves in the middle of a list has a line with the error, and holds nothing.
func TestClientLeavesListOfLoop(t *testing.T) {
	f, list := listFixture(t)
	f.startNarrow()
	c := f.narrow()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	l := f.log.requests(t, 1)[0]
	cause, _ := l["error"].(string)
	if l["bytes"] != 0.0 || !strings.HasPrefix(cause, "client: ") || !strings.HasSuffix(cause, fmt.Sprintf(" (of a reply of %d bytes)", len(list))) {
		t.Errorf("the line is %v", l)
	}
	if n := f.server.memory.readers(); n != 0 {
		t.Errorf("%d lists are being read", n)
	}
}

// A client that takes nothing of a list ends after Options.ClientStall and what the list's size allows.
func TestStalledListOfLoop(t *testing.T) {
	f, list := listFixture(t)
	f.options.ClientStall = -time.Duration(len(list)/(16<<10))*time.Second + 300*time.Millisecond // the size allows the rest
	f.startNarrow()
	began := time.Now()
	f.narrow()
	l := f.log.requests(t, 1)[0]
	if cause, _ := l["error"].(string); !strings.Contains(cause, "timeout") {
		t.Errorf("the line is %v", l)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("ended after %v", took)
	}
}

// A stop lets a list come to its end, and cuts it at the drain deadline.
func TestStopDuringListOfLoop(t *testing.T) {
	f, list := listFixture(t)
	f.startNarrow()
	c := f.narrow()
	br := bufio.NewReaderSize(c, 16)
	if _, err := br.Peek(1); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	waitFor(t, "the stop", f.server.conns.draining.Load)
	if r := f.read(br, "GET"); r.body != string(list) {
		t.Errorf("%d bytes, want %d", len(r.body), len(list))
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}

	f, _ = listFixture(t)
	f.options.DrainTimeout = 100 * time.Millisecond
	f.startNarrow()
	c = f.narrow()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if l := f.log.requests(t, 1)[0]; l["error"] == nil {
		t.Errorf("the line is %v", l)
	}
}

// A list that no loop sends is the same: a list with requests behind it, and a list too large.
func TestListNotByLoop(t *testing.T) {
	f, list := listFixture(t)
	f.start()
	c := f.dial()
	if _, err := io.WriteString(c, getImages+getImages); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	for range 2 {
		if r := f.read(br, "GET"); r.status != http.StatusOK || r.body != string(list) {
			t.Errorf("%d bytes, want %d", len(r.body), len(list))
		}
	}
	if f.byLoop(c) {
		t.Error("a loop has sent two lists at once")
	}
	f = fatFixture(t, fatCount, 4200).start()
	c = f.dial()
	if r := f.exchange(c, bufio.NewReader(c), "GET", "/images"); r.status != http.StatusOK || len(r.body) < mostInFile || f.byLoop(c) {
		t.Errorf("%d, %d bytes, by a loop %v", r.status, len(r.body), f.byLoop(c))
	}
}

// Without a descriptor for its file a list comes another way, and the next list is tried again.
func TestNoFileForList(t *testing.T) {
	f, list := listFixture(t)
	f.start()
	c, other := f.dial(), f.dial()
	br := bufio.NewReader(c)
	f.exchange(other, bufio.NewReader(other), "GET", "/ping") // both are with a loop
	allow := allowNoDescriptor(t)
	_, err := io.WriteString(c, getImages)
	const told = "lists are slower: there is no file for them in memory"
	waitFor(t, "the warning", func() bool { return len(f.log.lines(t, told)) > 0 })
	if allow(); err != nil {
		t.Fatal(err)
	}
	if r := f.read(br, "GET"); r.status != http.StatusOK || r.body != string(list) || f.byLoop(c) {
		t.Errorf("%d, %d bytes, by a loop %v", r.status, len(r.body), f.byLoop(c))
	}
	if r := f.exchange(other, bufio.NewReader(other), "GET", "/images"); r.body != string(list) || !f.byLoop(other) {
		t.Errorf("%d, %d bytes, by a loop %v", r.status, len(r.body), f.byLoop(other))
	}
	if n := len(f.log.lines(t, told)); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// A list has the same headers and bytes in each encoding, by a loop and by fasthttp.
func TestEncodingsByLoop(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a text that cannot be compressed well
	text := make([]byte, 60_000)
	for i := range text {
		text[i] = 'a' + byte(random.IntN(26))
	}
	f := newFixture(t, image{uuid: id(1), content: []byte("x"), extra: `,"description":"` + string(text) + `"`}.v2()).start()
	for _, encoding := range []string{"gzip", "zstd", "identity"} {
		request := "GET /images HTTP/1.1\r\nHost: m\r\nAccept-Encoding: " + encoding + "\r\n\r\n"
		want := f.read(bufio.NewReader(f.slowly(request)), "GET")
		c := f.dial()
		br := bufio.NewReader(c)
		for range 2 { // the second one has the header of the first
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
			got := f.read(br, "GET")
			for _, r := range []reply{got, want} {
				for _, name := range []string{"Date", "X-Request-Id", "X-Response-Time"} {
					r.header.Del(name)
				}
			}
			if fmt.Sprint(got.header) != fmt.Sprint(want.header) || got.body != want.body || len(got.body) <= smallBody || !f.byLoop(c) {
				t.Errorf("%s: %v, %d bytes, by a loop %v, want\n%v, %d bytes", encoding, got.header, len(got.body), f.byLoop(c), want.header, len(want.body))
			}
		}
	}
}

// A client of a loop that reads a replaced list is cut when newer ones need the memory, and the line tells why.
func TestOldListOfLoop(t *testing.T) {
	f, list := listFixture(t)
	replaced := &replaced{Catalog: f.options.Catalog}
	replaced.now.Store(f.options.Catalog.Current())
	f.options.Catalog, f.options.Memory = replaced, int64(3*len(list)) // one list with its file, not two
	f.startNarrow()
	for version := range 4 {
		if version > 0 {
			replaced.now.Store(newFixture(t, fatImages(180, 4200, fmt.Sprint(version))...).options.Catalog.Current())
		}
		c := f.dial()
		request := getImages
		if version == 3 {
			request += getImages // not by a loop
		}
		err := errors.Join(c.(*net.TCPConn).SetReadBuffer(64<<10), writeAll(c, request))
		if _, read := c.Read(make([]byte, 1)); err != nil || read != nil {
			t.Fatal(err, read)
		}
	}
	cut := f.log.requests(t, 2)
	for _, l := range cut {
		if cause, _ := l["error"].(string); !strings.Contains(cause, errOldList.Error()) {
			t.Errorf("the line is %v", l)
		}
	}
	if n := f.server.memory.readers(); len(cut) != 2 || n != 2 {
		t.Errorf("%d clients are cut, %d read on", len(cut), n)
	}
}

// replaced is a Catalog. A test sets the list of the Catalog.
type replaced struct {
	Catalog
	now atomic.Pointer[catalog.List]
}

func (r *replaced) Current() *catalog.List { return r.now.Load() }
