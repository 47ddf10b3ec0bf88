package zfsimport

import "context"

// turn lets one at a time receive, in the order in which they came.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn. Unless it fails, pass must follow.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}: // who sends first is let in first
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) pass() { <-t }
