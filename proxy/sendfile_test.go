package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// Go's TCPConn.ReadFrom uses sendfile(2) for one thing: an *io.LimitedReader
// directly around an *os.File (or the file itself). This test stands where the
// TCP connection is, and looks at what comes down to it.
func TestFilesGoOutBySendfile(t *testing.T) {
	content := noise(5*step + 12345)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	ln := &watchListener{Listener: listenTCP(t)}
	f.serve(s, ln)
	whole := func(want string, headers ...string) {
		t.Helper()
		ln.sent.Store(0)
		ln.written.Store(0)
		r := f.get(filePath, headers...)
		if r.header.Get("X-Cache") != want || !bytes.Contains(content, []byte(r.body)) {
			t.Fatalf("%d %v", r.status, r.header)
		}
		if sent, written := ln.sent.Load(), ln.written.Load(); sent != int64(len(r.body)) || written > 2000 {
			t.Errorf("%s: %d of %d bytes by sendfile, %d by write", want, sent, len(r.body), written)
		}
	}
	whole("MISS") // what is in the partial file already goes the same way
	waitFor(t, "the file to be published", func() bool { return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT" })
	whole("HIT")
	whole("HIT", "Range: bytes=1000-4000000")
}

// A connection as accept gives it to fasthttp must be the listener's own: any
// wrapper, fasthttp's MaxConnsPerIP among them, hides its ReadFrom.
func TestConnectionsAreNotWrapped(t *testing.T) {
	f := newFixture(t)
	f.options.MaxPerAddress = 10
	f.start()
	c := f.dial()
	defer c.Close()
	f.exchange(c, bufio.NewReader(c), "GET", "/datasets") // no event loop answers
	for nc := range f.server.conns.open.Range {
		if _, ok := nc.(*net.TCPConn); !ok {
			t.Errorf("%T", nc)
		}
	}
	if f.server.http.MaxConnsPerIP != 0 {
		t.Error("MaxConnsPerIP is set")
	}
}

type watchListener struct {
	net.Listener
	sent, written atomic.Int64
}

func (l *watchListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchConn{c.(*net.TCPConn), l}, nil
}

type watchConn struct {
	*net.TCPConn
	l *watchListener
}

func (c *watchConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if limited, ok := r.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			c.l.sent.Add(n)
		}
	}
	return n, err
}

func (c *watchConn) Write(b []byte) (int, error) {
	c.l.written.Add(int64(len(b)))
	return c.TCPConn.Write(b)
}
