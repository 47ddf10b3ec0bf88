package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// repeated writes one text again and again, made by of its number, between begin and end.
func repeated(begin string, n int, of func(int) string, end string) func(io.Writer) {
	return func(w io.Writer) {
		var buf bytes.Buffer
		buf.WriteString(begin)
		for i := range n {
			buf.WriteString(of(i))
			if buf.Len() > 1<<20 || i == n-1 {
				if _, err := buf.WriteTo(w); err != nil {
					return
				}
			}
		}
		_, _ = io.WriteString(w, end)
	}
}

func same(text string) func(int) string { return func(int) string { return text } }

func bareImage(i int) string {
	return fmt.Sprintf(`{"v":2,"uuid":%q,"name":"a","version":"1","type":"other","os":"other"}`, upstreamtest.ID(i))
}

// peakOf is by how many bytes the heap grows at most while f runs.
func peakOf(f func()) int64 {
	runtime.GC()
	read := func() int64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64()) //nolint:gosec // of a heap
	}
	before, peak := read(), int64(0)
	stop := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak = max(peak, read()-before)
			}
		}
	})
	f()
	close(stop)
	sampler.Wait()
	return peak
}

// Whatever a list has, reading it takes at most its size three times and 64 MiB.
func TestListMemoryIsBounded(t *testing.T) {
	const mib = 1 << 20
	good := string(small(1))
	broken := func(i int) string {
		return fmt.Sprintf(`{"v":2,"uuid":%q,"name":7,"version":{}},`, upstreamtest.ID(i))
	}
	for name, list := range map[string]func(io.Writer){
		"zeros":              repeated("[", mib/2, same("0,"), good+"]"),
		"empty objects":      repeated("[", mib/4, same("{},"), good+"]"),
		"nested arrays":      repeated("["+strings.Repeat("[", 2*mib), 2*mib, same("]"), "]"),
		"one string":         repeated(`["`, 8*mib/1024, same(strings.Repeat("a", 1024)), `"]`),
		"one number":         repeated("[", 8*mib/1024, same(strings.Repeat("1", 1024)), "]"),
		"one manifest":       repeated("["+good[:len(good)-1]+`,"description":"`, 8*mib/1024, same(strings.Repeat("a", 1024)), `"},`+good+"]"),
		"one name":           repeated(`[{`, mib/2, same(`"a":1,`), `"a":1}]`),
		"many names":         repeated(`[{`, mib/2, func(i int) string { return fmt.Sprintf(`"%x":1,`, i) }, `"a":1}]`),
		"files of one image": repeated("["+strings.Replace(good, `"files":[`, `"files":[`+strings.Repeat("{},", mib), 1), 1, same(","), good+"]"),
		"files of many": repeated("[", 12, func(i int) string {
			return strings.Replace(string(small(i)), `"files":[`, `"files":[`+strings.Repeat("{},", 40_000), 1) + ","
		}, good+"]"),
		"bare images":    repeated("[", 90_000, func(i int) string { return bareImage(i) + "," }, good+"]"),
		"the same image": repeated("[", 10_000, same(bareImage(1)+","), good+"]"),
		"refused images": repeated("[", 20_000, broken, good+"]"),
		"white space":    repeated("[", 16*mib/1024, same(strings.Repeat(" ", 1024)), "]"),
	} {
		whole := &counting{w: io.Discard}
		list(whole)
		size := whole.n
		c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			defer z.Close()
			list(z)
		})})
		var err error
		peak := peakOf(func() { _, err = c.List(t.Context(), manifest.Listing{}) })
		if most := 3*size + 64*mib; peak > most {
			t.Errorf("%s: %d MiB for a list of %d; want at most %d (%v)", name, peak/mib, size/mib, most/mib, err)
		}
	}
}

// counting counts what is written.
type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// A refusal by a bound says which one, is counted, and is not taken for another kind of server.
func TestListBoundsAreTold(t *testing.T) {
	page := func(from int) string {
		var b strings.Builder
		for i := range pageSize {
			fmt.Fprintf(&b, ",%s", bareImage(from+i))
		}
		return "[" + b.String()[1:] + "]"
	}
	endless := func() http.HandlerFunc {
		var n atomic.Int64
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page(int(n.Add(pageSize)))) }
	}
	whole := func(list func(io.Writer)) func() http.HandlerFunc {
		return func() http.HandlerFunc { return func(w http.ResponseWriter, _ *http.Request) { list(w) } }
	}
	for _, test := range []struct {
		reason, want string
		handler      func() http.HandlerFunc
		options      Options
	}{
		{reasonBytes, "more than 1048576 bytes", endless, Options{maxList: 1 << 20}},
		{reasonBytes, "more than 1048576 bytes", whole(repeated("[", 1<<20, same("  "), "]")), Options{maxList: 1 << 20}},
		{reasonElements, "more than 1000 elements", whole(repeated("[", 1000, same("0,"), "0]")), Options{maxElements: 1000}},
		{reasonElements, "more than 1000 elements", whole(repeated("[", 1000, same("0,"), "0]")), Options{maxElements: 1000, Kind: kindStatic}},
		{reasonProportion, "than 3 times its text and 33554432 bytes", whole(repeated("[", 120_000, func(i int) string { return bareImage(i) + "," }, "0]")), Options{}},
		{reasonBudget, "2097152 bytes for all lists, of which 524288", endless, Options{Lists: NewListMemory(2<<20, 2)}},
	} {
		test.options.URL = serve(t, test.handler())
		if test.options.Kind == "" {
			test.options.Kind = kindIMGAPI
		}
		c := newClient(t, test.options)
		for range protocolFailures {
			_, err := c.List(t.Context(), manifest.Listing{})
			var bound *boundError
			if !errors.As(err, &bound) || bound.reason != test.reason || !strings.Contains(err.Error(), test.want) || !errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("%s: %v, want %q", test.reason, err, test.want)
			}
			if testing.Short() || test.reason != reasonBytes {
				break
			}
		}
		if n := testutil.ToFloat64(c.metrics.refusals.WithLabelValues(test.reason)); n < 1 {
			t.Errorf("%s: counted %v times", test.reason, n)
		}
		if _, settled := c.state.settled(); !settled {
			t.Errorf("%s: the source is asked anew what it is", test.reason)
		}
		if n := testutil.ToFloat64(c.metrics.lists); n != 0 {
			t.Errorf("%s: %v bytes are still booked", test.reason, n)
		}
	}
}

// Each source has a share that no other takes, and room for a list as large as its last.
func TestListMemoryShares(t *testing.T) {
	m := NewMetrics(nil, nil)
	l := NewListMemory(1000, 2) // shares of 250, a pool of 500
	a, b := l.open(m.source("a")), l.open(m.source("b"))
	f := func(of *account, n int64, ok bool) {
		t.Helper()
		if err := of.grow(n); (err == nil) != ok {
			t.Errorf("%d more of %d, kept %d: %v", n, of.reading, of.kept, err)
		}
	}
	f(a, 750, true)
	f(a, 1, false)
	f(b, 250, true)
	f(b, 1, false)
	a.shrink(750)
	a.keep(300)
	f(b, 450, true) // all but what a keeps beyond its share
	f(b, 1, false)
	f(a, 300, true) // as large as the last one
	f(a, 1, false)
	b.shrink(700)
	f(a, 400, true)
	if got := testutil.ToFloat64(m.lists.WithLabelValues("a")); got != 1000 {
		t.Errorf("the gauge tells %v", got)
	}
	if one := NewListMemory(1000, 1); one.share != 1000 {
		t.Errorf("one source alone has %d", one.share)
	}
}

// What a try brought that broke off is forgotten, down to its refusals.
func TestListForgetsABrokenTry(t *testing.T) {
	var tries atomic.Int32
	c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, _ *http.Request) {
		body := "[" + string(small(1)) + `,7,{"uuid":"` + upstreamtest.ID(9).String() + `"},` + string(small(2)) + "]"
		if tries.Add(1) < 3 {
			w.Header().Set("Content-Length", "100000")
			body = body[:len(body)-1]
		}
		fmt.Fprint(w, body)
	})})
	l, err := c.List(t.Context(), manifest.Listing{})
	if err != nil || len(l.Images) != 2 || l.Refusals.Refused != 2 || len(l.Refusals.First) != 2 {
		t.Errorf("%d images, %+v, %v", len(l.Images), l.Refusals, err)
	}
	if got, want := testutil.ToFloat64(c.metrics.lists), float64(memoryOf(l.Images)); got != want || tries.Load() != 3 {
		t.Errorf("%v bytes are booked after %d tries, want %v", got, tries.Load(), want)
	}
}

// A few large manifests are read at the same time; small ones do not wait for these.
func TestLargeManifestsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Replace(string(small(1)), `"files":[`, `"description":"`+strings.Repeat("a", 2*smallDocument)+`","files":[`, 1)
		c := newBubble(t, Options{Kind: kindIMGAPI}, func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, upstreamtest.ID(1).String()) {
				return reply(r, 200, strings.NewReader(large)), nil
			}
			return reply(r, 200, bytes.NewReader(small(2))), nil
		})
		for range largeDocuments {
			c.large <- struct{}{}
		}
		if _, err := c.Get(t.Context(), upstreamtest.ID(2)); err != nil {
			t.Errorf("small: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx, upstreamtest.ID(1)); !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("large, without a turn: %v", err)
		}
		if n := testutil.ToFloat64(c.metrics.refusals.WithLabelValues(reasonTurn)); n != 1 {
			t.Errorf("%v refusals, want 1", n)
		}
		<-c.large
		if _, err := c.Get(t.Context(), upstreamtest.ID(1)); err != nil {
			t.Errorf("large: %v", err)
		}
		if n := len(c.large); n != largeDocuments-1 {
			t.Errorf("%d large answers are being read", n)
		}
	})
}
