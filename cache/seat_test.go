package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// manyOf is n blobs of source name, all of which reply gets.
func manyOf(name string, n int, reply reply) (all []*fake) {
	for i := range n {
		all = append(all, always(name, noise(byte(i)^name[0], 100_000+i), reply))
	}
	return all
}

// reads opens a Reader on the blob that f has, and keeps the Reader until leave.
func reads(t *testing.T, s *Store, f *fake) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if r, err := s.File(ctx, blobOf(f.data), sources(f)); err == nil {
			<-ctx.Done()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	synctest.Wait()
	return func() {
		cancel()
		<-done
	}
}

// slotsUsed tells how many slots a source has.
func slotsUsed(s *Store, source string) int {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	if a := s.slots.accounts[source]; a != nil {
		return a.used
	}
	return 0
}

// wantWithin fails the test unless b is there in time.
func wantWithin(t *testing.T, s *Store, limit time.Duration, f *fake) {
	t.Helper()
	began := time.Now()
	if _, _, err := get(s, blobOf(f.data), f); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > limit {
		t.Errorf("an image of %s took %v, want at most %v", f.name, took, limit)
	}
}

// However a source is slow, and whether its clients stay or leave, another source's image comes at
// once.
func TestSlowSourceTakesItsShare(t *testing.T) {
	slow := map[string]reply{
		"drips": {chunk: 1, pause: time.Second}, "silent": {stall: 10}, "no answer": {delay: time.Hour},
		"skips": {skip: time.Hour}, "refuses": {err: errors.New("down")},
	}
	for name, reply := range slow {
		for _, stay := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s stay=%v", name, stay), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, Options{})
					for _, f := range manyOf("a", 20, reply) {
						leave := reads(t, s, f)
						if !stay {
							leave()
						}
						defer leave()
					}
					for _, f := range manyOf("b", 4, fast) {
						wantWithin(t, s, 100*time.Millisecond, f)
					}
					if n := slotsUsed(s, "a") + slotsUsed(s, "b"); n > 2*8+2 {
						t.Errorf("%d slots are in use", n)
					}
				})
			})
		}
	}
}

// An image that waits for a slot of its first source, which is slow, comes from its second one soon.
func TestSlotOfAnotherSource(t *testing.T) {
	for name, reply := range map[string]reply{
		"drips": {chunk: 1, pause: time.Second}, "silent": {stall: 10}, "no answer": {delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				for _, f := range manyOf("a", 20, reply) {
					defer reads(t, s, f)()
				}
				for i := range 4 {
					data := noise(byte(i), 50_000)
					slow, good := always("a", data, reply), always("b", data, fast)
					began := time.Now()
					if _, _, err := get(s, blobOf(data), slow, good); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > slotPatience+time.Second {
						t.Errorf("the image took %v", took)
					}
				}
			})
		})
	}
}

var fast = reply{chunk: 30_000, pause: time.Millisecond}

// A fill that has lost its readers goes on, until another fill of the same source has need of the
// slot; later it goes on from where it was.
func TestFillLeftMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1})
		left := always("a", noise(1, 100_000), reply{chunk: 10_000, pause: time.Second})
		reads(t, s, left)()
		time.Sleep(5500 * time.Millisecond)
		if n := left.bytes(); n != 50_000 {
			t.Errorf("%d bytes came without a reader, want 50000", n)
		}
		wantWithin(t, s, 2*time.Second, always("a", noise(2, 100_000), fast))
		time.Sleep(10 * time.Second)
		wantAsked(t, left, 0, 60_000)
		wantData(t, s, blobOf(left.data), left.data, Hit)
		if n := testutil.ToFloat64(s.metrics.slotsHanded.WithLabelValues(handedLeft)); n != 1 {
			t.Errorf("%v slots were handed over", n)
		}
	})
}

// Clients that come for many images and leave make no longer queue than maxLeft.
func TestFillsLeftAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 2})
		reply := reply{chunk: 1000, pause: time.Second}
		for i := range 100 {
			reads(t, s, always("a", noise(byte(i), 10_000), reply))()
		}
		if n := len(s.Fills()); n != 2+maxLeft {
			t.Errorf("%d downloads are left, want %d", n, 2+maxLeft)
		}
		stays := always("a", noise(200, 10_000), reply)
		wantData(t, s, blobOf(stays.data), stays.data, Miss, stays)
		if s.Idle(); len(s.Fills()) > 0 {
			t.Errorf("%d downloads do not end", len(s.Fills()))
		}
		dropped := always("a", noise(99, 10_000), reply)
		wantData(t, s, blobOf(dropped.data), dropped.data, Miss, dropped)
	})
}

// Nor do clients that take the first bytes and leave: what their downloads have is kept for later.
func TestHandedFillsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 2})
		for i := range 3 * maxLeft {
			leave := reads(t, s, always("a", noise(byte(i), 100_000+i), reply{chunk: 10, pause: 100 * time.Millisecond}))
			time.Sleep(time.Second)
			leave()
		}
		synctest.Wait()
		if n := len(s.Fills()); n > 2+maxLeft {
			t.Errorf("%d downloads are left, want %d at most", n, 2+maxLeft)
		}
		if n := len(s.Partials()); n < maxLeft {
			t.Errorf("%d unfinished downloads are kept", n)
		}
	})
}

// Images of a source that hang in mid-file, and are read, leave the other images of the source their
// turn: a slot is free at the latest when a try has stalled, and images that have not stalled yet go
// first.
func TestHangingImagesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		for i := range 16 {
			defer reads(t, s, always("a", noise(byte(i), 100_000), reply{stall: 50_000}))()
		}
		wantWithin(t, s, 41*time.Second, always("a", noise(99, 100_000), fast)) // eight try before it
		for i := range 5 {
			wantWithin(t, s, 21*time.Second, always("a", noise(byte(100+i), 100_000), fast))
		}
	})
}

// The account of a fill follows its source: a source that refuses takes no slot from others, and the
// one that brings the bytes instead has its share and no more.
func TestFillChangesAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 2})
		var ended []func()
		for i := range 6 {
			data := noise(byte(i), 100_000)
			a, b := always("a", data, reply{err: errors.New("down")}), always("b", data, reply{chunk: 10_000, pause: time.Second})
			go func() {
				if _, _, err := get(s, blobOf(data), a, b); err != nil {
					t.Error(err)
				}
			}()
			ended = append(ended, func() { wantData(t, s, blobOf(data), data, Hit) })
		}
		time.Sleep(5 * time.Second)
		if n := slotsUsed(s, "b"); n != 2 {
			t.Errorf("b has %d slots", n)
		}
		wantWithin(t, s, 100*time.Millisecond, always("c", noise(9, 100_000), fast))
		time.Sleep(time.Minute)
		for _, end := range ended {
			end()
		}
	})
}

// Clients' fills come before jobs', and these before what is ahead of need.
func TestClientsBeforeJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1})
		var order []string
		bring := func(why Why, name string, seed byte) <-chan error {
			f := &fake{name: "a", data: noise(seed, 100_000)}
			f.reply = func(int, int64) reply {
				order = append(order, name) // one at a time: there is one slot
				return reply{chunk: 10_000, pause: time.Second}
			}
			b := blobOf(f.data)
			b.Why = why
			done := arrives(s, b, f)
			synctest.Wait()
			return done
		}
		wantStored(t, bring(Client, "first", 1), bring(Ahead, "ahead", 2), bring(Job, "job", 3), bring(Client, "client", 4))
		if got := fmt.Sprint(order); got != "[first client job ahead]" {
			t.Errorf("order %s", got)
		}
	})
}
