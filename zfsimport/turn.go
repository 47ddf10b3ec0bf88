package zfsimport

import (
	"context"
	"slices"
	"sync"
)

// turn lets one at a time receive, in the order in which they queued up.
type turn struct {
	mu    sync.Mutex
	queue []*place // the first one's turn it is
}

// place is one in the queue.
type place struct {
	of    *turn
	ready chan struct{} // closed when it is the first
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

// leave gives the place up, and with it the turn. Idempotent.
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
