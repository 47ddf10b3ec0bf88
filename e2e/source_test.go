package e2e

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/upstream/upstreamtest"
)

// source is an image server played by upstreamtest, in terms of this package's images.
type source struct {
	*upstreamtest.Server
	t testing.TB
}

// newSource starts an IMGAPI server with images; it is stopped at the end of the test.
func newSource(t testing.TB, images ...image) *source {
	t.Helper()
	return newSourceWith(t, upstreamtest.Options{}, images...)
}

// newSourceWith is newSource with options.
func newSourceWith(t testing.TB, o upstreamtest.Options, images ...image) *source {
	t.Helper()
	server, err := upstreamtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	s := &source{server, t}
	for _, img := range images {
		s.add(img)
	}
	return s
}

// add serves one more image.
func (s *source) add(img image) {
	s.t.Helper()
	if err := s.Add(img.manifest, img.file); err != nil {
		s.t.Fatal(err)
	}
}

// setIcon gives an image its icon.
func (s *source) setIcon(id string, icon []byte) { s.SetIcon(uuid.MustParse(id), icon) }

// rate limits every file from now on to so many bytes per second; it replaces all faults.
func (s *source) rate(perSecond int64) {
	s.Heal()
	s.Inject(upstreamtest.Fault{Path: "/file", Rate: perSecond})
}

// link makes the source reachable over a line of so many bytes per second for
// each connection, and returns its url there. Unlike rate it keeps to a
// schedule: what is late because the machine is busy is made up for, as on a
// real line, so that times can be compared.
func (s *source) link(perSecond int64) string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server, served := &http.Server{Handler: s.Server}, make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(line{l, perSecond}) // ends by Close
	}()
	s.t.Cleanup(func() {
		server.Close()
		<-served
	})
	return "http://" + l.Addr().String()
}

// line is a listener whose connections send so many bytes per second.
type line struct {
	net.Listener
	perSecond int64
}

func (l line) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lineConn{Conn: conn, perSecond: l.perSecond}, nil
}

// lineConn is used by one writer at a time.
type lineConn struct {
	net.Conn
	perSecond int64
	free      time.Time // when the line has sent what was written so far
}

func (c *lineConn) Write(p []byte) (int, error) {
	const piece = 16 << 10
	for written := 0; ; {
		now := time.Now()
		if wait := c.free.Sub(now); wait > 0 {
			<-time.After(wait)
		} else if wait < -100*time.Millisecond {
			c.free = now // it was idle
		}
		n, err := c.Conn.Write(p[written:min(written+piece, len(p))])
		written += n
		c.free = c.free.Add(time.Duration(n) * time.Second / time.Duration(c.perSecond))
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// firstByte is when the source wrote the first byte of img's file.
func (s *source) firstByte(img image) time.Time {
	for _, r := range s.Requests() {
		if r.Path == filePath(img) {
			return r.FirstByte
		}
	}
	return time.Time{}
}

// hang answers nothing any more, and keeps connections open.
func (s *source) hang() { s.Inject(upstreamtest.Fault{Delay: time.Hour}) }

// filePath is where img's file is.
func filePath(img image) string { return "/images/" + img.uuid + "/file" }

// requests counts the requests for img's file so far, sent the bytes sent for them.
func (s *source) requests(img image) int { return s.Count(filePath(img)) }
func (s *source) sent(img image) int64   { return s.Bytes(filePath(img)) }
