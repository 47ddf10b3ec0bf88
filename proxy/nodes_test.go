package proxy

import (
	"bufio"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/nodes"
)

// takenDown is a journal that hands on what it is told.
type takenDown chan nodes.Request

func (c takenDown) Note(r nodes.Request) { c <- r }

// What the journal is told of each request of a node; of checks of health, pages and unknown paths
// it is told nothing.
func TestNodes(t *testing.T) {
	content := noise(100_000)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	told := make(takenDown, 100)
	f.options.Nodes = told
	f.start()
	image := uuid.MustParse(id(1))
	want := func(want nodes.Request) {
		t.Helper()
		select {
		case got := <-told:
			if got.Ended.IsZero() || got.Took < 0 {
				t.Errorf("ended %v, took %v", got.Ended, got.Took)
			}
			got.Ended, got.Took = time.Time{}, 0
			want.Address = netip.MustParseAddr("127.0.0.1")
			if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Error(d)
			}
		case <-time.After(20 * time.Second):
			t.Error("the journal was told nothing")
		}
	}
	f.get("/readyz")
	f.get("/nothing")
	f.get("/ping", "User-Agent: imgadm/3.9.5", "X-Forwarded-For: 10.1.1.1", "Forwarded: for=10.1.1.1")
	want(nodes.Request{Agent: "imgadm/3.9.5", Kind: nodes.Other})
	f.get("/images")
	want(nodes.Request{Kind: nodes.List})
	f.get("/datasets/" + id(1))
	want(nodes.Request{Kind: nodes.Manifest})
	f.get("/images/" + id(7)) // 404: imgadm asks its other sources
	want(nodes.Request{Kind: nodes.Manifest})
	f.send("HEAD", filePath)
	want(nodes.Request{Kind: nodes.Other})
	f.get(filePath)
	want(nodes.Request{Kind: nodes.File, Result: "MISS", Image: image, Sent: 100_000, Size: 100_000})
	f.options.Files.(mirror.Files).Store.(*cache.Store).Idle() // the file is published
	f.get(filePath, "Range: bytes=5000-5999")
	want(nodes.Request{Kind: nodes.File, Result: "HIT", Image: image, Start: 5000, Sent: 1000, Size: 100_000})
	f.get("/datasets/" + id(1) + "/file")
	want(nodes.Request{Kind: nodes.File, Result: "HIT", Image: image, Sent: 100_000, Size: 100_000})
	f.get(filePath, "Range: bytes=200000-")
	want(nodes.Request{Kind: nodes.Other})
	f.get(filePath + "?index=1") // the image has one file
	want(nodes.Request{Kind: nodes.Other})
	if len(told) != 0 {
		t.Errorf("the journal was told more: %+v", <-told)
	}
}

// A client that leaves in the middle of a file: the journal is told of what was sent, and that the
// body was cut.
func TestNodesOfACutBody(t *testing.T) {
	content := noise(1 << 20)
	f, g := withStore(t, content, "")
	told := make(takenDown, 100)
	f.options.Nodes = told
	f.start()
	c := f.dial()
	if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	g.pass(512 << 10)
	if _, err := io.ReadFull(resp.Body, make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case got := <-told:
		if !got.Failed || got.Kind != nodes.File || got.Size != 1<<20 || got.Sent <= 0 || got.Sent > 512<<10 {
			t.Errorf("%+v", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("the journal was told nothing")
	}
	g.pass(len(content))
}
