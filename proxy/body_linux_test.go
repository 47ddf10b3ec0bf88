package proxy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// hit is a fixture with a file on disk, served on a listener that sees what goes out by goroutines of connections.
func hit(t *testing.T, content []byte, o func(*Options)) (*fixture, *watchListener) {
	t.Helper()
	f, g := withStore(t, content, "")
	g.pass(len(content))
	f.start() // by the usual times
	f.get(filePath)
	waitFor(t, "the file to be published", func() bool { return f.send("HEAD", filePath).header.Get("X-Cache") == "HIT" })
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	o(&f.options)
	f.options.Registerer = nil // has the metrics of the first server
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	ln := &watchListener{Listener: listenTCP(t)}
	f.serve(s, ln)
	return f, ln
}

// Beside another body a file goes out by the sender's loops; alone, by its own goroutine.
func TestBodiesByLoops(t *testing.T) {
	content := noise(12<<20 + 5)
	f, ln := hit(t, content, func(*Options) {})
	f.stalled(filePath) // this body stays with its goroutine
	ln.sent.Store(0)
	if r := f.get(filePath); r.body != string(content) || r.header.Get("X-Cache") != "HIT" {
		t.Fatalf("%d bytes, %v", len(r.body), r.header)
	}
	if own := ln.sent.Load(); own > 2*step {
		t.Errorf("%d of %d bytes by the connection's goroutine", own, len(content))
	}
}

// Many clients, whole files and ranges, on connections that are used again, get their bytes.
func TestCrowdByLoops(t *testing.T) {
	content := noise(2*step + 12345)
	f, _ := hit(t, content, func(*Options) {})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			from := i * 100_000
			for range 2 {
				r := f.get(filePath, fmt.Sprintf("Range: bytes=%d-", from))
				if r.body != string(content[from:]) || r.err != nil {
					t.Errorf("from %d: %d bytes, %v", from, len(r.body), r.err)
				}
			}
		})
	}
	all.Wait()
	waitFor(t, "the bodies to end", func() bool { return f.server.bodies.n.Load() == 0 })
}

// A client that a loop sends to, and that takes nothing, is cut, too.
func TestStalledClientsByLoops(t *testing.T) {
	content := noise(16 << 20)
	f, _ := hit(t, content, func(o *Options) { o.ClientStall = 300 * time.Millisecond })
	const clients = 4
	for range clients {
		f.stalled(filePath)
	}
	waitFor(t, "the connections to be closed", func() bool { return testutil.ToFloat64(f.server.metrics.connections) == 0 })
	cut := 0
	waitFor(t, "the lines of the clients that were cut", func() bool {
		cut = 0
		for _, line := range f.log.lines(t, "request") {
			message, _ := line["error"].(string)
			if strings.HasPrefix(message, "client: ") && strings.HasSuffix(message, "i/o timeout") && line["bytes"].(float64) < float64(len(content)) {
				cut++
			}
		}
		return cut >= clients
	})
	if cut != clients {
		t.Errorf("%d lines of clients that were cut", cut)
	}
}
