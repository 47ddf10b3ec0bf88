// Package race asks several for the same thing, each a little after the one before, until one
// answers well: one that cannot be reached does not keep the asker from the others.
package race

import (
	"context"
	"iter"
	"time"
)

// First calls ask with 0 to n-1, in order: the next when one has answered in vain, and also when
// the last one asked has had pause as a head start. Without a pause all are asked at once. ask must
// not wait, and sees to it that one answer follows on answers, which has room for all. good judges
// an answer; the first good one wins. Without a winner ok is false: all have answered in vain, or
// ctx has ended, after which ask is not called. ask and good run in the caller's goroutine. late
// waits for the answers that are still to come, and gives them.
func First[T any](ctx context.Context, n int, pause time.Duration, ask func(i int, answers chan<- T), good func(T) bool) (won T, late iter.Seq[T], ok bool) {
	answers, pending := make(chan T, n), 0
	late = func(yield func(T) bool) {
		for range pending {
			if !yield(<-answers) {
				return
			}
		}
	}
	var next <-chan time.Time // the end of the head start; nil: there is none
	asked := 0
	more := func() {
		next = nil
		for asked < n && ctx.Err() == nil {
			ask(asked, answers)
			asked++
			pending++
			if pause > 0 && asked < n {
				next = time.After(pause)
				return
			}
		}
	}
	for more(); pending > 0; {
		select {
		case <-next:
			more()
		case a := <-answers:
			pending--
			if good(a) {
				return a, late, true
			}
			more()
		case <-ctx.Done():
			return won, late, false
		}
	}
	return won, late, false
}
