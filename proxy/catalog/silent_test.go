package catalog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// known is what Known says within two seconds, and how long it took.
func known(t *testing.T, c *Catalog) (images int, took time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()
	l, err := c.Known(ctx)
	if err == nil {
		images = len(l.Images())
	}
	return images, time.Since(start), err
}

// An empty list counts once every source has answered, in this process or an earlier one; images count at once.
func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(what string, c *Catalog, images int, want error, took time.Duration) {
			t.Helper()
			n, d, err := known(t, c)
			if n != images || !errors.Is(err, want) || d != took {
				t.Errorf("%s: %d images, %v after %v; want %d, %v after %v", what, n, err, d, images, want, took)
			}
		}
		f("no source", newCatalog(t, Options{}), 0, nil, 0)

		dead := &fake{t: t, name: "dead", err: errDown}
		void := &fake{t: t, name: "void"}
		x := new(memory)
		c := newCatalog(t, Options{Sources: sourcesOf(void, dead), Index: x})
		f("none was asked", c, 0, verify.ErrUnavailable, 2*time.Second)
		_ = c.Refresh(t.Context())
		f("one has failed", c, 0, verify.ErrUnavailable, 0)
		f("the same offline", newCatalog(t, Options{Sources: sourcesOf(void, dead), Offline: true}), 0, nil, 0)
		dead.set(func(f *fake) { f.err = nil })
		refresh(t, c)
		f("all have nothing", c, 0, nil, 0)
		dead.set(func(f *fake) { f.err = errDown })
		_ = c.Refresh(t.Context())
		f("one fails later", c, 0, nil, 0)
		f("a restart", newCatalog(t, Options{Sources: sourcesOf(void, dead), Index: x}), 0, nil, 0)

		void.set(func(f *fake) { f.listed = []spec{{n: 1}} })
		c = newCatalog(t, Options{Sources: sourcesOf(void, &fake{t: t, name: "other", err: errDown})})
		_ = c.Refresh(t.Context())
		f("one has images, one has failed", c, 1, nil, 0)
	})
}

// Who asks right after the start gets the first answer when it comes.
func TestKnownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &fake{t: t, name: "slow", hang: true}
		fast := &fake{t: t, name: "fast", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(slow, fast)})
		go func() {
			time.Sleep(time.Second)
			_ = c.refresh(t.Context(), c.byName["fast"])
		}()
		if n, took, err := known(t, c); n != 1 || err != nil || took != time.Second {
			t.Errorf("%d images, %v after %v", n, err, took)
		}
	})
}
