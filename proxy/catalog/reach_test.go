package catalog

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// running runs c until the end of the test.
func running(t *testing.T, c *Catalog) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

// count is how often the source was asked for lists.
func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lists)
}

// One source of several that answers is enough, however the others are; and no caller waits long.
func TestReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		b := &fake{t: t, name: "b", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a, b)})
		defer c.stop()
		refresh(t, c)
		f := func(what string, want bool, took time.Duration) {
			t.Helper()
			start := time.Now()
			if got := c.Reachable(t.Context(), entry(t, c, 1)); got != want || time.Since(start) != took {
				t.Errorf("%s: %v after %v, want %v after %v", what, got, time.Since(start), want, took)
			}
		}
		f("both there", true, 0)
		a.set(func(f *fake) { f.reachable = func(ctx context.Context) bool { <-ctx.Done(); return false } })
		f("one hangs", true, 0)
		b.set(func(f *fake) { f.reachable = func(context.Context) bool { return false } })
		f("none there", false, reachWait)
	})
}

// A source that suspects itself of being ill is asked for its list soon, though not at once after the last time. Its
// status tells since when it is left alone.
func TestSuspectedSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}, suspect: make(chan struct{}, 1)}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		running(t, c)
		rest := time.Now().Add(time.Minute)
		a.set(func(f *fake) { f.askedFrom, f.resting = rest, 3 })
		a.suspect <- struct{}{}
		synctest.Wait()
		a.suspect <- struct{}{} // the same suspicion
		time.Sleep(firstRetry - 1)
		synctest.Wait()
		if n := a.count(); n != 1 {
			t.Errorf("asked for %d lists at once", n)
		}
		for _, wait := range []time.Duration{1, firstRetry} {
			time.Sleep(wait)
			synctest.Wait()
			if n := a.count(); n != 2 {
				t.Errorf("asked for %d lists, want 2", n)
			}
		}
		if s := c.Status()[0]; s.State != stateUp || !s.AskedFrom.Equal(rest) || s.Resting != 3 || s.Reason != "they fail" {
			t.Errorf("%+v", s)
		}
	})
}
