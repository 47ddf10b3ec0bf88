package upstream

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

var errRefusedConn error = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

// ill is an image server with images 1 and 2, which fails as it is told.
type ill struct {
	mu                  sync.Mutex
	down                bool // nothing answers
	getsFail, filesFail bool // answer 500
	hang                bool // manifests wait for the end of the question
	gets                int
}

func (s *ill) set(change func(s *ill)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// asked is how often it was asked for manifests.
func (s *ill) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

func (s *ill) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	down, hang, fails := s.down, false, false
	body := "[" + string(small(1)) + "," + string(small(2)) + "]"
	switch _, rest, _ := strings.Cut(r.URL.Path, "/images/"); {
	case rest == "":
	case strings.HasSuffix(rest, "/file"):
		body, fails = "x", s.filesFail
	default:
		s.gets++
		body, hang, fails = "", s.hang, s.getsFail
		for n := 1; n <= 2; n++ {
			if rest == upstreamtest.ID(n).String() {
				body = string(small(n))
			}
		}
	}
	s.mu.Unlock()
	switch {
	case down:
		return nil, errRefusedConn
	case hang:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case fails:
		return reply(r, 500, strings.NewReader("")), nil
	case body == "":
		return reply(r, 404, strings.NewReader("")), nil
	}
	return reply(r, 200, strings.NewReader(body)), nil
}

// illClient is a Client of a server that fails as it is told.
func illClient(t *testing.T) (*Client, *ill) {
	s := new(ill)
	return newBubble(t, Options{Kind: kindIMGAPI}, s.RoundTrip), s
}

func (c *Client) getN(ctx context.Context, n int) error {
	_, err := c.Get(ctx, upstreamtest.ID(n))
	return err
}

func (c *Client) fileAt(t *testing.T, n int, offset int64) error {
	s, err := c.File(t.Context(), parse(t, small(n)), 0, offset)
	if err == nil {
		s.Close()
	}
	return err
}

func (c *Client) relist(t *testing.T) error {
	_, err := c.List(t.Context(), manifest.Listing{})
	return err
}

func (c *Client) suspected() bool {
	select {
	case <-c.Suspect():
		return true
	default:
		return false
	}
}

func wantRest(t *testing.T, c *Client, want time.Duration) {
	t.Helper()
	left := time.Duration(0)
	if from := c.AskedFrom(); !from.IsZero() {
		left = time.Until(from)
	}
	if left != want {
		t.Errorf("resting for %v, want %v", left, want)
	}
}

// A source that fails with everything is asked less and less, shows it, and is back soon after its first answer.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		ailing := func(want float64) {
			t.Helper()
			if c.AskedFrom().IsZero() == (want == 1) {
				t.Errorf("asked from %v", c.AskedFrom())
			}
			if got := testutil.ToFloat64(c.metrics.lookups.open); got != want {
				t.Errorf("gauge: %v", got)
			}
		}
		ailing(0)
		s.set(func(s *ill) { s.down = true })
		// A client that asks for another image every second. The list is asked for when it is suspected.
		next := 1000
		ask := func(d time.Duration) int {
			before := s.asked()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				next++
				if err := c.getN(t.Context(), next); err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("image %d: %v", next, err)
				}
			}
			return s.asked() - before
		}
		if first := ask(time.Minute); first < patience || first > 15 || !c.suspected() {
			t.Errorf("the first minute: asked %d times", first)
		}
		ailing(1)
		if later := ask(10 * time.Minute); later > 10*60/30+1 || later < 15 {
			t.Errorf("ten minutes later: asked %d times", later)
		}
		ailing(1)
		err := c.getN(t.Context(), 1)
		if !errors.Is(err, errResting) || !strings.Contains(err.Error(), errRefusedConn.Error()) {
			t.Errorf("without the reason: %v", err)
		}

		began := time.Now()
		s.set(func(s *ill) { s.down = false })
		for c.getN(t.Context(), 1) != nil {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > longestRest+time.Second {
			t.Errorf("it took %v to find that it is back", took)
		}
		ailing(0)
	})
}

// One question is let through at a time, and one that is given up is not held against the source.
func TestBreakerLetsOneThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		s.set(func(s *ill) { s.down = true })
		for range 2 * patience { // lists alone say nothing of the rest
			if c.relist(t) == nil {
				t.Fatal("a list from a source that is down")
			}
		}
		for range patience {
			if err := c.getN(t.Context(), 1); !errors.Is(err, errRefusedConn) || errors.Is(err, errResting) {
				t.Fatal(err)
			}
		}
		if err := c.getN(t.Context(), 1); !errors.Is(err, errResting) {
			t.Fatal(err)
		}
		time.Sleep(firstRest)
		s.set(func(s *ill) { s.down, s.hang = false, true })
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- c.getN(ctx, 1) }()
		synctest.Wait()
		if err := c.getN(t.Context(), 2); !errors.Is(err, errResting) {
			t.Errorf("beside the one: %v", err)
		}
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		s.set(func(s *ill) { s.hang, s.getsFail = false, true })
		if err := c.getN(t.Context(), 3); err == nil || errors.Is(err, errResting) {
			t.Errorf("the next one: %v", err)
		}
		wantRest(t, c, 2*firstRest)
	})
}

// With its list being well, it takes failures about very many images, and none that has an answer, to have a source
// rest; then questions that were under way do not prolong it.
func TestBreakerImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		if err := c.relist(t); err != nil {
			t.Fatal(err)
		}
		fail := func(first, last int) {
			t.Helper()
			for n := first; n <= last; n++ {
				if err := c.getN(t.Context(), n); err == nil || errors.Is(err, errResting) {
					t.Fatal(err)
				}
			}
		}
		failing := func(is bool) { s.set(func(s *ill) { s.getsFail = is }) }
		failing(true)
		fail(100, 100+manyImages-2)
		failing(false)
		if err := c.getN(t.Context(), 4); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		failing(true)
		fail(200, 200+manyImages-2)
		failing(false)
		s.set(func(s *ill) { s.hang = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var late sync.WaitGroup
		for n := range 10 {
			late.Go(func() { _ = c.getN(ctx, 3+n) })
		}
		late.Wait()
		wantRest(t, c, firstRest)
		// Nor does a list that is well mean anything then, while there are questions; an image that has an answer does.
		if err := c.relist(t); err != nil || c.AskedFrom().IsZero() {
			t.Errorf("a list has ended the rest: %v", err)
		}
		s.set(func(s *ill) { s.hang, s.getsFail = false, true })
		time.Sleep(firstRest)
		fail(5, 5)
		wantRest(t, c, 2*firstRest)
		time.Sleep(2 * firstRest)
		failing(false)
		if err := c.getN(t.Context(), 6); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		wantRest(t, c, 0)

		failing(true)
		fail(300, 300+manyImages-1)
		wantRest(t, c, firstRest)
		time.Sleep(2*firstRest + 1)
		if err := c.relist(t); err != nil {
			t.Error(err)
		}
		wantRest(t, c, 0) // nobody asks, and the list is well
	})
}

// A source without connections rests at once, though its last list was well.
func TestBreakerWithoutConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		if err := c.relist(t); err != nil {
			t.Fatal(err)
		}
		s.set(func(s *ill) { s.down = true })
		for n := range patience {
			if err := c.fileAt(t, n%patienceParts, 0); !errors.Is(err, errRefusedConn) {
				t.Fatal(err)
			}
		}
		wantRest(t, c, firstRest)
		if n, why := c.Resting(); n != 0 || !strings.Contains(why, "refused") {
			t.Errorf("%d images rest: %s", n, why)
		}
		s.set(func(s *ill) { s.down = false })
		time.Sleep(firstRest)
		for n := 1; n <= 2; n++ {
			if err := c.fileAt(t, n, 0); err != nil {
				t.Errorf("back: %v", err)
			}
		}
	})
}

// A file that cannot be had has nothing but its image rest while the list can be had; and the rest of a file is asked
// for in any case.
func TestBreakerAndFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		s.set(func(s *ill) { s.filesFail = true })
		for range imagePatience {
			if err := c.fileAt(t, 1, 0); err == nil || errors.Is(err, errResting) {
				t.Fatal(err)
			}
		}
		if err := c.fileAt(t, 1, 0); !errors.Is(err, verify.ErrResting) {
			t.Errorf("an image that fails: %v", err)
		}
		wantRest(t, c, 0)
		if !c.suspected() {
			t.Error("the list is not suspected")
		}
		s.set(func(s *ill) { s.down = true })
		if c.relist(t) == nil {
			t.Fatal("a list from a source that is down")
		}
		if err := c.fileAt(t, 2, 0); !errors.Is(err, errResting) || errors.Is(err, verify.ErrResting) {
			t.Errorf("a file: %v", err)
		}
		icon := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "i", "1", map[string]any{"icon": true}, []byte("x")))
		if _, err := c.Icon(t.Context(), icon); !errors.Is(err, errResting) {
			t.Errorf("an icon: %v", err)
		}
		if _, _, err := c.Head(t.Context(), icon, 0); !errors.Is(err, errResting) {
			t.Errorf("the beginning of a file: %v", err)
		}
		if err := c.fileAt(t, 2, 1); err == nil || errors.Is(err, errResting) {
			t.Errorf("the rest of a file: %v", err)
		}
		if err := c.getN(t.Context(), 1); err == nil || errors.Is(err, errResting) {
			t.Errorf("a manifest: %v", err)
		}
	})
}

// A probe tells whether the source is there: shared, bounded, and remembered no longer than a return may go unnoticed.
func TestReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		f := func(what string, want bool, took time.Duration, asked int) {
			t.Helper()
			start := time.Now()
			before := s.asked()
			var callers sync.WaitGroup
			for n := range 20 {
				callers.Go(func() {
					if got := c.Reachable(t.Context(), parse(t, small(1+n%2))); got != want {
						t.Errorf("%s: %v", what, got)
					}
				})
			}
			callers.Wait()
			if d := time.Since(start); d != took {
				t.Errorf("%s: took %v, want %v", what, d, took)
			}
			if n := s.asked() - before; n != asked {
				t.Errorf("%s: asked %d times, want %d", what, n, asked)
			}
		}
		f("there", true, 0, 1)
		f("there again", true, 0, 0)
		time.Sleep(aliveMemory)
		s.set(func(s *ill) { s.down = true })
		f("refusing", false, 0, 1)
		f("still refusing", false, 0, 0)
		time.Sleep(deadMemory)
		s.set(func(s *ill) { s.down, s.hang = false, true })
		f("a black hole", false, probeWait, 1)
		f("a black hole again", false, 0, 0)
		time.Sleep(deadMemory)
		s.set(func(s *ill) { s.hang = false })
		f("back", true, 0, 1)
	})
}

// Once a source that was down altogether answers a probe, clients' questions reach it: what the manifest promises, the
// file keeps. While its files alone rest, it is out of reach.
func TestReachableAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := illClient(t)
		m := parse(t, small(1))
		s.set(func(s *ill) { s.down = true })
		_ = c.relist(t)
		for range patience {
			_ = c.fileAt(t, 1, 0)
		}
		wantRest(t, c, firstRest)
		if c.Reachable(t.Context(), m) {
			t.Error("reachable while it is down")
		}
		s.set(func(s *ill) { s.down = false })
		time.Sleep(deadMemory)
		if !c.Reachable(t.Context(), m) {
			t.Error("not reachable")
		}
		wantRest(t, c, 0)

		time.Sleep(aliveMemory)
		if err := c.relist(t); err != nil {
			t.Fatal(err)
		}
		s.set(func(s *ill) { s.filesFail = true })
		for n := range patience { // the two images of the list, and others
			_ = c.fileAt(t, n, 0)
		}
		wantRest(t, c, firstRest)
		if c.Reachable(t.Context(), m) {
			t.Error("reachable while its files rest")
		}
	})
}
