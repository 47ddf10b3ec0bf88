package cache

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// line is a queue of tickets that are told apart by a letter, lower case = ahead of need.
type line struct {
	*slots
	tickets map[string]*ticket
	served  chan string
}

func newLine(n int) *line {
	return &line{slots: newSlots(n), tickets: make(map[string]*ticket), served: make(chan string, 20)}
}

// stand has tickets join the queue, in this order.
func (l *line) stand(ctx context.Context, names string) {
	for _, r := range names {
		name := string(r)
		t := new(ticket)
		t.needed.Store(r < 'a')
		l.tickets[name] = t
		go func() {
			if l.acquire(ctx, t) == nil {
				l.served <- name
			}
		}()
		synctest.Wait()
	}
}

// got gives who was served since.
func (l *line) got() (names string) {
	synctest.Wait()
	for {
		select {
		case name := <-l.served:
			names += name
		default:
			return names
		}
	}
}

func TestSlotsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(2)
		want := func(names string) {
			t.Helper()
			if got := l.got(); got != names {
				t.Errorf("served %q, want %q", got, names)
			}
		}
		l.stand(t.Context(), "aBcdEFg")
		want("aB")
		if l.wanted(l.tickets["B"]) || !l.wanted(l.tickets["a"]) {
			t.Error("a, and not B, is to make room for E")
		}
		l.release()
		want("E")
		l.promote(l.tickets["g"])
		l.release()
		want("F")
		l.release()
		want("g")
		if l.wanted(l.tickets["a"]) {
			t.Error("a need not make room for c")
		}
		l.promote(l.tickets["a"]) // it has its slot: nothing comes of it
		l.release()
		want("c")
		l.release()
		want("d")
		l.release()
		l.release()
		l.stand(t.Context(), "h")
		want("h")
		if n := l.urgent.Load(); n != 0 || l.used != 1 {
			t.Errorf("at the end: %d urgent, %d used", n, l.used)
		}
	})
}

func TestSlotsResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1)
		l.stand(t.Context(), "ABCD")
		l.resize(3)
		if got := l.got(); len(got) != 3 || got[0] != 'A' { // the other two at the same moment
			t.Errorf("served %q", got)
		}
		l.resize(1)
		l.release()
		l.release()
		if got := l.got(); got != "" {
			t.Errorf("served %q while one slot is still taken", got)
		}
		l.release()
		if got := l.got(); got != "D" {
			t.Errorf("served %q", got)
		}
	})
}

func TestSlotsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1)
		l.stand(t.Context(), "A")
		ctx, cancel := context.WithCancel(t.Context())
		l.stand(ctx, "Bb")
		cancel()
		l.got()
		l.stand(t.Context(), "C")
		l.release()
		if got := l.got(); got != "C" {
			t.Errorf("served %q, want C", got)
		}
		if len(l.queue) != 0 || l.used != 1 || l.urgent.Load() != 0 {
			t.Errorf("left behind: %d waiting, %d used, %d urgent", len(l.queue), l.used, l.urgent.Load())
		}
		if err := l.acquire(ctx, &ticket{}); !errors.Is(err, context.Canceled) || l.used != 1 {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

// waitUrgent waits until n fills that somebody waits for are in the queue.
func waitUrgent(t *testing.T, s *Store, n int32) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for s.slots.urgent.Load() != n {
		if time.Now().After(deadline) {
			t.Fatalf("%d fills wait, want %d", s.slots.urgent.Load(), n)
		}
		runtime.Gosched()
	}
}

// arrives has a blob brought, and tells on the channel how that ended.
func arrives(s *Store, b Blob, f *fake) <-chan error {
	done := make(chan error, 1)
	go func() {
		r, err := s.File(context.Background(), b, sources(f))
		if err == nil {
			err = errors.Join(r.Stored(context.Background()), r.Close())
		}
		done <- err
	}()
	return done
}

func wantStored(t *testing.T, all ...<-chan error) {
	t.Helper()
	for _, done := range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A client's miss overtakes what is fetched ahead: it takes its slot in
// mid-file, and the other goes on afterwards, on the same connection.
func TestLowFillMakesRoom(t *testing.T) {
	s := openStore(t, Options{FillSlots: 1})
	gate, began := make(chan struct{}), make(chan struct{})
	low := &fake{name: "a", data: noise(1, 600_000)}
	low.reply = func(int, int64) reply {
		close(began)
		return reply{stall: 200_000, gate: gate, chunk: 32 << 10}
	}
	urgent := &fake{name: "b", data: noise(2, 300_000)}
	urgent.reply = func(int, int64) reply {
		if n := low.bytes(); n >= 600_000 {
			t.Errorf("the client's turn came when all %d bytes were there", n)
		}
		return reply{}
	}
	ahead := blobOf(low.data)
	ahead.Why = Ahead
	first := arrives(s, ahead, low)
	<-began
	second := arrives(s, blobOf(urgent.data), urgent)
	waitUrgent(t, s, 1)
	close(gate)
	wantStored(t, first, second)
	wantAsked(t, low, 0)
	wantData(t, s, blobOf(low.data), low.data, Hit)
	wantData(t, s, blobOf(urgent.data), urgent.data, Hit)
	if n := counter(s.metrics.requests[Miss]); n != 1 {
		t.Errorf("%d misses counted, want the client's one", n)
	}
}

// What is fetched ahead waits no longer than others once a client wants it.
func TestJoinedLowFillIsUrgent(t *testing.T) {
	s := openStore(t, Options{FillSlots: 1})
	gate, began := make(chan struct{}), make(chan struct{})
	order := make(chan string, 3)
	running := &fake{name: "a", data: noise(1, 100_000)}
	running.reply = func(int, int64) reply {
		close(began)
		return reply{stall: -1, gate: gate}
	}
	waiting := func(name string, seed byte) (*fake, Blob) {
		f := &fake{name: name, data: noise(seed, 100_000)}
		f.reply = func(int, int64) reply {
			order <- name
			return reply{}
		}
		b := blobOf(f.data)
		b.Why = Ahead
		return f, b
	}
	one, oneBlob := waiting("one", 2)
	two, twoBlob := waiting("two", 3)

	all := []<-chan error{arrives(s, blobOf(running.data), running)}
	<-began
	all = append(all, arrives(s, oneBlob, one), arrives(s, twoBlob, two))
	twoBlob.Why = Client
	all = append(all, arrives(s, twoBlob, two))
	waitUrgent(t, s, 1)
	close(gate)
	wantStored(t, all...)
	if a, b := <-order, <-order; a != "two" || b != "one" {
		t.Errorf("%s came before %s", a, b)
	}
}

// What keeps the bytes of a body from being taken, here or on the disk, is no stall of its source.
func TestWaitHereIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1, StallTimeout: 2 * time.Second})
		low := always("a", noise(1, 600_000), reply{chunk: 32 << 10, pause: 10 * time.Millisecond})
		urgent := always("b", noise(2, 300_000), reply{chunk: 30_000, pause: time.Second})
		ahead := blobOf(low.data)
		ahead.Why = Ahead
		first := arrives(s, ahead, low)
		time.Sleep(50 * time.Millisecond)
		second := arrives(s, blobOf(urgent.data), urgent) // the slot is its for ten seconds
		wantStored(t, first, second)
		wantAsked(t, low, 0)
		wantAsked(t, urgent, 0)
	})
}
