package upstream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// spotty is an image server that lists images 1 to size, and fails with the files of the first broken ones.
type spotty struct {
	size int
	how  string // 500, hang, break (after the head), half (of all answers are 503)

	images []manifest.Manifest // as listed

	mu     sync.Mutex
	broken int
	asked  map[uuid.UUID]int // for files
}

func (s *spotty) RoundTrip(r *http.Request) (*http.Response, error) {
	_, rest, _ := strings.Cut(r.URL.Path, "/images/")
	if rest == "" {
		var docs []string
		for n := 1; n <= s.size; n++ {
			docs = append(docs, string(small(n)))
		}
		return reply(r, 200, strings.NewReader("["+strings.Join(docs, ",")+"]")), nil
	}
	id := uuid.MustParse(rest[:36])
	s.mu.Lock()
	s.asked[id]++
	fails := false
	for n := 1; n <= s.broken; n++ {
		fails = fails || id == upstreamtest.ID(n)
	}
	s.mu.Unlock()
	switch {
	case s.how == "half" && rand.IntN(2) == 0:
		return reply(r, 503, strings.NewReader("")), nil
	case !fails:
	case s.how == "500":
		return reply(r, 500, strings.NewReader("")), nil
	case s.how == "hang":
		<-r.Context().Done()
		return nil, r.Context().Err()
	case s.how == "break":
		return reply(r, 200, io.MultiReader(strings.NewReader(""), broken{})), nil
	}
	return reply(r, 200, strings.NewReader("x")), nil
}

// broken is a body that breaks.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (s *spotty) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, asked := range s.asked {
		n += asked
	}
	return n
}

func spottyClient(t *testing.T, size, broken int, how string) (*Client, *spotty) {
	t.Helper()
	s := &spotty{size: size, broken: broken, how: how, asked: make(map[uuid.UUID]int)}
	c := newBubble(t, Options{Kind: kindIMGAPI}, s.RoundTrip)
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	s.images = l.Images
	return c, s
}

// fetch has c ask for the file of image n and reads it, again within 2.5 s, as a download does.
func (s *spotty) fetch(t *testing.T, c *Client, n int) (err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for try := range imagePatience {
		time.Sleep(min(time.Duration(try)*200, 300) * time.Millisecond)
		var file *verify.Stream
		began := time.Now()
		if file, err = c.File(ctx, s.images[n-1], 0, 0); err == nil {
			_, err = io.ReadAll(file)
			file.Close()
		}
		if err == nil || errors.Is(err, verify.ErrResting) || time.Since(began) >= slowFailure {
			return err
		}
	}
	return err
}

// However often the broken images of a source are asked for, and by however many clients, its other images are given;
// and the broken ones are asked for rarely.
func TestBrokenImagesOfASource(t *testing.T) {
	f := func(how string, size, brokenOnes, clients int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			c, s := spottyClient(t, size, brokenOnes, how)
			ctx, stop := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for ctx.Err() == nil {
						if s.fetch(t, c, 1+rand.IntN(brokenOnes)) == nil {
							t.Error("a broken image was given")
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
			time.Sleep(time.Minute) // of broken images alone
			before := s.total()
			for n := brokenOnes + 1; n <= size; n++ {
				if err := s.fetch(t, c, n); err != nil {
					t.Errorf("%d of %d broken (%s), %d clients: image %d: %v", brokenOnes, size, how, clients, n, err)
				}
				time.Sleep(300 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			if n := s.total() - before; n > 12*brokenOnes+size {
				t.Errorf("%d of %d broken (%s), %d clients: asked %d times", brokenOnes, size, how, clients, n)
			}
			if n, why := c.Resting(); n > brokenOnes || n < brokenOnes/2 || !strings.Contains(why, "images rest") {
				t.Errorf("%d of %d broken (%s): %d rest: %s", brokenOnes, size, how, n, why)
			}
			if got := value(t, c.metrics.files.resting); int(got) > brokenOnes || int(got) < brokenOnes/2 {
				t.Errorf("gauge: %v", got)
			}
			if value(t, c.metrics.files.keptOff.WithLabelValues(keptOffForImage)) == 0 {
				t.Error("no question was kept off")
			}
			wantRest(t, c, 0)
			s.mu.Lock()
			s.broken = 0
			s.mu.Unlock()
			stop()
			all.Wait()
			time.Sleep(longestRest)
			for n := 1; n <= brokenOnes; n++ {
				if err := s.fetch(t, c, n); err != nil {
					t.Errorf("%s: mended image %d: %v", how, n, err)
				}
			}
			if n, why := c.Resting(); n != 0 || why != "" {
				t.Errorf("%s: mended: %d rest: %s", how, n, why)
			}
		})
	}
	for _, how := range []string{"500", "hang", "break"} {
		f(how, 63, 3, 4)
		f(how, 60, 40, 50)
	}
	f("500", 60, 10, 4)
	f("500", 300, 200, 20)
}

// A source that fails with half of all questions gives its images to downloads that ask again.
func TestHalfOfAllAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := spottyClient(t, 200, 0, "half")
		failed := 0
		for n := 1; n <= 200; n++ {
			if s.fetch(t, c, n) != nil {
				failed++
			}
		}
		if failed > 5 { // one of 1024
			t.Errorf("%d of 200 images failed", failed)
		}
		wantRest(t, c, 0)
	})
}

// A source that gives its list and no file rests as a whole, and is back within its promise.
func TestNoFilesAtAll(t *testing.T) {
	f := func(how string, size int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			c, s := spottyClient(t, size, size, how)
			next := 0
			ask := func(d time.Duration) int {
				before := s.total()
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
					next++
					_ = s.fetch(t, c, 1+next%size)
				}
				return s.total() - before
			}
			ask(20 * time.Minute)
			if c.AskedFrom().IsZero() || value(t, c.metrics.files.open) != 1 {
				t.Errorf("%s: a source without files does not rest", how)
			}
			if n := ask(10 * time.Minute); n > 2*10*60/30+2 {
				t.Errorf("%s, %d images: it is asked %d times", how, size, n)
			}
			s.mu.Lock()
			s.broken = 0
			s.mu.Unlock()
			began := time.Now()
			for s.fetch(t, c, 1) != nil {
				time.Sleep(time.Second)
			}
			if took := time.Since(began); took > longestRest+time.Second {
				t.Errorf("%s: it took %v to find that it is back", how, took)
			}
			wantRest(t, c, 0)
		})
	}
	f("500", 3)
	f("500", 60)
	f("hang", 20)
}

// What is remembered of images is bounded: the oldest goes.
func TestFailingPartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := make(failingParts)
		for n := range 2 * maxFailing {
			all.failed(part{upstreamtest.ID(n), 0}, true, errors.New("x"))
			time.Sleep(time.Millisecond)
		}
		if len(all) != maxFailing || all[part{upstreamtest.ID(2*maxFailing - 1), 0}] == nil || all[part{upstreamtest.ID(maxFailing - 1), 0}] != nil {
			t.Errorf("%d are remembered", len(all))
		}
		time.Sleep(failingMemory)
		all.failed(part{upstreamtest.ID(1), 0}, false, errors.New("x"))
		if n, _ := all.broken(); n != 0 || len(all) != 1 {
			t.Errorf("%d of %d rest after a long time", n, len(all))
		}
	})
}
