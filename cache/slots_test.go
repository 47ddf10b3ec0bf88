package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// line is a queue of tickets that are told apart by a name: "A1" is the first client of source A,
// "A1j" of a job, "A1l" one whose clients have left, "A1a" ahead of need.
type line struct {
	*slots
	tickets map[string]*ticket
	served  chan string
}

func newLine(n int) *line {
	return &line{slots: newSlots(n), tickets: make(map[string]*ticket), served: make(chan string, 200)}
}

// stand has tickets join the queue, in this order.
func (l *line) stand(ctx context.Context, names string) {
	for name := range strings.FieldsSeq(names) {
		t := newTicket(name[:1])
		l.rerank(t, map[byte]rank{'j': rankJob, 'l': rankLeft, 'a': rankAhead}[name[len(name)-1]])
		l.tickets[name] = t
		go func() {
			if l.acquire(ctx, t) == nil {
				l.served <- name
			}
		}()
		synctest.Wait()
	}
}

// free releases tickets.
func (l *line) free(names string) {
	for name := range strings.FieldsSeq(names) {
		l.release(l.tickets[name])
		delete(l.tickets, name)
	}
}

// got gives who was served since.
func (l *line) got() string {
	synctest.Wait()
	var names []string
	for {
		select {
		case name := <-l.served:
			names = append(names, name)
		default:
			slices.Sort(names)
			return strings.Join(names, " ")
		}
	}
}

// want fails the test unless exactly names, in the order of the alphabet, were served since.
func (l *line) want(t *testing.T, names string) {
	t.Helper()
	if got := l.got(); got != names {
		t.Errorf("served %q, want %q", got, names)
	}
}

// hands fails the test unless hand does that with the ticket.
func (l *line) hands(t *testing.T, name string, want bool) {
	t.Helper()
	ticket := l.tickets[name]
	got := l.pressed(ticket) && l.hand(ticket)
	if got != want {
		t.Errorf("%s gave its slot away: %v, want %v", name, got, want)
	}
	if got {
		go func() {
			if l.wait(t.Context(), ticket) == nil {
				l.served <- name
			}
		}()
	}
}

func TestSlotsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(2)
		l.stand(t.Context(), "A1a A2 A3j A4a A5 A6l A7")
		l.want(t, "A1a A2")
		l.hands(t, "A2", false)
		l.hands(t, "A1a", true)
		l.want(t, "A5")
		l.free("A2")
		l.want(t, "A7")
		l.rerank(l.tickets["A4a"], rankClient)
		l.free("A5")
		l.want(t, "A4a")
		l.free("A7")
		l.want(t, "A3j")
		l.hands(t, "A3j", false)
		l.free("A4a")
		l.want(t, "A6l")
		l.hands(t, "A6l", false) // A1a waits, and is worth less
		l.free("A3j")
		l.want(t, "A1a")
		l.stand(t.Context(), "A8")
		l.hands(t, "A1a", true)
		l.want(t, "A8")
		l.rerank(l.tickets["A6l"], rankClient)
		l.hands(t, "A6l", false)
		l.free("A6l A8")
		l.want(t, "A1a")
		l.free("A1a")
		l.wantEmpty(t)
	})
}

func (l *line) wantEmpty(t *testing.T) {
	t.Helper()
	if l.used != 0 || len(l.accounts) != 0 || rank(l.pressing.Load()) != rankNone {
		t.Errorf("left behind: %d used, %d accounts, pressing %d", l.used, len(l.accounts), l.pressing.Load())
	}
}

// A source has its share, whatever the others hold.
func TestSlotsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(4)
		l.stand(t.Context(), "A1 A2 A3 A4 A5 A6")
		l.want(t, "A1 A2 A3 A4")
		l.stand(t.Context(), "B1 B2 B3")
		l.want(t, "B1 B2") // its share, lent
		l.free("A1 A2")    // what was lent is back
		l.want(t, "")
		l.free("A3")
		l.want(t, "A5") // A has one, B two
		l.free("B1")
		l.want(t, "B3")
		l.free("B2")
		l.want(t, "A6")
		l.stand(t.Context(), "C1 C2")
		l.want(t, "C1 C2") // however many sources there are
		l.free("A4 A5 A6 B3 C1 C2")
		l.wantEmpty(t)
	})
}

// Fills that are not needed give back what is lent, but for one of each source.
func TestSlotsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(3)
		l.stand(t.Context(), "A1l A2l A3l B1")
		l.want(t, "A1l A2l A3l B1")
		l.hands(t, "A1l", true)
		l.hands(t, "A2l", false) // nothing is lent any more
		l.stand(t.Context(), "B2")
		l.want(t, "B2")
		l.hands(t, "A2l", true)
		l.stand(t.Context(), "B3")
		l.want(t, "B3")
		l.hands(t, "A3l", false) // the last one of A
		l.free("B1 B2")
		l.want(t, "A1l")
		l.stand(t.Context(), "A4")
		l.want(t, "")
		l.hands(t, "A1l", true)
		l.want(t, "A4")
		l.free("B3 A1l A2l A3l A4")
		l.wantEmpty(t)
	})
}

// A fill that changes source changes account, and waits if the new one has its share.
func TestSlotsCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(2)
		l.stand(t.Context(), "A1 A2 B1")
		l.want(t, "A1 A2 B1")
		if l.charge(l.tickets["B1"], "A") {
			t.Error("A has a third slot, B waits for none")
		}
		l.free("A1")
		if b := l.tickets["B1"]; !b.seated || b.source != "A" || l.used != 2 {
			t.Errorf("seated %v for %s, %d used", b.seated, b.source, l.used)
		}
		if !l.charge(l.tickets["A2"], "C") || l.used != 2 || len(l.accounts) != 2 {
			t.Errorf("%d used, %d accounts", l.used, len(l.accounts))
		}
		l.free("A2 B1")
		l.wantEmpty(t)
	})
}

func TestSlotsResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1)
		l.stand(t.Context(), "A1 A2 A3 A4")
		l.want(t, "A1")
		l.resize(3)
		l.want(t, "A2 A3")
		l.resize(1)
		l.free("A1 A2")
		l.want(t, "")
		l.free("A3")
		l.want(t, "A4")
	})
}

func TestSlotsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(1)
		l.stand(t.Context(), "A1")
		ctx, cancel := context.WithCancel(t.Context())
		l.stand(ctx, "A2 A3a")
		cancel()
		l.stand(t.Context(), "A4")
		l.free("A1")
		l.want(t, "A1 A4")
		l.free("A4")
		l.wantEmpty(t)
		if err := l.acquire(ctx, newTicket("A")); !errors.Is(err, context.Canceled) || l.used != 0 {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

// Whatever comes, the accounts are right, the bounds hold, and no source that wants a slot is
// without one.
func TestSlotsAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 2))
		l := newLine(4)
		most, sources := 4, []string{"A", "B", "C", "D", "E"}
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for range 40 {
			seed := rnd.Uint64()
			work.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 0))
				for range 100 {
					ticket := newTicket(sources[rnd.IntN(len(sources))])
					l.rerank(ticket, rank(rnd.IntN(4)))
					once, cancel := context.WithTimeout(ctx, time.Duration(rnd.IntN(5000))*time.Millisecond)
					err := l.acquire(once, ticket)
					for err == nil && rnd.IntN(6) > 0 {
						time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
						queued := false
						switch rnd.IntN(3) {
						case 0:
							l.rerank(ticket, rank(rnd.IntN(4)))
						case 1:
							queued = l.pressed(ticket) && l.hand(ticket)
						case 2:
							queued = !l.charge(ticket, sources[rnd.IntN(len(sources))])
						}
						if queued {
							err = l.wait(once, ticket)
						}
					}
					if err == nil {
						l.release(ticket)
					}
					cancel()
				}
			})
		}
		done := make(chan struct{})
		go func() { work.Wait(); close(done) }()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			case <-time.After(17 * time.Millisecond):
			}
			if rnd.IntN(50) == 0 {
				n := 1 + rnd.IntN(6)
				most = max(most, n)
				l.resize(n)
			}
			l.check(t, MaxFills(most, len(sources)))
		}
		cancel()
		l.wantEmpty(t)
	})
}

// check looks at the accounts.
func (l *line) check(t *testing.T, most int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	used := 0
	for name, a := range l.accounts {
		used += a.used
		waits := 0
		for _, w := range a.queue {
			if w.account != a || w.seated || w.source != name {
				t.Fatalf("account %s has a queue with a ticket of %s, seated %v", name, w.source, w.seated)
			}
			waits += count(w.is().needed())
		}
		switch {
		case a.used < 0 || a.used == 0 && len(a.queue) == 0:
			t.Fatalf("account %s has %d slots, and nobody waits", name, a.used)
		case len(a.queue) > 0 && (a.used == 0 || l.used < l.total):
			t.Fatalf("source %s has %d of %d slots in use, and %d wait", name, a.used, l.used, len(a.queue))
		case waits > 0 && a.used < l.share() && l.used < l.total+len(l.accounts)*half(l.total):
			t.Fatalf("source %s has %d slots, its share is %d, and %d wait", name, a.used, l.share(), waits)
		case a.needed < waits || a.needed > waits+a.used:
			t.Fatalf("source %s has %d needed fills, %d wait, %d slots", name, a.needed, waits, a.used)
		}
	}
	if used != l.used || used > most {
		t.Fatalf("%d slots in use, %d counted, at most %d", l.used, used, most)
	}
}

// waitPressing waits until the most urgent fill of those that wait has that rank.
func waitPressing(t *testing.T, s *Store, want rank) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for rank(s.slots.pressing.Load()) != want {
		if time.Now().After(deadline) {
			t.Fatalf("the most urgent fill that waits has rank %d, want %d", s.slots.pressing.Load(), want)
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
	urgent := &fake{name: "a", data: noise(2, 300_000)}
	urgent.reply = func(int, int64) reply {
		if n := low.bytes(); n >= 600_000 {
			t.Errorf("the client's turn came when all %d bytes were there", n)
		}
		return reply{}
	}
	ahead := blobOf(low.data)
	ahead.Why, ahead.By = Ahead, ByPrefetch
	first := arrives(s, ahead, low)
	<-began
	for low.bytes() < 200_000 { // else the slot may be given away, and be back, unseen
		runtime.Gosched()
	}
	second := arrives(s, blobOf(urgent.data), urgent)
	waitPressing(t, s, rankClient)
	close(gate)
	wantStored(t, first, second)
	wantAsked(t, low, 0)
	wantData(t, s, blobOf(low.data), low.data, Hit)
	wantData(t, s, blobOf(urgent.data), urgent.data, Hit)
	if n := s.requests(Miss); n != 1 {
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
		f := &fake{name: "a", data: noise(seed, 100_000)}
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
	waitPressing(t, s, rankClient)
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
		urgent := always("a", noise(2, 300_000), reply{chunk: 30_000, pause: time.Second})
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
