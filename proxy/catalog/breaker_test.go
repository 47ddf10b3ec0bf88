package catalog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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

// gets is how often the source was asked for manifests.
func (f *fake) count() (gets, lists int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.gets), len(f.lists)
}

// A source that fails with everything is asked less and less, shows it, and is back soon after its first answer; the
// other sources are asked all the while.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		b := &fake{t: t, name: "b", hidden: []spec{{n: 2}}}
		log := new(lines)
		r := prometheus.NewRegistry()
		c := newCatalog(t, Options{Sources: sourcesOf(a, b), Logger: log.logger(), Registerer: r})
		running(t, c)
		ailing := func(want bool) {
			t.Helper()
			gauge := 0.0
			if want {
				gauge = 1
			}
			s := c.Status()
			if s[0].AskedFrom.IsZero() == want || !s[1].AskedFrom.IsZero() {
				t.Errorf("status: %+v", s)
			}
			if got := testutil.ToFloat64(c.metrics.breakerOpen.WithLabelValues("a", whatLookups)); got != gauge {
				t.Errorf("gauge: %v", got)
			}
		}
		ailing(false)
		a.set(func(f *fake) { f.err = errDown })

		// A client that asks for another image every second, for ten minutes. The list would not be due for all that time.
		next := 1000
		ask := func(d time.Duration) (gets, lists int) {
			g0, l0 := a.count()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				next++
				if _, err := c.Get(t.Context(), id(next)); !isUnavailable(err) {
					t.Fatalf("image %d: %v", next, err)
				}
			}
			g1, l1 := a.count()
			return g1 - g0, l1 - l0
		}
		first, lists := ask(time.Minute)
		ailing(true)
		if first < breakerPatience || first > 15 || lists < 1 {
			t.Errorf("the first minute: asked %d times, for lists %d times", first, lists)
		}
		if later, lists := ask(10 * time.Minute); later > 10*60/30+1 || later < 15 || lists > 6 {
			t.Errorf("ten minutes later: asked %d times, for lists %d times", later, lists)
		}
		ailing(true)
		if gets, _ := b.count(); gets < 600 {
			t.Errorf("the other source was asked %d times", gets)
		}
		if n := log.count("less and less"); n != 1 {
			t.Errorf("%d log lines", n)
		}

		began := time.Now()
		a.set(func(f *fake) { f.err, f.hidden = nil, []spec{{n: 3}} })
		for {
			if _, err := c.Get(t.Context(), id(3)); err == nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > longestPeace+time.Second {
			t.Errorf("it took %v to find that it is back", took)
		}
		ailing(false)
	})
}

// One probe at a time, and one that is given up is not held against the source.
func TestBreakerProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a"}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		a.set(func(f *fake) { f.err = errDown })
		for range 2 * breakerPatience { // lists alone say nothing of the rest
			if c.Refresh(t.Context()) == nil {
				t.Fatal("a list from a source that is down")
			}
		}
		g := c.sources[0].guard
		for range breakerPatience {
			if _, err := g.Get(t.Context(), id(1)); !errors.Is(err, errDown) {
				t.Fatal(err)
			}
		}
		if _, err := g.Get(t.Context(), id(1)); !errors.Is(err, errInPeace) {
			t.Fatal(err)
		}
		time.Sleep(firstPeace)
		open := make(chan struct{})
		a.set(func(f *fake) {
			f.gate = func(ctx context.Context) error {
				select {
				case <-open:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { _, err := g.Get(ctx, id(1)); left <- err }()
		synctest.Wait()
		if _, err := g.Get(t.Context(), id(2)); !errors.Is(err, errInPeace) {
			t.Errorf("beside the probe: %v", err)
		}
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(open)
		if _, err := g.Get(t.Context(), id(3)); !errors.Is(err, errDown) {
			t.Errorf("the next probe: %v", err)
		}
		if left := time.Until(c.Status()[0].AskedFrom); left != 2*firstPeace {
			t.Errorf("left in peace for %v more", left)
		}
	})
}

// With its list being well, it takes failures about several images, and none that has an answer, to leave a source in
// peace; then those that were under way do not prolong it.
func TestBreakerImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}, getErr: errDown}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		running(t, c)
		g := c.sources[0].guard
		fail := func(n, times int) {
			t.Helper()
			for range times {
				if _, err := g.Get(t.Context(), id(n)); !errors.Is(err, errDown) {
					t.Fatal(err)
				}
			}
		}
		fail(1, 10)
		fail(2, 10)
		a.set(func(f *fake) { f.getErr = nil })
		if _, err := g.Get(t.Context(), id(4)); !isNotExist(err) {
			t.Fatal(err)
		}
		a.set(func(f *fake) { f.getErr = errDown })
		fail(1, 2)
		fail(2, 2)
		g.lookups.leave(t.Context(), false, id(3), errDown)
		for range 10 {
			g.lookups.leave(t.Context(), false, id(4), errDown)
		}
		if left := time.Until(c.Status()[0].AskedFrom); left != firstPeace {
			t.Errorf("left in peace for %v", left)
		}
		// Nor does a list that is well mean anything then, while there are questions; an image that has an answer does.
		refresh(t, c)
		if c.Status()[0].AskedFrom.IsZero() {
			t.Error("a list has ended the peace")
		}
		time.Sleep(firstPeace)
		if _, err := g.Get(t.Context(), id(5)); !errors.Is(err, errDown) {
			t.Error(err)
		}
		if left := time.Until(c.Status()[0].AskedFrom); left != 2*firstPeace {
			t.Errorf("left in peace for %v after a probe", left)
		}
		time.Sleep(2 * firstPeace)
		a.set(func(f *fake) { f.getErr = nil })
		if _, err := g.Get(t.Context(), id(6)); !isNotExist(err) || !c.Status()[0].AskedFrom.IsZero() {
			t.Errorf("%v, left in peace until %v", err, c.Status()[0].AskedFrom)
		}

		a.set(func(f *fake) { f.getErr = errDown })
		for n := range breakerPatience {
			fail(n, 1)
		}
		time.Sleep(2*firstPeace + 1)
		refresh(t, c)
		if !c.Status()[0].AskedFrom.IsZero() {
			t.Error("still in peace although nobody asks and the list is well")
		}
	})
}

// A file that cannot be had opens nothing while the list can; and the rest of a file is asked for in any case.
func TestBreakerAndFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		running(t, c)
		h := entry(t, c, 1).Holders[0]
		file := func(offset int64) error {
			_, err := h.Source.File(t.Context(), h.Manifest, 0, offset)
			return err
		}
		for range 10 * breakerPatience {
			if err := file(0); errors.Is(err, errInPeace) {
				t.Fatal(err)
			}
		}
		_, before := a.count()
		time.Sleep(firstRetry)
		synctest.Wait()
		if _, lists := a.count(); lists != before+1 {
			t.Errorf("%d lists, to see how the source is", lists-before)
		}
		a.set(func(f *fake) { f.err = errDown })
		for range breakerPatience {
			_ = file(0)
		}
		time.Sleep(firstRetry)
		synctest.Wait()
		if err := file(0); !errors.Is(err, errInPeace) {
			t.Errorf("a file: %v", err)
		}
		if _, err := h.Source.Icon(t.Context(), h.Manifest); !errors.Is(err, errInPeace) {
			t.Errorf("an icon: %v", err)
		}
		if err := file(1); errors.Is(err, errInPeace) {
			t.Errorf("the rest of a file: %v", err)
		}
		if _, err := c.Get(t.Context(), uuid.New()); !isUnavailable(err) {
			t.Errorf("a lookup: %v", err)
		}
	})
}
