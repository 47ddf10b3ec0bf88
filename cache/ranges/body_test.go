package ranges

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"imgmirror/verify"
)

const mib = 1 << 20

// noise is n bytes that are always the same. They repeat after a bit more than a piece.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b[:min(n, mib+4099)])
	for at := mib + 4099; at < n; at *= 2 {
		copy(b[at:], b[:at])
	}
	return b
}

// fake is a source that does as it is told.
type fake struct {
	data  []byte
	each  int           // bytes a second of one connection; 0: as fast as asked
	all   *rate.Limiter // of all connections; nil: no limit
	own   bool          // all is the receiver's own limit
	wait  time.Duration // before an answer
	reply func(try int, offset, length int64) answer

	mu    sync.Mutex
	asked [][2]int64
	open  atomic.Int32 // bodies
	most  atomic.Int32 // of them at the same time
	sent  atomic.Int64
}

// answer is what differs from an answer as it should be.
type answer struct {
	err   error
	cut   int64 // > 0: the body breaks off after that many bytes
	stall int64 // > 0: nothing comes after that many bytes; -1: at once
	total int64 // != 0: is said to be the size
	whole bool  // the whole body comes
	more  bool  // one byte more than asked
	part  int64 // != 0: so many bytes
	each  int   // != 0: bytes a second, in the place of the source's

	late   time.Duration // with stall: after that the rest comes, whatever has become of the request
	linger time.Duration // before the end of the body
}

func (f *fake) Open(ctx context.Context, offset, length int64) (*verify.Stream, error) {
	f.mu.Lock()
	f.asked = append(f.asked, [2]int64{offset, length})
	try := len(f.asked)
	f.mu.Unlock()
	if err := sleep(ctx, f.wait); err != nil {
		return nil, err
	}
	var a answer
	if f.reply != nil {
		a = f.reply(try, offset, length)
	}
	if a.err != nil {
		return nil, a.err
	}
	s := &verify.Stream{Size: int64(len(f.data)), Part: length}
	if a.total != 0 {
		s.Size = a.total
	}
	rest := f.data[offset:][:length]
	switch {
	case a.whole:
		s.Part, rest = 0, f.data
	case a.part != 0:
		s.Part, rest = a.part, rest[:a.part]
	case a.more:
		rest = append(bytes.Clone(rest), 0)
	}
	f.most.Store(max(f.most.Load(), f.open.Add(1)))
	from := &body{f: f, ctx: ctx, a: a, rest: rest, limit: rate.NewLimiter(rate.Limit(cmp.Or(a.each, f.each)), 64<<10)}
	s.ReadCloser, s.Pace = from, func() verify.Pace { return verify.Pace{Held: from.held} }
	return s, nil
}

func (f *fake) requests() [][2]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

type body struct {
	f      *fake
	ctx    context.Context
	a      answer
	rest   []byte
	gave   int64
	closed bool
	limit  *rate.Limiter // of each
	held   time.Duration // by the receiver's own limit
}

func (b *body) Read(p []byte) (int, error) {
	n := min(len(p), len(b.rest), 64<<10)
	if b.a.cut > 0 {
		n = min(n, int(b.a.cut-b.gave))
	}
	if b.f.own {
		n = min(n, int(b.f.all.Limit()/20), 64<<10)
	}
	switch {
	case b.a.cut > 0 && b.gave >= b.a.cut:
		return 0, io.ErrUnexpectedEOF
	case b.a.late > 0 && b.gave >= b.a.stall:
		time.Sleep(b.a.late)
		b.a.stall, b.a.late = 0, 0
		return b.Read(p)
	case b.a.stall != 0 && b.gave >= max(b.a.stall, 0):
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	case n == 0:
		return 0, cmp.Or(sleep(b.ctx, b.a.linger), io.EOF)
	}
	if cmp.Or(b.a.each, b.f.each) > 0 {
		if err := b.limit.WaitN(b.ctx, n); err != nil {
			return 0, err
		}
	}
	if b.f.all != nil {
		began := time.Now()
		if err := b.f.all.WaitN(b.ctx, n); err != nil {
			return 0, err
		}
		if b.f.own {
			b.held += time.Since(began)
		}
	}
	copy(p, b.rest[:n])
	b.rest, b.gave = b.rest[n:], b.gave+int64(n)
	b.f.sent.Add(int64(n))
	return n, nil
}

func (b *body) Close() error {
	if !b.closed {
		b.f.open.Add(-1)
	}
	b.closed = true
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open makes a Body of the fakes' common bytes from offset on.
func open(ctx context.Context, t testing.TB, memory *Memory, streams int, offset int64, fakes ...*fake) *Body {
	t.Helper()
	o := Options{Streams: streams, Offset: offset, Size: int64(len(fakes[0].data)), Memory: memory}
	for i, f := range fakes {
		o.Sources = append(o.Sources, Source{Name: string(rune('a' + i)), Open: f.Open})
	}
	ctxFirst, drop := context.WithCancel(ctx)
	first, err := fakes[0].Open(ctxFirst, offset, min(FirstPiece, o.Size-offset))
	if err != nil {
		t.Fatal(err)
	}
	o.First, o.Drop = first, drop
	if o.Window = memory.Take(Window(Streams(streams, len(fakes)))); o.Window == 0 {
		t.Fatal("no window")
	}
	return New(ctx, o)
}

// wantBody reads a Body to its end, and gives how many bytes each source brought.
func wantBody(t testing.TB, b *Body, want []byte) (from []int) {
	t.Helper()
	from = make([]int, len(b.sources))
	buf, at := make([]byte, 256<<10), 0
	for {
		n, err := b.Read(buf)
		if n > len(want)-at || !bytes.Equal(buf[:n], want[at:at+n]) {
			t.Fatalf("%d other bytes at %d", n, at)
		}
		from[b.By()] += n
		at += n
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", at, err)
		}
	}
	if at != len(want) {
		t.Fatalf("the end is at %d, want %d", at, len(want))
	}
	return from
}

// wantClosed closes the Body: nothing stays.
func wantClosed(t testing.TB, b *Body, fakes ...*fake) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for i, f := range fakes {
		if n := f.open.Load(); n != 0 {
			t.Errorf("source %d has %d open bodies", i, n)
		}
	}
	if used, _, _ := b.o.Memory.Usage(); used != 0 {
		t.Errorf("%d bytes are booked", used)
	}
}

// bubble runs a test in virtual time, and wants it to take between least and most.
func bubble(t *testing.T, name string, least, most time.Duration, run func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			run(t)
			if took := time.Since(began); took < least || took > most {
				t.Errorf("took %v of virtual time, want %v to %v", took, least, most)
			}
		})
	})
}

// The requests are a partition of the body, without an overlap, where no source is slow or faulty.
func TestPartition(t *testing.T) {
	data := noise(40*mib + 17)
	for _, streams := range []int{1, 4, 16} {
		for _, offset := range []int64{0, 1, 5*mib + 3} {
			t.Run(fmt.Sprint(streams, offset), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &fake{data: data, each: 20 * mib, wait: time.Millisecond}
					b := open(t.Context(), t, NewMemory(1<<30), streams, offset, f)
					wantBody(t, b, data[offset:])
					wantClosed(t, b, f)
					if n := f.sent.Load(); n != int64(len(data))-offset {
						t.Errorf("%d bytes were sent for %d: %v", n, int64(len(data))-offset, f.requests())
					}
					if n := int(f.most.Load()); n != streams {
						t.Errorf("%d requests at the same time, want %d", n, streams)
					}
				})
			})
		}
	}
}

func TestSpeed(t *testing.T) {
	data := noise(160 * mib)
	ms := time.Millisecond
	limited := func(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), 64<<10) }
	f := func(name string, streams int, most time.Duration, fakes ...*fake) {
		t.Helper()
		bubble(t, name, 0, most, func(t *testing.T) {
			for _, f := range fakes {
				f.data = data
			}
			b := open(t.Context(), t, NewMemory(1<<30), streams, 0, fakes...)
			from := wantBody(t, b, data)
			wantClosed(t, b, fakes...)
			t.Log("from each source", from, "requests", len(fakes[0].asked), "sent", fakes[0].sent.Load()>>20, "MiB, now", time.Now().Format("05.000"))
		})
	}
	// One connection takes 8 s.
	f("four connections", 4, 2100*ms, &fake{each: 20 * mib, wait: ms})
	f("a long way", 4, 2700*ms, &fake{each: 20 * mib, wait: 50 * ms})
	// The faster one alone takes 8 s, and both 6.4 s at best.
	f("a slow one helps", 2, 6700*ms, &fake{all: limited(20 * mib), wait: ms}, &fake{all: limited(5 * mib), wait: ms})
	f("slow ones at each connection", 4, 2000*ms, &fake{each: 20 * mib, wait: ms}, &fake{each: 5 * mib, wait: ms})
	f("a very slow one does not hinder", 2, 8100*ms, &fake{all: limited(20 * mib), wait: ms}, &fake{all: limited(20 << 10), wait: ms})
	f("one with a small limit does not hinder", 2, 8100*ms, &fake{all: limited(20 * mib), wait: ms}, &fake{all: limited(100 << 10), own: true, wait: ms})
	f("a silent one does not hinder", 2, 8500*ms, &fake{all: limited(20 * mib), wait: ms}, &fake{wait: time.Hour})
}

// Whatever sources do wrong, the bytes are right as long as one source is well.
func TestFaults(t *testing.T) {
	data := noise(24 * mib)
	down := errors.New("down")
	f := func(name string, reply func(try int, offset, length int64) answer, lost error) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				well := &fake{data: data, each: 20 * mib, wait: time.Millisecond}
				ill := &fake{data: data, each: 5 * mib, wait: time.Millisecond, reply: reply}
				b := open(t.Context(), t, NewMemory(1<<30), 2, 0, well, ill)
				wantBody(t, b, data)
				var found bool
				for _, l := range b.Lost() {
					found = found || l.Source == 1 && errors.Is(l.Err, lost)
					if l.Source != 1 {
						t.Errorf("the source that is well has lost: %v", l.Err)
					}
				}
				if lost != nil && !found {
					t.Errorf("no %v is told", lost)
				}
				wantClosed(t, b, well, ill)
			})
		})
	}
	always := func(a answer) func(int, int64, int64) answer { return func(int, int64, int64) answer { return a } }
	f("is down", always(answer{err: down}), down)
	f("has nothing", always(answer{err: fs.ErrNotExist}), fs.ErrNotExist)
	f("breaks off", always(answer{cut: 300_000}), io.ErrUnexpectedEOF)
	f("breaks off at once", always(answer{cut: 1}), io.ErrUnexpectedEOF)
	f("is silent", always(answer{stall: -1}), nil)
	f("falls silent", always(answer{stall: 500_000}), nil)
	f("another total", always(answer{total: 24*mib + 1}), verify.ErrMismatch)
	f("does not tell the total", always(answer{total: -1}), nil)
	f("the whole body", always(answer{whole: true}), ErrWhole)
	f("fewer bytes than asked", always(answer{part: 1000}), ErrWhole)
	f("more bytes than asked", always(answer{more: true}), ErrWhole)
	f("each second time", func(try int, _, _ int64) answer {
		if try%2 == 0 {
			return answer{cut: 70_000}
		}
		return answer{}
	}, io.ErrUnexpectedEOF)
}

// A body whose only source fails ends with the source's error, behind the bytes that came.
func TestEnd(t *testing.T) {
	data := noise(24 * mib)
	down := errors.New("down")
	synctest.Test(t, func(t *testing.T) {
		f := &fake{data: data, each: 20 * mib, reply: func(_ int, offset, _ int64) answer {
			if offset >= 10*mib {
				return answer{err: down}
			}
			return answer{}
		}}
		b := open(t.Context(), t, NewMemory(1<<30), 4, 0, f)
		got, err := io.ReadAll(b)
		if !errors.Is(err, down) || len(got) < 9*mib || !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("%d bytes and %v", len(got), err)
		}
		wantClosed(t, b, f)
	})
}

// The end of ctx, and Close, end a Read that waits.
func TestCancel(t *testing.T) {
	data := noise(24 * mib)
	gone := errors.New("gone")
	for _, how := range []string{"ctx", "close"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				f := &fake{data: data, reply: func(int, int64, int64) answer { return answer{stall: -1} }}
				b := open(ctx, t, NewMemory(1<<30), 4, 0, f)
				ended := make(chan error)
				go func() {
					_, err := b.Read(make([]byte, 1))
					ended <- err
				}()
				synctest.Wait()
				want := gone
				if how == "ctx" {
					cancel(gone)
				} else {
					want = context.Canceled
					b.Close()
				}
				if err := <-ended; !errors.Is(err, want) {
					t.Errorf("Read ended with %v", err)
				}
				wantClosed(t, b, f)
			})
		})
	}
}

// What has come and was not read is never more than the window.
func TestWindow(t *testing.T) {
	data := noise(100 * mib)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{data: data}
		memory := NewMemory(80 * mib)
		b := open(t.Context(), t, memory, 4, 0, f)
		if used, _, _ := memory.Usage(); used != 20*mib {
			t.Errorf("%d bytes are booked", used)
		}
		synctest.Wait()
		buf := make([]byte, 3*mib)
		for at := 0; at < len(data); {
			n, err := io.ReadFull(b, buf[:min(len(buf), len(data)-at)])
			if err != nil || !bytes.Equal(buf[:n], data[at:at+n]) {
				t.Fatalf("at %d: %v", at, err)
			}
			at += n
			synctest.Wait()
			if ahead := int(f.sent.Load()) - at; ahead > 20*mib || ahead < 10*mib && at < len(data)-20*mib {
				t.Fatalf("%d bytes ahead of %d", ahead, at)
			}
		}
		wantClosed(t, b, f)
	})
}

// What streams bring, in real time: the figure is how many times as fast as one stream of the first
// source they are.
func BenchmarkStreams(b *testing.B) {
	data := noise(96 * mib)
	bring := func(b *testing.B, streams int, fakes ...*fake) time.Duration {
		for _, f := range fakes {
			f.data, f.wait = data, time.Millisecond
		}
		began := time.Now()
		body := open(b.Context(), b, NewMemory(1<<30), streams, 0, fakes...)
		wantBody(b, body, data)
		took := time.Since(began)
		wantClosed(b, body, fakes...)
		return took
	}
	limit := func(n int) *rate.Limiter { return rate.NewLimiter(rate.Limit(n), 64<<10) }
	f := func(name string, one func() time.Duration, many func() time.Duration) {
		b.Run(name, func(b *testing.B) {
			var alone, together time.Duration
			for b.Loop() {
				alone += one()
				together += many()
			}
			b.ReportMetric(alone.Seconds()/together.Seconds(), "x")
		})
	}
	f("20MB_a_connection/4", func() time.Duration { return bring(b, 1, &fake{each: 20_000_000}) },
		func() time.Duration { return bring(b, 4, &fake{each: 20_000_000}) })
	f("20MB_and_5MB/2", func() time.Duration { return bring(b, 2, &fake{all: limit(20_000_000)}) },
		func() time.Duration { return bring(b, 2, &fake{all: limit(20_000_000)}, &fake{all: limit(5_000_000)}) })
}
