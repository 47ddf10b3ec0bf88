package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// from is a context of a client.
func from(t testing.TB, address string) context.Context {
	t.Helper()
	return ForClient(t.Context(), netip.MustParseAddr(address))
}

const (
	flooder   = "10.0.0.1"
	bystander = "10.0.0.2"
)

// flood asks c for random images from one address, n at a time, until stop.
func flood(t *testing.T, c *Catalog, address string, n int) (stop func()) {
	t.Helper()
	over := make(chan struct{})
	ctx, cancel := context.WithCancel(from(t, address))
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-over:
					return
				default:
				}
				if _, err := c.Get(ctx, id(1_000_000+i*10_000+k)); err == nil {
					t.Error("an image that no source has was found")
				}
				time.Sleep(100 * time.Millisecond) // of a client between two requests
			}
		})
	}
	return func() {
		close(over)
		cancel()
		clients.Wait()
	}
}

// rated gives the fakes the same bound of questions.
func rated(rate int, fakes ...*fake) []SourceOptions {
	sources := sourcesOf(fakes...)
	for i := range sources {
		sources[i].LookupRate = rate
	}
	return sources
}

// hiddenImages are n images that no list shows.
func hiddenImages(n int) []spec {
	var out []spec
	for i := range n {
		out = append(out, spec{n: i + 1, state: "disabled"})
	}
	return out
}

// A source that hangs and a flood of random uuids cost a bystander nothing: an image of a healthy
// source is found at once, whichever source is asked first. Clients of the flood's own address get
// their answers too.
func TestFloodBesideHangingSource(t *testing.T) {
	for _, test := range []struct {
		client string
		within time.Duration
	}{
		{bystander, 100 * time.Millisecond}, // two turns of others
		{flooder, turnWait},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(test.client, first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := &fake{t: t, name: "a", hidden: hiddenImages(3)}, &fake{t: t, name: "b", hang: true}
					sources := rated(20, a, b)
					within := test.within
					if !first {
						sources[0], sources[1] = sources[1], sources[0]
						within += headStart
					}
					c := newCatalog(t, Options{Sources: sources})
					stop := flood(t, c, flooder, 30)
					time.Sleep(3 * time.Second)
					for n := range 3 {
						began := time.Now()
						if _, err := c.Get(from(t, test.client), id(n+1)); err != nil {
							t.Errorf("image %d: %v", n+1, err)
						}
						if d := time.Since(began); d > within {
							t.Errorf("image %d took %v", n+1, d)
						}
					}
					stop()
					c.stop()
				})
			})
		}
	}
}

// A source that hangs for some images only still answers the question of a bystander for another.
func TestFloodOfPartlyHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", silent: true, hidden: hiddenImages(5)}
		c := newCatalog(t, Options{Sources: rated(200, a)})
		stop := flood(t, c, flooder, 70)
		stop2 := flood(t, c, "10.0.0.3", 70)
		time.Sleep(time.Second)
		for n := range 5 {
			began := time.Now()
			if _, err := c.Get(from(t, bystander), id(n+1)); err != nil {
				t.Errorf("image %d: %v", n+1, err)
			}
			if d := time.Since(began); d > 20*time.Millisecond {
				t.Errorf("image %d took %v", n+1, d)
			}
		}
		stop()
		stop2()
		c.stop()
	})
}

// The rate of a source holds for all clients together, and idle seconds save up no more than a
// moment's worth.
func TestLookupRate(t *testing.T) {
	f := func(rate int, clients ...string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			a := &fake{t: t, name: "a"}
			c := newCatalog(t, Options{Sources: rated(rate, a)})
			time.Sleep(time.Minute)
			var stops []func()
			for _, client := range clients {
				stops = append(stops, flood(t, c, client, 10))
			}
			const lasts = 3 * time.Second
			time.Sleep(lasts)
			a.mu.Lock()
			asked := len(a.gets)
			a.mu.Unlock()
			want := rate * int(lasts.Seconds())
			if most := want + max(1, rate/10) + 1; asked > most || asked < want {
				t.Errorf("rate %d, %d clients: asked %d times in %v, want %d to %d", rate, len(clients), asked, lasts, want, most)
			}
			for _, stop := range stops {
				stop()
			}
			c.stop()
		})
	}
	f(30, flooder, bystander, "2001:db8::1")
	f(7, flooder, bystander)
	f(1, flooder)
}

// Addresses take turns, and each has about the same share, however many clients it has. The
// addresses of one IPv6 network are one client's.
func TestTurnsByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor("a", 100, newMetrics(nil, []string{"a"}).door("a"))
		turns := make(map[string]int)
		var mu sync.Mutex
		var waits sync.WaitGroup
		ask := func(name, address string, n int) {
			for range n {
				ctx := from(t, address)
				ctx = askedBy(ctx, newAsker(accountOf(ctx)))
				waits.Go(func() {
					leave, err := d.enter(ctx)
					if err != nil {
						return
					}
					leave(true)
					mu.Lock()
					defer mu.Unlock()
					turns[name]++
				})
			}
			synctest.Wait()
		}
		ask("four", "10.0.0.1", 150)
		ask("six", "2001:db8:0:1::1", 50)
		ask("six", "2001:db8:0:1:ffff::1", 50)
		ask("mapped", "::ffff:10.0.0.2", 30)
		ask("mapped", "10.0.0.2", 20)
		time.Sleep(1200 * time.Millisecond)
		mu.Lock()
		four, six, mapped := turns["four"], turns["six"], turns["mapped"]
		mu.Unlock()
		four -= 11 // the first ones had no one to share with
		if least, most := min(four, six, mapped), max(four, six, mapped); most-least > 1 || least < 39 {
			t.Errorf("turns: %d, %d, %d", four, six, mapped)
		}
		waits.Wait()
		if len(d.lines) != 0 || len(d.ring) != 0 || d.asking != 0 || d.waiting != 0 {
			t.Errorf("left behind: %d lines, %d in the ring, %d asking, %d waiting", len(d.lines), len(d.ring), d.asking, d.waiting)
		}
	})
}

// Questions that get no place or no turn are refused, for their own address alone, with the reason
// counted; the refusal is not remembered for anyone.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		a := &fake{t: t, name: "a", hidden: hiddenImages(5)}
		c := newCatalog(t, Options{Sources: rated(10, a), Registerer: r})
		get := func(address string, n int) error {
			t.Helper()
			_, err := c.Get(from(t, address), id(n))
			return err
		}
		var clients sync.WaitGroup
		for n := range 22 { // two turns, and as many places as turns come in time
			clients.Go(func() { _ = get(flooder, 100+n) })
		}
		synctest.Wait()
		began := time.Now()
		if err := get(flooder, 1); !errors.Is(err, ErrThrottled) || !errors.Is(err, ErrBusy) || !isUnavailable(err) || time.Since(began) != 0 {
			t.Errorf("one more of the address: %v after %v", err, time.Since(began))
		}
		if got := numbers(t, r); got["catalog_lookups_waiting{a}"] != 20 || got["catalog_searches{}"] != 20 {
			t.Errorf("gauges: %v", got)
		}
		if err := get(bystander, 1); err != nil || time.Since(began) > 200*time.Millisecond {
			t.Errorf("another address, the same image: %v after %v", err, time.Since(began))
		}
		clients.Wait()
		if got := numbers(t, r); got["catalog_lookups_refused_total{address}"] != 1 || got["catalog_lookups_total{refused}"] == 0 || got["catalog_lookups_waiting{a}"] != 0 {
			t.Errorf("counters: %v", got)
		}

		for i := range 40 { // so many addresses that no turn comes in time
			clients.Go(func() { _ = get(fmt.Sprintf("10.1.0.%d", i), 200+i) })
		}
		synctest.Wait()
		began = time.Now()
		if err := get(bystander, 2); !errors.Is(err, ErrBusy) || errors.Is(err, ErrThrottled) || time.Since(began) > turnWait {
			t.Errorf("a turn too late: %v after %v", err, time.Since(began))
		}
		clients.Wait()
		if got := numbers(t, r); got["catalog_lookups_refused_total{rate}"] < 10 {
			t.Errorf("counters: %v", got)
		}
		if err := get(bystander, 2); err != nil {
			t.Errorf("the next question: %v", err)
		}
		c.stop()
	})
}

// A source without a place left, and without an answer for a while, cannot tell at once: others are
// asked on.
func TestSilentSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		a := &fake{t: t, name: "a", hang: true}
		c := newCatalog(t, Options{Sources: rated(0, a), Registerer: r})
		var clients sync.WaitGroup
		for n := range maxAsking / 2 {
			clients.Go(func() { _, _ = c.Get(from(t, flooder), id(100+n)) })
		}
		time.Sleep(silence)
		began := time.Now()
		if _, err := c.Get(from(t, flooder), id(1)); !errors.Is(err, ErrBusy) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if got := numbers(t, r); got["catalog_lookups_refused_total{source_busy}"] != 1 || got["catalog_lookups_in_flight{client,a}"] != maxAsking/2 {
			t.Errorf("%v", got)
		}
		a.set(func(f *fake) { f.hang, f.hidden = false, hiddenImages(1) })
		if _, err := c.Get(from(t, bystander), id(1)); err != nil {
			t.Errorf("another address: %v", err)
		}
		clients.Wait()
		c.stop()
	})
}

// Who joins a search waits in the line of his own address: the flood of the first asker does not
// delay him, and one question is put.
func TestJoinedSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", hidden: hiddenImages(1)}
		c := newCatalog(t, Options{Sources: rated(20, a)})
		stop := flood(t, c, flooder, 30)
		time.Sleep(2 * time.Second)
		var clients sync.WaitGroup
		began := time.Now()
		clients.Go(func() { _, _ = c.Get(from(t, flooder), id(1)) })
		time.Sleep(50 * time.Millisecond)
		for i := range 20 {
			clients.Go(func() {
				if _, err := c.Get(from(t, fmt.Sprintf("10.2.0.%d", i)), id(1)); err != nil || time.Since(began) > 150*time.Millisecond {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			})
		}
		clients.Wait()
		if n := a.asked(1); n != 1 {
			t.Errorf("asked %d times", n)
		}
		stop()
		c.stop()
	})
}

// One address holds half of the searches at most.
func TestSearchesOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		a := &fake{t: t, name: "a", hidden: hiddenImages(2)}
		c := newCatalog(t, Options{Sources: rated(0, a), Registerer: r})
		f := &flight{payer: accountOf(from(t, flooder))}
		for n := range maxFlights / 2 {
			c.lookups.running[wanted{id: id(100 + n)}] = f
			c.lookups.of[f.payer]++
		}
		if _, err := c.Get(from(t, flooder), id(1)); !errors.Is(err, ErrThrottled) || !isUnavailable(err) {
			t.Errorf("one more search: %v", err)
		}
		if n := numbers(t, r)["catalog_lookups_refused_total{searches}"]; n != 1 {
			t.Errorf("%v refusals are counted", n)
		}
		if _, err := c.Get(from(t, bystander), id(1)); err != nil {
			t.Errorf("another address: %v", err)
		}
		c.land(wanted{id: id(100)}, f, 0)
		if _, err := c.Get(from(t, flooder), id(2)); err != nil {
			t.Errorf("after the end of a search: %v", err)
		}
		c.stop()
	})
}

// Questions of the catalogue itself stay out of the clients' lines, and are bounded.
func TestOwnQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor("a", 1, newMetrics(nil, []string{"a"}).door("a"))
		var leaves []func(bool)
		for range maxOwnAsking {
			leave, err := d.enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.enter(ctx); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more: %v", err)
		}
		leave, err := d.enter(askedBy(t.Context(), newAsker(account{})))
		if err != nil {
			t.Fatal(err)
		}
		leave(true)
		for _, leave := range leaves {
			leave(true)
		}
	})
}

// Mirrors that ask each other in a ring get their answers when the rates are used up: a question
// waits for no turn that waits for the question.
func TestRingWithRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := []string{via.NewID(), via.NewID()}
		var mirrors [2]*Catalog
		for i := range mirrors {
			peer := &fake{t: t, name: "peer", mirror: ids[1-i], gate: func(ctx context.Context) error {
				asked := append(slices.Clone(via.From(ctx)), ids[i])
				if slices.Contains(asked[:len(asked)-1], ids[1-i]) {
					return fmt.Errorf("it has asked itself: %w", fs.ErrNotExist)
				}
				_, err := mirrors[1-i].Get(ForClient(via.With(ctx, asked), netip.MustParseAddr(flooder)), image)
				return err
			}}
			mirrors[i] = newCatalog(t, Options{Sources: rated(2, peer)})
		}
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				began := time.Now()
				_, err := mirrors[i%2].Get(from(t, fmt.Sprintf("10.3.0.%d", i)), image)
				if !isNotExist(err) || time.Since(began) > lookupWait {
					t.Errorf("client %d: %v after %v", i, err, time.Since(began))
				}
			})
		}
		clients.Wait()
		for _, m := range mirrors {
			m.stop()
		}
	})
}

var image = id(1)

// A source that answers each question with its whole list is asked two at a time.
func TestStaticSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asking, most := 0, 0
		a := &fake{t: t, name: "a", listed: []spec{{n: 9}}, hidden: hiddenImages(3)}
		a.gate = func(context.Context) error {
			a.set(func(*fake) { asking++; most = max(most, asking) })
			time.Sleep(600 * time.Millisecond)
			a.set(func(*fake) { asking-- })
			return nil
		}
		c := newCatalog(t, Options{Sources: rated(200, a)})
		refresh(t, c)
		c.byName["a"].list.Kind = kindStatic
		stop := flood(t, c, flooder, 20)
		time.Sleep(time.Second)
		if _, err := c.Get(from(t, bystander), id(1)); err != nil {
			t.Errorf("a bystander: %v", err)
		}
		stop()
		c.stop()
		if most != maxLists {
			t.Errorf("asked %d at a time", most)
		}
	})
}

// A look that a source was not asked for is "cannot tell" for its client, and not remembered.
func TestRefusedLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1, noFiles: true}, {n: 2, packed: "-"}}, getErr: errDown}
		a.head = func(context.Context, manifest.Manifest) ([]byte, int64, error) { return nil, 0, errDown }
		c := newCatalog(t, Options{Sources: rated(2, a)})
		refresh(t, c)
		time.Sleep(unsureLook)
		a.set(func(f *fake) {
			f.getErr, f.told = nil, []spec{{n: 1}}
			f.head = heads(map[int]string{2: gzipHead})
		})
		stop := flood(t, c, flooder, 10)
		time.Sleep(1250 * time.Millisecond)
		began := time.Now()
		if _, err := c.Get(from(t, flooder), id(1)); !isUnavailable(err) || !errors.Is(err, ErrBusy) {
			t.Errorf("an address without a place: %v", err)
		}
		if e, err := c.Get(from(t, bystander), id(1)); err != nil || len(e.Manifest.Files) != 1 {
			t.Errorf("another address: %+v, %v", e.Manifest.Files, err)
		}
		if e, err := c.Get(from(t, bystander), id(2)); err != nil || e.Manifest.Files[0].Compression != "gzip" {
			t.Errorf("the beginning of a file: %+v, %v", e.Manifest.Files, err)
		}
		if d := time.Since(began); d > 2*turnWait {
			t.Errorf("took %v", d)
		}
		stop()
		c.stop()
	})
}
