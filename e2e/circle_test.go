package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"imgmirror/proxy/upstream/upstreamtest"
)

// TestMirrorsDoNotWaitInACircle: of mirrors that have each other for sources, all are asked in the same instant for a
// file that no server gives. Each has the answer soon, although each waits for another. A file whose server is slow to
// begin comes all the same.
func TestMirrorsDoNotWaitInACircle(t *testing.T) {
	t.Parallel()
	next := func(k, of int) []int { return []int{(k + 1) % of} }
	for _, shape := range []struct {
		name string
		size int
		of   func(k, of int) []int
	}{
		{"self", 1, next}, {"pair", 2, next}, {"ring of 3", 3, next}, {"ring of 4", 4, next},
		{"mesh", 3, func(k, of int) []int { return []int{(k + 1) % of, (k + 2) % of} }},
	} {
		for _, serverFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, server first %v", shape.name, serverFirst), func(t *testing.T) {
				t.Parallel()
				var all []image
				for n := range 5 {
					all = append(all, newImage(fmt.Sprintf("lost%d", n), 1000+n))
				}
				slow := newImage("slow", 1<<20)
				src := newSource(t, append(all, slow)...)
				src.Inject(upstreamtest.Fault{Path: slow.uuid + "/file", Delay: time.Second})
				src.Inject(upstreamtest.Fault{Path: "/file", Status: 404, Delay: 10 * time.Millisecond})
				mirrors := make([]*mirror, shape.size)
				for k := range mirrors {
					mirrors[k] = newMirror(t, nil)
				}
				for k, m := range mirrors {
					sources := []map[string]any{from(src.URL(), nil)}
					for _, p := range shape.of(k, shape.size) {
						sources = append(sources, from(mirrors[p].url, settings{"name": fmt.Sprintf("peer%d", p), "refresh": "200ms"}))
					}
					if !serverFirst {
						sources = append(sources[1:], sources[0])
					}
					m.set(settings{"sources": sources})
					m.launch()
				}
				for _, m := range mirrors {
					m.awaitReady()
					m.awaitList(len(all) + 1)
					m.until("its peers are known", func() bool {
						return m.metric("imgmirror_upstream_up") == float64(len(shape.of(0, shape.size))+1) || shape.size == 1
					})
				}
				for _, img := range all {
					var wait sync.WaitGroup
					start := time.Now()
					for _, m := range mirrors {
						wait.Go(func() {
							r := get(t, m.url+"/images/"+img.uuid+"/file")
							if took := time.Since(start); r.status != 404 && r.status != 503 || took > 5*time.Second {
								t.Errorf("%s: %d after %v", m.url, r.status, took)
							}
						})
					}
					wait.Wait()
				}
				var wait sync.WaitGroup
				for _, m := range mirrors {
					wait.Go(func() { get(t, m.url+"/images/"+slow.uuid+"/file").wantFile(t, slow) })
				}
				wait.Wait()
			})
		}
	}
}

// TestTiersAskOnce: all tiers are asked in the same instant for a file whose server is slow to begin; each tier brings it
// once.
func TestTiersAskOnce(t *testing.T) {
	t.Parallel()
	img := newImage("slow", 3<<20)
	src := newSource(t, img)
	src.Inject(upstreamtest.Fault{Path: "/file", Delay: 2 * time.Second})
	top := startMirror(t, nil, from(src.URL(), nil))
	middle := startMirror(t, nil, from(top.url, nil))
	mirrors := []*mirror{top, middle}
	for range 3 {
		mirrors = append(mirrors, startMirror(t, nil, from(middle.url, nil)))
	}
	for _, m := range mirrors {
		m.awaitList(1)
	}
	var wait sync.WaitGroup
	for _, m := range mirrors {
		for range 4 {
			wait.Go(func() { get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img) })
		}
	}
	wait.Wait()
	if n := src.Count("/file"); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
	for _, m := range mirrors {
		if got := m.metric("imgmirror_upstream_received_bytes_total"); got > 1.5*float64(len(img.file)) {
			t.Errorf("%s has received %v bytes of %d", m.url, got, len(img.file))
		}
	}
}
