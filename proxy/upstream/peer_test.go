package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// peer is a mirror as others see it.
type peer struct {
	id    string
	mu    sync.Mutex
	paths string // "" = none are told
	via   []string
}

func (p *peer) set(paths string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths = paths
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.via = append(p.via, r.Header.Get("Via"))
	w.Header().Set("Via", via.Format(p.id))
	switch {
	case r.URL.Path == "/ping":
		fmt.Fprint(w, `{"ping":"pong","imgapi":true}`)
	case r.URL.Path == "/images":
		w.Header().Set("ETag", `"same"`)
		if r.Header.Get("If-None-Match") == `"same"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, "[%s,%s]", small(1), small(2))
	case r.URL.Path == "/paths" && p.paths != "":
		fmt.Fprint(w, p.paths)
	default:
		http.NotFound(w, r)
	}
}

// Questions tell on whose behalf they are asked, the last by itself.
func TestVia(t *testing.T) {
	p := &peer{id: via.NewID()}
	us, them := via.NewID(), via.NewID()
	c := newClient(t, Options{ID: us, URL: serve(t, p.ServeHTTP)})
	if _, err := c.Get(via.With(t.Context(), []string{them}), upstreamtest.ID(9)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, got := range p.via {
		if got != via.Format(them, us) {
			t.Errorf("Via %q", got)
		}
	}
}

// A source that is the mirror itself says so to every question, and has nothing.
func TestItself(t *testing.T) {
	for _, kind := range []string{kindAuto, kindIMGAPI, kindDSAPI, kindStatic} {
		us := via.NewID()
		c := newClient(t, Options{ID: us, Kind: kind, URL: serve(t, (&peer{id: us}).ServeHTTP)})
		m := parse(t, small(1))
		for what, ask := range map[string]func(context.Context) error{
			"list":     func(ctx context.Context) error { _, err := c.List(ctx, manifest.Listing{}); return err },
			"manifest": func(ctx context.Context) error { _, err := c.Get(ctx, m.UUID); return err },
			"file":     func(ctx context.Context) error { _, err := c.File(ctx, m, 0, 0); return err },
		} {
			err := ask(t.Context())
			if !errors.Is(err, via.ErrItself) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("%s, %s: %v", kind, what, err)
			}
		}
	}
}

// A mirror's images come with their ways, and without those that it has through us, also when they change alone.
func TestWays(t *testing.T) {
	us, third := via.NewID(), via.NewID()
	p := &peer{id: via.NewID()}
	c := newClient(t, Options{ID: us, URL: serve(t, p.ServeHTTP)})
	one, two := upstreamtest.ID(1), upstreamtest.ID(2)
	var last manifest.Listing
	f := func(paths, want string) {
		t.Helper()
		p.set(paths)
		l, err := c.List(t.Context(), last)
		if err != nil && !errors.Is(err, manifest.ErrNotModified) {
			t.Fatal(err)
		}
		var got []string
		for _, m := range l.Images {
			way := strings.Join(l.Ways[m.UUID], " ")
			got = append(got, strings.NewReplacer(p.id, "peer", third, "third").Replace(way))
		}
		if strings.Join(got, ", ") != want || l.Mirror != p.id {
			t.Errorf("%s: %q of %q, want %q", paths, got, l.Mirror, want)
		}
		if errors.Is(err, manifest.ErrNotModified) && len(last.Images) == 0 {
			t.Errorf("%s: not modified", paths)
		}
		last = l
	}
	group := func(id string, images string) string {
		return `{"rest":[],"others":[{"through":["` + id + `"],"images":["` + images + `"]}]}`
	}
	f("", "peer, peer")
	f(group(third, one.String()), "peer third, peer")
	f(group(us, one.String()), "peer")
	f(`{"rest":["`+third+`","`+us+`"],"others":[]}`, "")
	f(group(third, two.String()), "peer, peer third") // all of them are back, although the list never changed
}

// A mirror without an id knows no mirrors.
func TestNoVia(t *testing.T) {
	p := &peer{id: via.NewID()}
	c := newClient(t, Options{URL: serve(t, p.ServeHTTP)})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || l.Mirror != "" || l.Ways != nil || len(l.Images) != 2 || p.via[0] != "" {
		t.Errorf("%+v, %v, Via %q", l, err, p.via)
	}
}
