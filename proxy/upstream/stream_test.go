package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// tripper is a transport made of a func, so that time can be a test's own.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// newBubble makes a Client that asks answer instead of a network.
func newBubble(t *testing.T, o Options, answer tripper) *Client {
	t.Helper()
	o.Name, o.URL = "test", "http://images.example"
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport = answer
	wantClosed(t, c)
	return c
}

func reply(r *http.Request, status int, body io.Reader) *http.Response {
	return &http.Response{
		StatusCode: status, ContentLength: -1, Header: http.Header{}, Body: io.NopCloser(body), Request: r,
	}
}

// silent is a body that waits for the end of its request.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func TestListRetriesDoubleTheirWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []string
		c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Since(start).String())
			return reply(r, 503, strings.NewReader("")), nil
		})
		_, err := c.List(t.Context(), manifest.Listing{})
		if !errors.Is(err, verify.ErrUnavailable) {
			t.Error(err)
		}
		if s := strings.Join(at, " "); s != "0s 1s 3s 7s" {
			t.Errorf("tries at %s", s)
		}
	})
}

func TestListDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		start := time.Now()
		_, err := c.List(t.Context(), manifest.Listing{})
		if took := time.Since(start); took != listDeadline || !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("ended after %s with %v", took, err)
		}
	})
}

func TestListRetriesEndWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
			tries++
			return reply(r, 503, strings.NewReader("")), nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := c.List(ctx, manifest.Listing{})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "503") || tries != 2 {
			t.Errorf("%d tries, %v", tries, err)
		}
	})
}

func TestStallTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := strings.Repeat("x", 10)
		c := newBubble(t, Options{Kind: kindIMGAPI, StallTimeout: 7 * time.Second}, func(r *http.Request) (*http.Response, error) {
			return reply(r, 200, io.MultiReader(strings.NewReader(first), silent{r.Context()})), nil
		})
		st, err := c.File(t.Context(), parse(t, small(1)), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if _, err := io.ReadFull(st, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // a reader that is slow is no stall of the source
		start := time.Now()
		_, err = st.Read(make([]byte, 1))
		if took := time.Since(start); took != 7*time.Second || !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, context.Canceled) {
			t.Errorf("ended after %s with %v", took, err)
		}
	})
}

func TestErrorBodyThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
			return reply(r, 404, io.MultiReader(strings.NewReader("gone fishing"), silent{r.Context()})), nil
		})
		start := time.Now()
		_, err := c.Get(t.Context(), parse(t, small(1)).UUID)
		if took := time.Since(start); took > time.Second || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "fishing") {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// A source that refuses everything at once, and never ends a body, is no reason to wait until patience ends: also not
// while its kind is unknown, which takes several questions.
func TestRefusalsWithoutAnEnd(t *testing.T) {
	for status, want := range map[int]error{500: verify.ErrUnavailable, 502: verify.ErrUnavailable, 401: fs.ErrPermission} {
		synctest.Test(t, func(t *testing.T) {
			c := newBubble(t, Options{}, func(r *http.Request) (*http.Response, error) {
				return reply(r, status, silent{r.Context()}), nil
			})
			start := time.Now()
			_, err := c.Get(t.Context(), parse(t, small(1)).UUID)
			if took := time.Since(start); took > 1500*time.Millisecond || !errors.Is(err, want) {
				t.Errorf("%d: after %s: %v", status, took, err)
			}
		})
	}
}

func TestHurriedConnect(t *testing.T) {
	for deadline, want := range map[time.Duration]any{0: nil, time.Minute: nil, 3 * time.Second: hurriedConnect} {
		synctest.Test(t, func(t *testing.T) {
			var got any
			c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
				got = r.Context().Value(connectTimeoutKey{})
				return reply(r, 404, strings.NewReader("")), nil
			})
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if deadline > 0 {
				ctx, cancel = context.WithTimeout(ctx, deadline)
			}
			defer cancel()
			c.Get(ctx, parse(t, small(1)).UUID)
			if got != want {
				t.Errorf("deadline in %s: connect timeout %v, want %v", deadline, got, want)
			}
		})
	}
}

// A client may be waiting for the first byte of a file: a host that cannot be
// reached is given up soon, and is not asked for another address.
func TestFileConnectsInAHurry(t *testing.T) {
	unreachable := &net.OpError{Op: "dial", Err: errors.New("timed out")}
	image := parse(t, []byte(`{"v":2,"uuid":"6bbc9b20-7a3b-4b6e-9d5c-0123456789ab","name":"a","version":"1","type":"zone-dataset","os":"smartos",
		"published_at":"2020-01-01T00:00:00Z","files":[{"sha1":"1234567890123456789012345678901234567890","size":1,"compression":"gzip"},
		{"url":"http://other.example/x","path":"x","size":1,"compression":"gzip"}]}`))
	for _, is := range []struct {
		kind  string
		index int
		want  []string
	}{
		{kindIMGAPI, 0, []string{"images.example 2s"}},
		{kindIMGAPI, 1, []string{"images.example 2s", "images.example 2s"}}, // the first is a ping
		{kindAuto, 0, []string{"images.example 2s"}},
		{kindDSAPI, 1, []string{"images.example 1s", "other.example 1s"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got []string
			c := newBubble(t, Options{Kind: is.kind}, func(r *http.Request) (*http.Response, error) {
				got = append(got, fmt.Sprint(r.URL.Host, " ", r.Context().Value(connectTimeoutKey{})))
				return nil, unreachable
			})
			if _, err := c.File(t.Context(), image, is.index, 0); !errors.Is(err, verify.ErrUnavailable) {
				t.Error(err)
			}
			if !slices.Equal(got, is.want) {
				t.Errorf("%s, file %d: asked %q, want %q", is.kind, is.index, got, is.want)
			}
		})
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestRateLimitIsSharedAndSmooth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, size = 1 << 20, 4 << 20
		c := newBubble(t, Options{Kind: kindIMGAPI, RateLimit: limit}, func(r *http.Request) (*http.Response, error) {
			return reply(r, 200, io.LimitReader(zeros{}, size)), nil
		})
		start := time.Now()
		var longest time.Duration
		var mu sync.Mutex
		var g sync.WaitGroup
		for range 2 {
			g.Go(func() {
				st, err := c.File(t.Context(), parse(t, small(1)), 0, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer st.Close()
				buf := make([]byte, 1<<20)
				for {
					before := time.Now()
					n, err := st.Read(buf)
					mu.Lock()
					longest = max(longest, time.Since(before))
					mu.Unlock()
					if n > limiterChunk(limit) {
						t.Errorf("%d bytes at once", n)
					}
					if err != nil {
						if held := st.Pace().Held; held < 7*time.Second {
							t.Errorf("Reads waited %s for the limit", held)
						}
						return
					}
				}
			})
		}
		g.Wait()
		if took := time.Since(start); took < 7900*time.Millisecond || took > 8100*time.Millisecond {
			t.Errorf("8 MiB at 1 MiB/s took %s", took)
		}
		if longest > 150*time.Millisecond {
			t.Errorf("a Read waited %s", longest)
		}
	})
}

// A body tells what it skips.
func TestPaceOfSkip(t *testing.T) {
	c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
		return reply(r, 200, io.LimitReader(zeros{}, 5000)), nil
	})
	st, err := c.File(t.Context(), parse(t, small(1)), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if n, err := io.Copy(io.Discard, st); n != 4000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got := st.Pace(); got.Skipped != 1000 || got.Held != 0 {
		t.Errorf("Pace %+v", got)
	}
}

func TestLimiterChunk(t *testing.T) {
	for limit, want := range map[int64]int{1: 512, 100: 512, 1 << 20: 52428, 40_000_000: 128 << 10, 1 << 40: 128 << 10} {
		if got := limiterChunk(limit); got != want {
			t.Errorf("%d: %d, want %d", limit, got, want)
		}
	}
}

func TestThrottleEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{limiter: rate.NewLimiter(10, 512)}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		body := c.throttled(ctx, io.NopCloser(zeros{}))
		defer body.Close()
		if n, err := body.Read(make([]byte, 512)); n != 512 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		if _, err := body.Read(make([]byte, 512)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("deadline: %v", err)
		}
		body = c.throttled(t.Context(), io.NopCloser(zeros{}))
		go func() {
			time.Sleep(time.Second)
			body.Close()
		}()
		start := time.Now()
		if _, err := body.Read(make([]byte, 512)); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("closed after %s: %v", time.Since(start), err)
		}
	})
}

// slow gives a byte a second.
type slow struct{}

func (slow) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return min(len(p), 1), nil
}

// A long way to the offset must not look like a stall to whoever reads.
func TestSkippingShowsThatItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &whole{ReadCloser: io.NopCloser(slow{}), skip: 100, size: -1}
		empty := 0
		for {
			before := time.Now()
			n, err := w.Read(make([]byte, 1))
			if took := time.Since(before); took > 2*skipPause || err != nil {
				t.Fatalf("a Read took %s, %v", took, err)
			}
			if n == 1 {
				break
			}
			empty++
		}
		if empty < 50 || w.pos != 101 {
			t.Errorf("%d empty reads, at %d", empty, w.pos)
		}
	})
}

func TestWholeKnowsAnEndThatComesTooEarly(t *testing.T) {
	f := func(body string, skip, pos, size int64, want string, early bool) {
		t.Helper()
		w := &whole{ReadCloser: io.NopCloser(strings.NewReader(body)), skip: skip, pos: pos, size: size}
		got, err := io.ReadAll(w)
		if string(got) != want || errors.Is(err, io.ErrUnexpectedEOF) != early || early != errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("%s", fmt.Sprint(body, skip, pos, size, ": ", string(got), err))
		}
	}
	f("0123456789", 0, 0, 10, "0123456789", false)
	f("0123456789", 4, 0, 10, "456789", false)
	f("456789", 0, 4, 10, "456789", false)
	f("45678", 0, 4, 10, "45678", true)
	f("012", 4, 0, 10, "", true)
	f("012", 4, 0, -1, "", true)
	f("0123", 4, 0, -1, "", false)
	f("0123", 4, 0, 4, "", false)
	f("0123", 0, 0, -1, "0123", false)
}
