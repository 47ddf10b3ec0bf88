// Package race asks several for the same thing, each a little after the one before, until one
// answers well: one that cannot be reached does not keep the asker from the others.
package race

import (
	"context"
	"iter"
	"time"
)

// First calls ask with 0 to n-1, in order: the next when one has answered in vain, and also when
// the last one asked has had pause as a head start. ask must not wait, and sees to it that one
// answer follows on answers, which has room for all. good judges an answer; the first good one
// wins. Without a winner ok is false: all have answered in vain, or ctx has ended. ask and good
// run in the caller's goroutine. late waits for the answers that are still to come, and gives them.
func First[T any](ctx context.Context, n int, pause time.Duration, ask func(i int, answers chan<- T), good func(T) bool) (won T, late iter.Seq[T], ok bool) {
	answers, pending := make(chan T, n), 0
	late = func(yield func(T) bool) {
		for range pending {
			if !yield(<-answers) {
				return
			}
		}
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for asked := 0; asked < n || pending > 0; {
		select {
		case <-next.C:
			if asked < n {
				ask(asked, answers)
				asked++
				pending++
				next.Reset(pause)
			}
		case a := <-answers:
			pending--
			if good(a) {
				return a, late, true
			}
			next.Reset(0)
		case <-ctx.Done():
			return won, late, false
		}
	}
	return won, late, false
}
