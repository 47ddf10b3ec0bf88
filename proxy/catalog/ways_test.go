package catalog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// behalf is a context of a question of these mirrors.
func behalf(t *testing.T, ids ...string) context.Context { return via.With(t.Context(), ids) }

// A mirror is told of what is here without it: the rest it has lost if it asks for it.
func TestGetOnBehalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fake{t: t, name: "server", listed: []spec{{n: 1}}, hidden: []spec{{n: 9}}}
		peer := &fake{t: t, name: "peer", mirror: "B", listed: []spec{{n: 1}, {n: 2}, {n: 3}}, hidden: []spec{{n: 8}},
			ways: map[int][]string{1: {"B"}, 2: {"B"}, 3: {"B", "C"}}}
		c := newCatalog(t, Options{Sources: sourcesOf(server, peer)})
		refresh(t, c)
		f := func(n int, want string, ids ...string) {
			t.Helper()
			e, err := c.Get(behalf(t, ids...), id(n))
			if want == "" && !isNotExist(err) || want != "" && (err != nil || holders(e) != want) {
				t.Errorf("image %d for %v: from %q, %v; want %q", n, ids, holders(e), err, want)
			}
		}
		f(1, "server peer")
		f(1, "server", "B")
		f(1, "server peer", "D")
		f(2, "peer")
		f(2, "", "B")
		f(2, "peer", "D")
		f(3, "peer", "D")
		f(3, "", "C", "B")
		f(8, "", "B")
		f(8, "", "D", "B") // somewhere on the way
		if n := peer.asked(8); n != 0 {
			t.Errorf("the mirror that asks was asked %d times", n)
		}
		f(8, "peer", "D")
		f(8, "", "B")
		f(9, "server", "B")
	})
}

// That a mirror is told nothing of what it has itself says nothing to others.
func TestGetOnBehalfIsNotRemembered(t *testing.T) {
	peer := &fake{t: t, name: "peer", mirror: "B", hidden: []spec{{n: 8}}}
	c := newCatalog(t, Options{Sources: sourcesOf(peer)})
	refresh(t, c)
	if _, err := c.Get(behalf(t, "B"), id(8)); !isNotExist(err) {
		t.Error(err)
	}
	if _, err := c.Get(t.Context(), id(8)); err != nil {
		t.Error(err)
	}
}

// A question that came back in a ring does not wait for the search that it comes from.
func TestGetInARing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *Catalog
		peer := &fake{t: t, name: "peer"} // a ring of three, which the first answers tell nothing of
		peer.gate = func(ctx context.Context) error {
			if len(via.From(ctx)) > 0 {
				return nil // it met itself
			}
			_, err := c.Get(behalf(t, "A", "B"), id(1))
			return err
		}
		c = newCatalog(t, Options{Sources: sourcesOf(peer)})
		if _, err := c.Get(t.Context(), id(1)); !isNotExist(err) {
			t.Error(err)
		}
	})
}

// While a mirror is asked for a file, it is not told to get the file here.
func TestFileBackAndForth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fake{t: t, name: "server", listed: []spec{{n: 1}}}
		peer := &slowFile{fake: &fake{t: t, name: "peer", mirror: "B", listed: []spec{{n: 1}}}, open: make(chan struct{})}
		c := newCatalog(t, Options{Sources: []SourceOptions{{Source: server}, {Source: peer}}})
		refresh(t, c)
		e := entry(t, c, 1)
		go func() { _, _ = e.Holders[1].Source.File(t.Context(), e.Manifest, 0, 0) }()
		synctest.Wait()
		if _, err := c.Get(behalf(t, "B"), id(1)); !isNotExist(err) {
			t.Errorf("asked for by the mirror that is asked: %v", err)
		}
		if _, err := c.Get(behalf(t, "D"), id(1)); err != nil {
			t.Errorf("asked for by another: %v", err)
		}
		close(peer.open)
		synctest.Wait()
		if _, err := c.Get(behalf(t, "B"), id(1)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// slowFile gives no file, and that when it is told to.
type slowFile struct {
	*fake
	open chan struct{}
}

func (s *slowFile) File(context.Context, manifest.Manifest, int, int64) (*verify.Stream, error) {
	<-s.open
	return nil, errors.New("none")
}

// The ways of a list are the shortest of each image, and none for what the mirror has itself.
func TestPaths(t *testing.T) {
	cached := map[int]bool{4: true}
	server := &fake{t: t, name: "server", listed: []spec{{n: 1}, {n: 4}}}
	far := &fake{t: t, name: "far", mirror: "F", listed: []spec{{n: 1}, {n: 2}, {n: 3}}, ways: map[int][]string{1: {"F"}, 2: {"F", "G"}, 3: {"F"}}}
	near := &fake{t: t, name: "near", mirror: "N", listed: []spec{{n: 2}}, ways: map[int][]string{2: {"N"}}}
	c := newCatalog(t, Options{Sources: sourcesOf(server, far, near), Cached: func(m manifest.Manifest) bool { return cached[number(m.UUID)] }})
	f := func(what string, want map[int]string) {
		t.Helper()
		refresh(t, c)
		got := make(map[int]string)
		for image, way := range c.Current().Paths().Ways("us", uuidsOf(c)) {
			got[number(image)] = fmt.Sprint(way[1:])
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	f("first", map[int]string{1: "[]", 2: "[N]", 3: "[F]", 4: "[]"})
	far.set(func(f *fake) { f.ways = map[int][]string{1: {"F"}, 2: {"F", "G"}, 3: {"F", "H"}} })
	f("ways that change alone", map[int]string{1: "[]", 2: "[N]", 3: "[F H]", 4: "[]"})
	server.set(func(f *fake) { f.listed = nil })
	f("gone from the server", map[int]string{1: "[F]", 2: "[N]", 3: "[F H]", 4: "[]"}) // 4 is cached
	near.set(func(f *fake) {
		f.listed = []spec{{n: 2}, {n: 4}} // as we told it
		f.ways = map[int][]string{2: {"N"}, 4: {"N"}}
	})
	f("listed elsewhere, but ours", map[int]string{1: "[F]", 2: "[N]", 3: "[F H]", 4: "[]"})
}

// What is cached here can be had here, whoever tells the same of it.
func TestGetOnBehalfCached(t *testing.T) {
	server := &fake{t: t, name: "server", listed: []spec{{n: 4}, {n: 5}}}
	peer := &fake{t: t, name: "peer", mirror: "B"}
	c := newCatalog(t, Options{Sources: sourcesOf(server, peer), Cached: func(m manifest.Manifest) bool { return number(m.UUID) == 4 }})
	refresh(t, c)
	server.set(func(f *fake) { f.listed = []spec{{n: 5}} })
	peer.set(func(f *fake) { f.listed, f.ways = []spec{{n: 4}}, map[int][]string{4: {"B"}} })
	refresh(t, c)
	if _, err := c.Get(behalf(t, "B"), id(4)); err != nil {
		t.Error(err)
	}
}

// A source that is this mirror itself lists nothing, is nothing to wait for, and is told by its error.
func TestSourceIsItself(t *testing.T) {
	self := &fake{t: t, name: "self", listed: []spec{{n: 1}}}
	x, log := new(memory), new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(self), Index: x, Logger: log.logger()})
	refresh(t, c)
	wantShown(t, c, 1)
	self.set(func(f *fake) { f.err = via.ErrItself })
	for range 3 {
		if err := c.Refresh(t.Context()); !errors.Is(err, via.ErrItself) {
			t.Error(err)
		}
	}
	wantShown(t, c)
	if _, err := c.Known(t.Context()); err != nil {
		t.Error(err)
	}
	if s := c.Status()[0]; s.State != "down" || s.LastError == "" {
		t.Errorf("%+v", s)
	}
	if n := log.count("source=self", via.ErrItself.Error()); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

func uuidsOf(c *Catalog) []uuid.UUID {
	var ids []uuid.UUID
	for _, m := range c.Current().Images() {
		ids = append(ids, m.UUID)
	}
	return ids
}
