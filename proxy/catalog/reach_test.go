package catalog

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A probe tells whether an image's source is there: shared, bounded, and remembered no longer than a return may go
// unnoticed.
func TestReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		refresh(t, c)
		f := func(what string, want bool, took time.Duration) {
			t.Helper()
			start := time.Now()
			var callers sync.WaitGroup
			for n := range 20 {
				callers.Go(func() {
					if got := c.Reachable(t.Context(), entry(t, c, 1+n%2)); got != want {
						t.Errorf("%s: %v", what, got)
					}
				})
			}
			callers.Wait()
			if d := time.Since(start); d != took {
				t.Errorf("%s: took %v, want %v", what, d, took)
			}
		}
		f("there", true, 0)
		f("there again", true, 0)
		if n := len(a.gets); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
		time.Sleep(aliveMemory)
		a.set(func(f *fake) { f.err = errDown })
		f("refusing", false, 0)
		f("still refusing", false, 0)
		if n := len(a.gets); n != 2 {
			t.Errorf("asked %d times, want twice", n)
		}
		time.Sleep(deadMemory)
		a.set(func(f *fake) { f.err, f.hang = nil, true })
		f("a black hole", false, probeWait)
		synctest.Wait()
		f("a black hole again", false, 0)
		time.Sleep(deadMemory)
		a.set(func(f *fake) { f.hang = false })
		f("back", true, 0)
	})
}

// One source of several that answers is enough, however the others are.
func TestReachableElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		b := &fake{t: t, name: "b", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a, b)})
		refresh(t, c)
		a.set(func(f *fake) { f.hang = true })
		start := time.Now()
		if !c.Reachable(t.Context(), entry(t, c, 1)) || time.Since(start) != 0 {
			t.Errorf("not reachable, after %v", time.Since(start))
		}
		c.stop()
	})
}

// Once a source that was down altogether answers a probe, clients' questions reach it: what the manifest promises, the
// file keeps.
func TestReachableAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		refresh(t, c)
		a.set(func(f *fake) { f.err = errDown })
		_ = c.Refresh(t.Context())
		e := entry(t, c, 1)
		ask := func() error {
			_, err := e.Holders[0].Source.File(context.Background(), e.Manifest, 0, 0)
			return err
		}
		for range breakerPatience {
			_ = ask()
		}
		if c.byName["a"].guard.files.peaceUntil().IsZero() {
			t.Fatal("the breaker is closed")
		}
		if c.Reachable(t.Context(), e) {
			t.Error("reachable while it is down")
		}
		a.set(func(f *fake) { f.err = nil })
		time.Sleep(deadMemory)
		if !c.Reachable(t.Context(), e) || !c.byName["a"].guard.files.peaceUntil().IsZero() {
			t.Error("not asked as usual")
		}
	})
}
