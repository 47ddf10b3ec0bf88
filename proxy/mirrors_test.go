package proxy

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/via"
)

// Who asks with a mirror's id in Via is told ours; a question with ours in it is not here, whatever it is about.
func TestVia(t *testing.T) {
	f := three(t)
	us, them := via.NewID(), via.NewID()
	f.options.ID = us
	f.start()
	paths := []string{"/ping", "/images", "/images/" + id(1), "/images/" + id(1) + "/file", "/datasets", "/datasets/" + id(1), "/", "/paths", "/images/" + id(99)}
	for _, path := range paths {
		if got := f.get(path, "Via: 1.1 squid"); got.header.Get("Via") != "" {
			t.Errorf("%s: a proxy is told %q", path, got.header.Get("Via"))
		}
		if got := f.get(path, "Via: 1.1 squid, "+via.Format(them)); got.header.Get("Via") != via.Format(us) {
			t.Errorf("%s: a mirror is told %q", path, got.header.Get("Via"))
		}
		got := f.wantError("GET", path, 404, "ResourceNotFound", path+" is not here: this mirror has asked itself", "Via: "+via.Format(us, them))
		if got.header.Get("Via") != via.Format(us) {
			t.Errorf("%s: this mirror is told %q", path, got.header.Get("Via"))
		}
	}
	if got := f.get("/paths"); got.status != 200 || got.body != `{"rest":[],"others":[]}` {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// lingering is a catalogue with a watch for circles that ends a while after its context.
type lingering struct {
	Catalog
	ended atomic.Bool
}

func (l *lingering) InCircle(ctx context.Context, _ catalog.Entry, _ int) bool {
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	l.ended.Store(true)
	return false
}

// The watch for a circle of mirrors is over when the mirror that has asked has its reply.
func TestCircleWatchEnds(t *testing.T) {
	f := three(t)
	watch := &lingering{Catalog: f.options.Catalog}
	f.options.ID, f.options.Catalog = via.NewID(), watch
	f.start()
	if got := f.get("/images/"+id(1)+"/file", "Via: "+via.Format(via.NewID())); !watch.ended.Load() {
		t.Errorf("the watch goes on after the reply: %d %s", got.status, got.body)
	}
}

// readers notes who reads.
type readers struct {
	Files
	by chan cache.By
}

func (r readers) Open(ctx context.Context, e catalog.Entry, index int, why cache.Why, by cache.By) (*cache.Reader, error) {
	r.by <- by
	return r.Files.Open(ctx, e, index, why, by)
}

// A mirror that asks for its clients is no client; a proxy in between makes none a mirror.
func TestPeerIsNoClient(t *testing.T) {
	f := three(t)
	noted := readers{f.options.Files, make(chan cache.By, 1)}
	f.options.ID, f.options.Files = via.NewID(), noted
	f.start()
	for header, want := range map[string]cache.By{"1.1 squid": cache.ByClient, "1.1 squid, " + via.Format(via.NewID()): cache.ByPeer} {
		f.get("/images/"+id(1)+"/file", "Via: "+header)
		if by := <-noted.by; by != want {
			t.Errorf("%s reads as %s, want %s", header, by, want)
		}
	}
}
