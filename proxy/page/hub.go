package page

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bounds of event streams.
const (
	maxStreams        = 64 // of each side
	maxAddressStreams = 8  // of one address of clients
	maxWants          = 16 // parts of one stream
	maxSubjects       = 1  // of these, about a job or an image of its own
	liveEvery         = time.Second
	// makeShare keeps the making of parts from more than one part in so many of the time.
	makeShare    = 5
	liveAlive    = 15 * time.Second // after which a comment shows that the stream is alive
	eventTimeout = 30 * time.Second // in which an event must be taken
)

// errStreams refuses a stream.
var errStreams = errors.New("too many event streams are open")

// errEnded ends the streams when the mirror stops.
var errEnded = errors.New("the mirror is stopping")

// hub makes the parts for all streams of one side: at most once a second, only what some stream wants,
// and only while streams are open. Where the making takes long it is done less often.
type hub struct {
	page     *Page
	operator bool
	wake     chan struct{} // has room for one: a stream has come

	mu      sync.Mutex // guards what follows
	ended   bool
	streams map[*stream]struct{}
	made    map[string]*madePart // by the id of the element
	version uint64               // of the last change
	changed chan struct{}        // closed at the next change
}

// madePart is a part as an event, whose bytes never change.
type madePart struct {
	event   []byte
	version uint64
	due     time.Time // when it may be made anew
}

// stream is one reader of events.
type stream struct {
	hub     *hub
	wants   []string
	address netip.Addr
	seen    uint64
}

func newHub(p *Page, operator bool) *hub {
	return &hub{
		page: p, operator: operator, wake: make(chan struct{}, 1), streams: make(map[*stream]struct{}),
		made: make(map[string]*madePart), changed: make(chan struct{}),
	}
}

// side is the value of metrics' labels.
func (h *hub) side() string {
	if h.operator {
		return sideOperators
	}
	return sideClients
}

// open begins a stream of the parts that want names, with commas. The caller calls close.
func (h *hub) open(want string, address netip.Addr) (*stream, error) {
	s := &stream{hub: h, address: address}
	subjects := 0
	for id := range strings.SplitSeq(want, ",") {
		_, arg, ok := h.page.findPart(id)
		if !ok || len(s.wants) >= maxWants || slices.Contains(s.wants, id) || arg != "" && subjects >= maxSubjects {
			continue
		}
		if arg != "" {
			subjects++
		}
		s.wants = append(s.wants, id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return nil, errEnded
	}
	same := 0
	for other := range h.streams {
		if address.IsValid() && other.address == address {
			same++
		}
	}
	if len(h.streams) >= maxStreams || same >= maxAddressStreams {
		h.page.metrics.refused[h.side()].Inc()
		return nil, errStreams
	}
	h.streams[s] = struct{}{}
	h.page.metrics.streams[h.side()].Inc()
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return s, nil
}

func (s *stream) close() {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
	h.page.metrics.streams[h.side()].Dec()
	wanted := h.wanted()
	for id := range h.made {
		if !wanted[id] {
			delete(h.made, id)
		}
	}
}

// wanted is the ids that some stream wants. mu is held.
func (h *hub) wanted() map[string]bool {
	all := make(map[string]bool)
	for s := range h.streams {
		for _, id := range s.wants {
			all[id] = true
		}
	}
	return all
}

// next waits for parts that have changed since the last call, and gives their events; nil after
// liveAlive without any. All streams share the bytes. The error is errEnded or ctx's.
func (s *stream) next(ctx context.Context) ([][]byte, error) {
	alive := time.NewTimer(liveAlive)
	defer alive.Stop()
	h := s.hub
	for {
		h.mu.Lock()
		var events [][]byte
		for _, id := range s.wants {
			if m := h.made[id]; m != nil && m.version > s.seen {
				events = append(events, m.event)
			}
		}
		s.seen = h.version
		changed, ended := h.changed, h.ended
		h.mu.Unlock()
		if ended {
			return nil, errEnded
		}
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-changed:
		case <-alive.C:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// run makes parts until ctx ends, and then ends all streams.
func (h *hub) run(ctx context.Context) {
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended = true
		close(h.changed)
	}()
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-h.wake:
		case <-ctx.Done():
			return
		}
		for {
			begun := time.Now()
			if !h.make(ctx) {
				break
			}
			tick.Reset(max(liveEvery, makeShare*time.Since(begun)))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// make makes the parts that are wanted; false = no stream is open.
func (h *hub) make(ctx context.Context) bool {
	h.mu.Lock()
	wanted, open := h.wanted(), len(h.streams) > 0
	begun := time.Now()
	for id := range wanted {
		if m := h.made[id]; m != nil && begun.Before(m.due) {
			delete(wanted, id)
		}
	}
	h.mu.Unlock()
	if !open {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	l := &look{Context: ctx, page: h.page, operator: h.operator}
	now := make(map[string][]byte)
	for id := range wanted {
		event, err := l.event(id)
		if err != nil {
			h.page.log.Debug("a part of a page could not be made", "part", id, "error", err)
			continue
		}
		now[id] = event
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	wanted = h.wanted()
	news := false
	for id, event := range now {
		row, _, _ := h.page.findPart(id)
		due := begun.Add(row.every)
		switch last := h.made[id]; {
		case !wanted[id]:
		case last != nil && bytes.Equal(last.event, event):
			last.due = due
		default:
			h.made[id] = &madePart{event, h.version + 1, due}
			news = true
		}
	}
	if news {
		h.version++
		close(h.changed)
		h.changed = make(chan struct{})
	}
	return true
}
