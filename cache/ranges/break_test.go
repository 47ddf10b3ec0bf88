package ranges

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// A piece and its rival break off, the rival behind the place where the reader is by then.
func TestRivalBreaksBehindReader(t *testing.T) {
	data := noise(24 * mib)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rivals := 0
		slow := &fake{data: data, reply: func(try int, _, _ int64) answer {
			if try == 1 {
				return answer{each: 100 << 10, cut: 300 << 10}
			}
			return answer{stall: -1}
		}}
		fast := &fake{data: data, each: 20 * mib, reply: func(_ int, offset, _ int64) answer {
			if offset >= mib {
				return answer{}
			}
			if rivals++; rivals == 1 {
				return answer{each: 50 << 10, cut: 190 << 10}
			}
			return answer{}
		}}
		b := open(ctx, t, NewMemory(1<<30), 1, 0, slow, fast)
		wantBody(t, b, data)
		if rivals < 2 {
			t.Errorf("%d requests for the first piece beside the first one, want 2", rivals)
		}
		wantClosed(t, b, slow, fast)
	})
}

// wantWindow wants the blocks of all pieces to fit into the window.
func wantWindow(t *testing.T, b *Body) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := int64(0)
	for _, p := range b.pieces {
		for _, k := range p.blocks {
			if k != nil {
				taken += blockSize
			}
		}
	}
	if taken > b.o.Window {
		t.Errorf("%d bytes are taken for a window of %d", taken, b.o.Window)
	}
}

// The small pieces at the end of a body take no more memory than the window.
func TestEndTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{data: noise(32 * mib), each: 20 * mib, wait: 1300 * time.Microsecond}
		b := open(t.Context(), t, NewMemory(33*mib), 16, 0, f)
		time.Sleep(time.Minute)
		if b.planned != b.o.Size || len(b.pieces) < 40 {
			t.Errorf("%d pieces up to %d", len(b.pieces), b.planned)
		}
		wantWindow(t, b)
		wantClosed(t, b, f)
	})
}

// breaksAhead is a source. The first request brings nothing. Each other request breaks off after its first bytes.
func breaksAhead(data []byte) *fake {
	return &fake{data: data, wait: time.Millisecond, reply: func(try int, _, _ int64) answer {
		if try == 1 {
			return answer{stall: -1}
		}
		return answer{each: 64 << 20, cut: 1}
	}}
}

// What breaks off after few bytes, ahead of a reader that waits, takes no more memory than the window.
func TestBreaksAheadTakeNoMemory(t *testing.T) {
	data := noise(24 * mib)
	synctest.Test(t, func(t *testing.T) {
		f := breaksAhead(data)
		b := open(t.Context(), t, NewMemory(36*mib), 4, 0, f)
		time.Sleep(3 * time.Second)
		wantWindow(t, b)
		if n := len(f.requests()); n < 100 {
			t.Errorf("%d requests", n)
		}
		wantClosed(t, b, f)
	})
}

// A source may send other first bytes than the first source. The pieces of such a source are not used, however few
// sources are left.
func TestSample(t *testing.T) {
	data, wrong := noise(24*mib), noise(24*mib)
	wrong[sampleSize-1] ^= 1
	for _, offset := range []int64{0, sampleSize - 1, sampleSize} {
		synctest.Test(t, func(t *testing.T) {
			well, ill := &fake{data: data, each: 20 * mib}, &fake{data: wrong, each: 40 * mib}
			b := open(t.Context(), t, NewMemory(1<<30), 4, offset, well, ill)
			from := wantBody(t, b, data[offset:])
			if differs := offset < sampleSize; differs != (from[1] == 0) {
				t.Errorf("from offset %d on: %d bytes of the second source", offset, from[1])
			} else if lost := b.Lost(); differs && (len(lost) != 1 || lost[0].Source != 1 || !errors.Is(lost[0].Err, ErrDiffers)) {
				t.Errorf("lost %v", lost)
			}
			wantClosed(t, b, well, ill)
		})
	}
}

// The body ends with its first source, where that brings no sample, and waits for no other one.
func TestSampleNeverComes(t *testing.T) {
	data, down := noise(24*mib), errors.New("down")
	f := func(t *testing.T, wait time.Duration) {
		first := &fake{data: data, reply: func(try int, _, _ int64) answer {
			if try > 1 {
				return answer{err: down}
			}
			return answer{cut: 1000}
		}}
		second := &fake{data: data, each: 20 * mib, wait: wait}
		b := open(t.Context(), t, NewMemory(1<<30), 2, 0, first, second)
		got, err := io.ReadAll(b)
		if !errors.Is(err, down) || len(got) != 1000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		wantClosed(t, b, first, second)
	}
	for name, wait := range map[string]time.Duration{"another answers": 0, "another is silent": time.Hour} {
		bubble(t, name, 0, time.Second, func(t *testing.T) { f(t, wait) })
	}
}

// Bytes of a request that was given up come when all that was planned is read.
func TestBytesAfterDrop(t *testing.T) {
	data := noise(24 * mib)
	synctest.Test(t, func(t *testing.T) {
		deaf := &fake{data: data, reply: func(try int, _, _ int64) answer {
			if try == 1 {
				return answer{stall: 128 << 10, late: 5 * time.Second}
			}
			return answer{}
		}}
		rivals := 0
		fast := &fake{data: data, each: 20 * mib, reply: func(_ int, offset, _ int64) answer {
			if offset > 0 && offset < mib {
				rivals++
				return answer{linger: 10 * time.Second}
			}
			return answer{}
		}}
		began := time.Now()
		b := open(t.Context(), t, NewMemory(1<<30), 1, 0, deaf, fast)
		wantBody(t, b, data)
		if took := time.Since(began); rivals != 1 || took < 5*time.Second {
			t.Errorf("%d requests beside the first one, and %v", rivals, took)
		}
		wantClosed(t, b, deaf, fast)
	})
}

// Where the own limit leaves less than before, its streams ask for nothing twice.
func TestLimitShrinks(t *testing.T) {
	data := noise(64 * mib)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{data: data, all: rate.NewLimiter(40*mib, 64<<10), own: true, wait: time.Millisecond}
		time.AfterFunc(time.Second, func() { f.all.SetLimit(mib / 20) })
		b := open(t.Context(), t, NewMemory(1<<30), 4, 0, f)
		wantBody(t, b, data)
		wantClosed(t, b, f)
		if sent := f.sent.Load(); sent != int64(len(data)) {
			t.Errorf("%d bytes were sent for %d", sent, len(data))
		}
	})
}

// A wait for the own limit counts once, though two requests for the same bytes have waited.
func TestHeldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &piece{to: mib, rival: &piece{to: mib}}
		b := &Body{pieces: []*piece{p}, hungry: true, waits: time.Now()}
		b.data = sync.NewCond(&b.mu)
		for want := time.Second; want <= 3*time.Second; want += time.Second {
			time.Sleep(time.Second)
			b.arrived(p, 1, time.Second)
			b.arrived(p.rival, 1, time.Second)
			if got := b.Pace().Held; got != want {
				t.Errorf("held for %v, want %v", got, want)
			}
		}
	})
}

// A reader that is away for long lets no list of failures grow.
func TestLostIsBounded(t *testing.T) {
	data := noise(24 * mib)
	synctest.Test(t, func(t *testing.T) {
		f := breaksAhead(data)
		b := open(t.Context(), t, NewMemory(1<<30), 4, 0, f)
		time.Sleep(time.Minute)
		if n := len(b.Lost()); n == 0 || n > 2*MaxStreams {
			t.Errorf("%d failures are told", n)
		}
		wantClosed(t, b, f)
	})
}
