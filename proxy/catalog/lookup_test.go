package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && !errors.Is(err, verify.ErrUnavailable)
}

func isUnavailable(err error) bool {
	return errors.Is(err, verify.ErrUnavailable) && !errors.Is(err, fs.ErrNotExist)
}

// An image that no list shows is found by uuid, kept as unlisted with its ancestry, and saved.
func TestGetUnlisted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		b := &fake{t: t, name: "b", hidden: []spec{{n: 5, origin: 6, state: "disabled"}, {n: 6, origin: 7}, {n: 7}}}
		x := new(memory)
		c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: x})
		refresh(t, c)
		e, err := c.Get(t.Context(), id(5))
		if err != nil {
			t.Fatal(err)
		}
		if e.Source != "b" || e.Listed || holders(e) != "b" || e.Manifest.UUID != id(5) {
			t.Errorf("%+v", e)
		}
		entry(t, c, 5)
		synctest.Wait() // for what follows the answer
		for _, n := range []int{5, 6, 7} {
			if e := entry(t, c, n); e.Listed || e.Source != "b" {
				t.Errorf("image %d: %+v", n, e)
			}
			if _, err := c.Get(t.Context(), id(n)); err != nil || b.asked(n) != 1 {
				t.Errorf("image %d: %v, asked for %d times", n, err, b.asked(n))
			}
		}
		wantShown(t, c, 1)

		c = restarted(t, c, Options{Sources: sourcesOf(a, b), Index: x, Offline: true})
		wantShown(t, c, 1)
		for _, n := range []int{5, 6, 7} {
			entry(t, c, n)
		}
	})
}

// Once a list shows what was found by uuid, it is a listed image like any other.
func TestUnlistedBecomesListed(t *testing.T) {
	a := &fake{t: t, name: "a", hidden: []spec{{n: 1, state: "disabled"}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	refresh(t, c)
	e, err := c.Get(t.Context(), id(1))
	if err != nil {
		t.Fatal(err)
	}
	a.set(func(f *fake) { f.listed, f.hidden = []spec{{n: 1}}, nil })
	refresh(t, c)
	wantShown(t, c, 1)
	if e := entry(t, c, 1); !e.Listed || e.Manifest.State != "active" {
		t.Errorf("%+v", e)
	}
	c.saveUnlisted([]found{{c.byName["a"], e.Manifest}}) // as by a search that is slow to save
	c.tasks.Wait()
	if n := len(x.saved("a").Unlisted); n != 0 {
		t.Errorf("%d unlisted are saved", n)
	}
}

// Callers share one search, and one that leaves takes nothing with it.
func TestGetShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		a := &fake{t: t, name: "a", hidden: []spec{{n: 1}}, gate: func(ctx context.Context) error {
			select {
			case <-open:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Get(first, id(1)); !isUnavailable(err) || !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left: %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				if e, err := c.Get(t.Context(), id(1)); err != nil || e.Manifest.UUID != id(1) {
					t.Errorf("%v, %v", e.Manifest.UUID, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(open)
		wg.Wait()
		if n := a.asked(1); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// What no source has is remembered for 60 s; what could not be told, or was refused, for a second.
func TestGetNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a"}
		b := &fake{t: t, name: "b"}
		c := newCatalog(t, Options{Sources: sourcesOf(a, b)})
		get := func(is func(error) bool, asked int) {
			t.Helper()
			if _, err := c.Get(t.Context(), id(1)); !is(err) {
				t.Errorf("Get: %v", err)
			}
			if a.asked(1) != asked || b.asked(1) != asked {
				t.Errorf("asked %d and %d times, want %d", a.asked(1), b.asked(1), asked)
			}
		}
		get(isNotExist, 1)
		time.Sleep(59 * time.Second)
		get(isNotExist, 1)
		time.Sleep(time.Second)
		b.set(func(f *fake) { f.err = errDown })
		get(isUnavailable, 2)
		get(isUnavailable, 2)
		time.Sleep(time.Second)
		get(isUnavailable, 3)
		time.Sleep(time.Second)
		b.set(func(f *fake) { f.err = fmt.Errorf("HTTP 403: %w", fs.ErrPermission) })
		get(isNotExist, 4)
		get(isNotExist, 4)
		time.Sleep(time.Second)
		get(isNotExist, 5)
		time.Sleep(time.Second)
		b.set(func(f *fake) { f.err = nil })
		get(isNotExist, 6)
		get(isNotExist, 6)
		b.set(func(f *fake) { f.hidden = []spec{{n: 1}} })
		time.Sleep(time.Minute)
		get(func(err error) bool { return err == nil }, 7)
	})
}

// A source that hangs costs its head start only; when all hang the wait ends in time for a 503.
func TestGetHanging(t *testing.T) {
	f := func(want error, within time.Duration, sources ...*fake) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			for _, s := range sources {
				s.t = t
			}
			c := newCatalog(t, Options{Sources: sourcesOf(sources...)})
			start := time.Now()
			e, err := c.Get(t.Context(), id(1))
			if !errors.Is(err, want) || want == nil && e.Source != sources[len(sources)-1].name {
				t.Errorf("Get: %q, %v, want %v", e.Source, err, want)
			}
			if d := time.Since(start); d > within {
				t.Errorf("took %v", d)
			}
		})
	}
	hanging := func(name string) *fake { return &fake{name: name, hang: true} }
	having := func(name string) *fake { return &fake{name: name, hidden: []spec{{n: 1}}} }
	down := func(name string) *fake { return &fake{name: name, err: errDown} }
	lacking := func(name string) *fake { return &fake{name: name} }
	f(nil, 0, having("a"))
	f(nil, 0, down("a"), lacking("b"), having("c"))
	f(nil, 500*time.Millisecond, hanging("a"), having("b"))
	f(nil, time.Second, hanging("a"), hanging("b"), having("c"))
	f(nil, 1700*time.Millisecond, hanging("a"), hanging("b"), down("c"), hanging("d"), hanging("e"), hanging("f"), having("g"))
	f(verify.ErrUnavailable, 0, down("a"), lacking("b"))
	f(verify.ErrUnavailable, 2500*time.Millisecond, hanging("a"))
	f(verify.ErrUnavailable, 2500*time.Millisecond, hanging("a"), lacking("b"))
	f(verify.ErrUnavailable, 2500*time.Millisecond, lacking("a"), hanging("b"), down("c"))
	f(fs.ErrNotExist, 0, lacking("a"), lacking("b"))
}

// A source that answers with another image than the one asked for cannot be trusted to tell.
func TestGetWrongImage(t *testing.T) {
	c := newCatalog(t, Options{Sources: []SourceOptions{{Source: wrong{&fake{t: t, name: "a", hidden: []spec{{n: 2}}}}}}})
	if _, err := c.Get(t.Context(), id(1)); !isUnavailable(err) || !strings.Contains(err.Error(), id(2).String()) {
		t.Errorf("Get: %v", err)
	}
	wantAbsent(t, c, 2)
}

type wrong struct{ *fake }

func (w wrong) Get(ctx context.Context, _ uuid.UUID) (manifest.Manifest, error) {
	return w.fake.Get(ctx, id(2))
}

// Run ends lookups; afterwards no source is asked.
func TestGetStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a"}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		stop := run(t, c)
		synctest.Wait()
		a.set(func(f *fake) { f.hang = true })
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Get(t.Context(), id(1)); !isUnavailable(err) {
				t.Errorf("during the stop: %v", err)
			}
		})
		synctest.Wait()
		start := time.Now()
		stop()
		wg.Wait()
		if _, err := c.Get(t.Context(), id(2)); !isUnavailable(err) || a.asked(2) != 0 {
			t.Errorf("after the stop: %v, asked %d times", err, a.asked(2))
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("took %v", d)
		}
	})
}

// While a big list is being built, who asks for one image gets it; the list follows.
func TestGetWhileBuilding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", hidden: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		c.building.Lock()
		e, err := c.Get(t.Context(), id(1))
		if err != nil || e.Manifest.UUID != id(1) || holders(e) != "a" {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := c.Get(t.Context(), id(1)); err != nil || a.asked(1) != 1 {
			t.Errorf("again: %v, asked %d times", err, a.asked(1))
		}
		wantAbsent(t, c, 1)
		c.building.Unlock()
		synctest.Wait()
		entry(t, c, 1)
	})
}
