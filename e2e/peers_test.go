package e2e

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestMirrorsInARing: mirrors that are each other's sources, or their own, have nothing by that: what no server has is
// not there, at once, and what has left its server leaves all of them, without or with a server behind each.
func TestMirrorsInARing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2, 3} {
		for _, behind := range []string{"each", "one"} {
			t.Run(fmt.Sprintf("%d, a server behind %s", size, behind), func(t *testing.T) {
				t.Parallel()
				stays, leaves := newImage("stays", 1000), newImage("leaves", 1000)
				src := newSource(t, stays, leaves)
				often := settings{"refresh": "200ms"}
				ring := make([]*mirror, size)
				for k := range ring {
					ring[k] = newMirror(t, nil)
				}
				for k, m := range ring {
					sources := []map[string]any{from(ring[(k+1)%size].url, often, settings{"name": "peer"})}
					if k == 0 || behind == "each" {
						sources = append(sources, from(src.URL(), often))
					}
					m.set(settings{"sources": sources})
				}
				for _, m := range ring {
					m.launch()
				}
				for _, m := range ring {
					m.awaitReady()
					m.until("both images are listed", func() bool { return m.metric("imgmirror_catalog_images") == 2 })
				}
				for _, m := range ring {
					start := time.Now()
					get(t, m.url+"/images/"+uuid.NewString()).wantError(t, 404, "ResourceNotFound")
					if took := time.Since(start); took > 2*time.Second {
						t.Errorf("an image that nobody has: %v", took)
					}
				}
				src.Remove(uuid.MustParse(leaves.uuid))
				start := time.Now()
				get(t, ring[size-1].url+"/images/"+leaves.uuid+"/file").wantError(t, 404, "ResourceNotFound")
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("a file that nobody has: %v", took)
				}
				for _, m := range ring {
					m.until("what left its server has left", func() bool {
						return !bytes.Contains(get(t, m.url+"/images").body, []byte(leaves.uuid))
					})
					get(t, m.url+"/images/"+stays.uuid+"/file").wantFile(t, stays)
				}
				if size == 1 {
					if log := ring[0].log(); !bytes.Contains([]byte(log), []byte("the source is this mirror itself")) {
						t.Error("the log does not say that a source is the mirror itself")
					}
				}
			})
		}
	}
}

// TestMirrorsWithNothing: two mirrors that are each other's sources, beside a server without images, know that there is
// nothing: neither waits for the other's list to answer the other.
func TestMirrorsWithNothing(t *testing.T) {
	t.Parallel()
	src := newSource(t)
	often := settings{"refresh": "200ms"}
	pair := []*mirror{newMirror(t, nil), newMirror(t, nil)}
	for k, m := range pair {
		m.set(settings{"sources": []map[string]any{from(pair[1-k].url, often, settings{"name": "peer"}), from(src.URL(), often)}})
		m.launch()
	}
	for _, m := range pair {
		m.awaitReady()
		m.until("the list is known to be empty", func() bool {
			r := get(t, m.url+"/images")
			return r.status == 200 && string(bytes.TrimSpace(r.body)) == "[]"
		})
	}
}

// TestMirrorsInTiers: what comes through mirrors that are in no ring comes through, by list, by uuid and as a file.
func TestMirrorsInTiers(t *testing.T) {
	t.Parallel()
	img, hidden := newImage("listed", 1000), newImage("hidden", 1000, map[string]any{"state": "disabled", "disabled": true})
	src := newSource(t, img, hidden)
	url := src.URL()
	var last *mirror
	for range 3 {
		last = startMirror(t, nil, from(url, settings{"refresh": "200ms"}))
		url = last.url
	}
	last.awaitList(1)
	get(t, last.url+"/images/"+hidden.uuid).has(t, hidden.uuid)
	get(t, last.url+"/images/"+hidden.uuid+"/file").wantFile(t, hidden)
	get(t, last.url+"/images/"+img.uuid+"/file").wantFile(t, img)
}
