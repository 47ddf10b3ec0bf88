package cache

import "context"

// turn is for work that one at a time does. Unlike a mutex, the wait for it ends with a context, and
// those who wait are served in the order in which they came. It is held over I/O.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn. Unless it fails with ctx's cause, leave must follow.
func (t turn) take(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives the turn to the next one.
func (t turn) leave() { <-t }
