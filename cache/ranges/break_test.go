package ranges

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
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

// What breaks off after few bytes, ahead of a reader that waits, takes no more memory than the window.
func TestBreaksAheadTakeNoMemory(t *testing.T) {
	data := noise(24 * mib)
	synctest.Test(t, func(t *testing.T) {
		f := &fake{data: data, wait: time.Millisecond, reply: func(try int, _, _ int64) answer {
			if try == 1 {
				return answer{stall: -1}
			}
			return answer{each: 64 << 20, cut: 1}
		}}
		b := open(t.Context(), t, NewMemory(36*mib), 4, 0, f)
		time.Sleep(3 * time.Second)
		b.mu.Lock()
		taken := int64(0)
		for _, p := range b.pieces {
			for _, k := range p.blocks {
				if k != nil {
					taken += blockSize
				}
			}
		}
		b.mu.Unlock()
		if taken > b.o.Window {
			t.Errorf("%d bytes are taken for a window of %d", taken, b.o.Window)
		}
		if n := len(f.requests()); n < 100 {
			t.Errorf("%d requests", n)
		}
		wantClosed(t, b, f)
	})
}
