package zfsimport

import (
	"context"
	"slices"
	"sync"
)

// turn lets one place at a time receive, in the order of join.
type turn struct {
	mu    sync.Mutex
	queue []*place // the first has the turn
}

// place is a place in the queue.
type place struct {
	of    *turn
	ready chan struct{} // closed when the place is the first
}

// join takes the last place. leave must follow.
func (t *turn) join() *place {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &place{of: t, ready: make(chan struct{})}
	t.queue = append(t.queue, p)
	if t.queue[0] == p {
		close(p.ready)
	}
	return p
}

// wait waits for the turn.
func (p *place) wait(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives up the place and its turn, and may be called again.
func (p *place) leave() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	at := slices.Index(p.of.queue, p)
	if at < 0 {
		return
	}
	p.of.queue = slices.Delete(p.of.queue, at, at+1)
	if at == 0 && len(p.of.queue) > 0 {
		close(p.of.queue[0].ready)
	}
}
