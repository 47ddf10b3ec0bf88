package cache

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// slowly sends n bytes each second.
func slowly(n int) reply { return reply{chunk: n, pause: time.Second} }

// in a bubble, wantTempo has the sources bring 100,000 bytes with a least rate of 1000 a second, and
// tells how long that took.
func bringWith(t *testing.T, limit time.Duration, fakes ...*fake) {
	t.Helper()
	s := openStore(t, Options{MinRate: 1000})
	data := fakes[0].data
	began := time.Now()
	wantData(t, s, blobOf(data), data, Miss, fakes...)
	if took := time.Since(began); took > limit {
		t.Errorf("it took %v, want at most %v", took, limit)
	}
	changes := 0
	for _, f := range fakes {
		changes += int(testutil.ToFloat64(s.metrics.takeovers.WithLabelValues(f.name)))
	}
	if most := int(limit / time.Minute); changes > most {
		t.Errorf("%d changes of source within %v", changes, limit)
	}
}

func TestSlowSource(t *testing.T) {
	data := noise(1, 100_000)
	const m, s = time.Minute, time.Second
	f := func(what string, limit time.Duration, a, b reply, askedA, askedB []int64) {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := always("a", data, a), always("b", data, b)
				bringWith(t, limit, first, second)
				wantAsked(t, first, askedA...)
				wantAsked(t, second, askedB...)
			})
		})
	}
	start, all := []int64{0}, []int64(nil)
	f("one byte a second", m+5*s, slowly(1), slowly(50_000), start, []int64{60})
	f("fast enough", 2*m, slowly(1000), slowly(50_000), start, all)
	f("both are slow", 4*m, slowly(500), slowly(400), start, []int64{30_000})
	f("one is much faster, and too slow", 4*m, slowly(100), slowly(900), start, []int64{6000})
	f("the other is slower", 5*m, slowly(500), slowly(200), []int64{0, 42_000}, []int64{30_000})
	f("the other is down", 5*m, slowly(400), reply{err: errors.New("down")}, []int64{0, 24_000}, []int64{24_000})
	f("the other is silent", 5*m, slowly(400), reply{stall: -1}, []int64{0, 24_000}, []int64{24_000})
	f("the mirror's own limit", 5*m, reply{chunk: 500, pause: s, held: true}, slowly(50_000), start, all)
	f("it skips fast", 5*m, reply{skip: 2 * m, skipped: 5000, chunk: 50_000}, slowly(50_000), start, all)
	f("it skips slowly", 2*m, reply{skip: time.Hour, skipped: 1}, slowly(50_000), start, []int64{0})
}

// A source that breaks off after each byte is slow, too.
func TestSlowSourceBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := always("a", noise(1, 100_000), reply{cut: 1}), always("b", noise(1, 100_000), slowly(50_000))
		bringWith(t, 2*time.Minute, a, b)
		wantAsked(t, b, int64(len(a.asked())))
	})
}

// A source without another goes on, with and without a reader.
func TestSlowSourceAlone(t *testing.T) {
	for _, stay := range []bool{true, false} {
		t.Run(fmt.Sprint(stay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{MinRate: 1000})
				f := always("a", noise(1, 10_000), slowly(10))
				leave := reads(t, s, f)
				if !stay {
					leave()
				}
				defer leave()
				time.Sleep(1010 * time.Second)
				wantData(t, s, blobOf(f.data), f.data, Hit)
				wantAsked(t, f, 0)
				if n := testutil.ToFloat64(s.metrics.slow.WithLabelValues("a")); n != 16 {
					t.Errorf("slow in %v minutes", n)
				}
			})
		})
	}
}

// Sources are tried again after a while, in case they have become faster.
func TestSlowSourceLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(1, 1_000_000)
		a, b := always("a", data, slowly(100)), &fake{name: "b", data: data}
		b.reply = func(try int, _ int64) reply {
			if try == 1 {
				return slowly(10)
			}
			return slowly(50_000)
		}
		bringWith(t, 15*time.Minute, a, b)
		if n := len(b.asked()); n != 2 {
			t.Errorf("b was asked %d times", n)
		}
	})
}

// The time without a slot is not the source's.
func TestSlowWithoutSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1, MinRate: 1000})
		low, other := always("a", noise(1, 200_000), slowly(2000)), always("b", noise(1, 200_000), slowly(50_000))
		ahead := blobOf(low.data)
		ahead.Why = Ahead
		done := make(chan error, 1)
		go func() {
			r, err := s.File(t.Context(), ahead, sources(low, other))
			if err == nil {
				err = errors.Join(r.Stored(t.Context()), r.Close())
			}
			done <- err
		}()
		time.Sleep(10500 * time.Millisecond)
		wantWithin(t, s, 100*time.Second, always("a", noise(2, 100_000), slowly(1200)))
		wantStored(t, done)
		wantAsked(t, low, 0)
		wantAsked(t, other)
	})
}

// Where the other source has its share of the slots already, nothing changes.
func TestSlowSourceOtherIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 2, MinRate: 1000})
		for _, f := range manyOf("b", 3, slowly(5000)) {
			defer reads(t, s, f)()
		}
		data := noise(9, 100_000)
		a, b := always("a", data, slowly(600)), always("b", data, slowly(50_000))
		s.slots.resize(1)
		wantData(t, s, blobOf(data), data, Miss, a, b)
		wantAsked(t, a, 0)
	})
}

// The mirror's own limit makes no source of ranges slow, and no request for a piece late.
func TestSlowRangesOwnLimit(t *testing.T) {
	for _, held := range []bool{true, false} {
		t.Run(fmt.Sprint(held), func(t *testing.T) {
			inRanges(t, Options{Streams: 2, MinRate: 100_000}, func(t *testing.T, s *Store) {
				data := noise(1, 12<<20)
				a := ranged("a", data, func(_ int, _ int64, r *reply) { r.chunk, r.pause, r.held = 10_000, time.Second, held })
				b := &fake{name: "b", data: data}
				wantData(t, s, blobOf(data), data, Miss, a, b)
				slow := testutil.ToFloat64(s.metrics.slow.WithLabelValues("a"))
				if held == (slow > 0) || held == (len(b.asked()) > 0) {
					t.Errorf("a was slow in %v minutes, b was asked at %v", slow, b.asked())
				}
				if sent := a.bytes(); held && sent != int64(len(data)) {
					t.Errorf("a has sent %d bytes for %d", sent, len(data))
				}
			})
		})
	}
}
