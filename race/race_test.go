package race

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// runner answers after a while, well or not.
type runner struct {
	after time.Duration
	well  bool
}

func TestFirst(t *testing.T) {
	const s = time.Second
	pause := 2 * s
	f := func(what string, runners []runner, limit time.Duration, won int, took time.Duration, pending int, starts ...time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			var asked []time.Duration
			i, late, ok := First(ctx, len(runners), pause, func(i int, answers chan<- int) {
				asked = append(asked, time.Since(began))
				time.AfterFunc(runners[i].after, func() { answers <- i })
			}, func(i int) bool { return runners[i].well })
			d, left := time.Since(began), 0
			for range late {
				left++
			}
			if ok != (won >= 0) || ok && i != won || d != took || left != pending || !slices.Equal(asked, starts) {
				t.Errorf("%s: %d won (%v) after %v, %d late, asked at %v; want %d after %v, %d late, asked at %v", what, i, ok, d, left, asked, won, took, pending, starts)
			}
		})
	}
	f("nobody", nil, 9*s, -1, 0, 0)
	f("the first", []runner{{s, true}, {0, true}}, 9*s, 0, s, 0, 0)
	f("the first is slow", []runner{{9 * s, true}, {s, true}, {0, true}}, 9*s, 1, 3*s, 1, 0, 2*s)
	f("refusals hurry", []runner{{s, false}, {0, false}, {s, true}}, 9*s, 2, 2*s, 0, 0, s, s)
	f("a late one still counts", []runner{{3 * s, true}, {0, false}}, 9*s, 0, 3*s, 0, 0, 2*s)
	f("all in vain", []runner{{s, false}, {s, false}}, 9*s, -1, 2*s, 0, 0, s)
	f("no time left", []runner{{9 * s, true}, {9 * s, true}}, 3*s, -1, 3*s, 2, 0, 2*s)
	pause = 0
	f("all at once", []runner{{9 * s, true}, {s, false}, {2 * s, true}}, 9*s, 2, 2*s, 1, 0, 0, 0)
	f("all at once, in vain", []runner{{s, false}, {2 * s, false}}, 9*s, -1, 2*s, 0, 0, 0)
}

// TestFirstOfAnEndedContext: no candidate is asked once the context has ended.
func TestFirstOfAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	ask := func(_ int, answers chan<- int) {
		asked++
		cancel()
		answers <- 0
	}
	vain := func(int) bool { return false }
	if _, _, ok := First(ctx, 2, 0, ask, vain); ok || asked != 1 {
		t.Errorf("the context ends with the first: %v, %d asked", ok, asked)
	}
	if _, _, ok := First(ctx, 2, time.Second, ask, vain); ok || asked != 1 {
		t.Errorf("an ended context: %v, %d asked", ok, asked)
	}
}
