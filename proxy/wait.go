package proxy

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The times of a watch: a client that has hung up is let go within 2 s.
const (
	// watchEvery is how often the connections of waiting clients are looked at.
	watchEvery = 250 * time.Millisecond
	// silentGrace is how long a wait lasts at least for a client that has ended its sending side:
	// the client may have hung up, or may still read. A reply that begins earlier reaches the
	// client.
	silentGrace = time.Second
)

// errGone ends a wait whose client has hung up.
var errGone = errors.New("it has hung up")

// statusGone is the status of a request whose client has left before the reply, for log and
// metrics. nginx and others use the same number.
const statusGone = 499

// errLeft is the reply to a client that has left; only a client that still reads sees the reply.
var errLeft = &apiError{status: statusGone, code: "ClientClosedRequestError", message: "the client has hung up"}

// wait is the context of one wait on behalf of a client: for a place in the queue, a source's
// answer, the next bytes. A wait ends with its parent, after its limit, and with the cause errGone
// soon after the client's hang-up. The creator must call end before the client's connection is
// given back to fasthttp.
//
// A wait costs nothing before the first call of Done: the connection of a reply that needs no wait
// stays unwatched. fasthttp reads nothing during a handler or a body, so only a watch sees a
// hang-up.
type wait struct {
	context.Context // the parent
	watch           *watch
	conn            net.Conn
	deadline        time.Time // zero = none
	// whole: the request has arrived to its end, so that a client that ends its sending side may well
	// wait for the reply to an upload.
	whole atomic.Bool

	mu    sync.Mutex // guards the begin and the end
	ended bool
	begun atomic.Pointer[begunWait]
}

// begunWait is a wait after the first call of Done.
type begunWait struct {
	context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // of the deadline
	raw    syscall.RawConn    // nil = a connection in memory, which nothing watches
	whole  *atomic.Bool       // see wait
	shut   *atomic.Bool       // see client; valid with raw
	since  time.Time
}

// wait gives the context of a wait for the request; limit 0 = none.
func (s *Server) wait(parent context.Context, req *request, limit time.Duration) *wait {
	w := &wait{Context: parent, watch: &s.watch, conn: req.ctx.Conn()}
	if limit > 0 {
		w.deadline = time.Now().Add(limit)
	}
	return w
}

// endWait ends w, and notes a hang-up for the reply.
func (req *request) endWait(w *wait) {
	if w.end() {
		req.left = true
	}
}

// Done begins the wait and the watch.
func (w *wait) Done() <-chan struct{} { return w.begin().Done() }

// Err is nil before the first call of Done, unless the parent has ended.
func (w *wait) Err() error { return w.current().Err() }

// Value makes w a context of the standard library's kind: children need no goroutine.
func (w *wait) Value(key any) any { return w.current().Value(key) }

// Deadline is the earlier one of the parent's deadline and the limit.
func (w *wait) Deadline() (time.Time, bool) {
	at, ok := w.Context.Deadline()
	if !w.deadline.IsZero() && (!ok || w.deadline.Before(at)) {
		return w.deadline, true
	}
	return at, ok
}

func (w *wait) current() context.Context {
	if b := w.begun.Load(); b != nil {
		return b
	}
	return w.Context
}

func (w *wait) begin() *begunWait {
	if b := w.begun.Load(); b != nil {
		return b
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.begun.Load(); b != nil {
		return b
	}
	b := &begunWait{stop: func() {}, whole: &w.whole, since: time.Now()}
	b.Context, b.cancel = context.WithCancelCause(w.Context)
	if !w.deadline.IsZero() {
		b.Context, b.stop = context.WithDeadline(b.Context, w.deadline)
	}
	if w.ended {
		b.cancel(nil)
		b.stop()
	} else if inner, ok := rawConn(w.conn).(syscall.Conn); ok {
		if raw, err := inner.SyscallConn(); err == nil {
			b.raw, b.shut = raw, &w.watch.conns.client(w.conn).shut
			w.watch.add(b)
		}
	}
	w.begun.Store(b)
	return b
}

// end ends the wait and its watch, and tells whether the client has left.
func (w *wait) end() (left bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	b := w.begun.Load()
	if b == nil {
		return false
	}
	w.watch.remove(b)
	left = errors.Is(context.Cause(b), errGone)
	b.cancel(nil)
	b.stop()
	return left
}

// watch looks at the connections of waiting clients, and ends the waits of clients that have hung
// up.
type watch struct {
	conns   *conns
	waiting prometheus.Gauge
	left    prometheus.Counter
	wake    chan struct{} // has room for one: waits have come

	mu    sync.Mutex
	waits map[*begunWait]struct{}
}

func (w *watch) init(c *conns, m *metrics) {
	w.conns = c
	w.waiting, w.left = m.waiting, m.left
	w.wake = make(chan struct{}, 1)
	w.waits = make(map[*begunWait]struct{})
}

func (w *watch) add(b *begunWait) {
	w.mu.Lock()
	w.waits[b] = struct{}{}
	w.mu.Unlock()
	w.waiting.Inc()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// remove ends the watch of b; false if the watch has ended before.
func (w *watch) remove(b *begunWait) bool {
	w.mu.Lock()
	_, watched := w.waits[b]
	delete(w.waits, b)
	w.mu.Unlock()
	if watched {
		w.waiting.Dec()
	}
	return watched
}

// run watches until ctx ends. run sleeps while no client waits.
func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		tick.Reset(watchEvery)
		for looked := true; looked; looked = w.look() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// look lets the clients go that have hung up; false = no client waits.
func (w *watch) look() bool {
	w.mu.Lock()
	waits := slices.Collect(maps.Keys(w.waits))
	w.mu.Unlock()
	for _, b := range waits {
		silent, gone := hungUp(b.raw, b.shut.Load())
		silent = silent && !b.whole.Load() && time.Since(b.since) >= silentGrace
		if (gone || silent) && w.remove(b) {
			w.left.Inc()
			b.cancel(errGone)
		}
	}
	return len(waits) > 0
}
