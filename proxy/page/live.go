package page

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// part is a piece of a page that changes by itself: the element <section id="ID" data-live>. Its HTML is
// the template part of the page's file, with load's value. The same HTML goes to all who look, so a part
// has no form: the token in a form is of one session. A part that load cannot make stays as it is.
type part struct {
	id       string // "fills"; "job." = "job.ID" for any ID, which load gets
	page     string // the file of the template, without its ending
	template string
	every    time.Duration // how often it is made anew, at most; 0 = each second
	load     func(l *look, arg string) (any, error)
}

// parts is all pieces of pages that change by themselves.
var parts = []part{
	{id: "attention", page: "overview", template: "attention", load: lookAll},
	{id: "figures", page: "overview", template: "figures", load: lookAll},
	{id: "graphs", page: "overview", template: "graphs", every: 10 * time.Second, load: func(l *look, _ string) (any, error) { return l.graphs() }},
	{id: "fills", page: "overview", template: "fills", load: lookAll},
	{id: "disk", page: "overview", template: "disk", load: lookAll},
	{id: "health", page: "overview", template: "health", load: lookAll},
	{id: "events", page: "overview", template: "events", load: lookAll},
	{id: "bounds", page: "overview", template: "bounds", load: lookAll},
	{id: "source-list", page: "sources", template: "source-list", load: func(l *look, _ string) (any, error) { return l.sources() }},
	{id: "job-list", page: "jobs", template: "job-list", load: func(l *look, _ string) (any, error) { return l.jobs() }},
	{id: "image.", page: "image", template: "image-state", load: func(l *look, id string) (any, error) { return l.imageState(id) }},
	{id: "job.", page: "job", template: "job-state", load: func(l *look, id string) (any, error) { return l.job(id) }},
}

// look is one look at the mirror, for one side.
type look struct {
	context.Context
	page     *Page
	operator bool
	seen     *overview // nil: not yet
}

func lookAll(l *look, _ string) (any, error) { return l.overview() }

// The bounds of event streams.
const (
	maxStreams        = 64 // of each side
	maxAddressStreams = 8  // of one address of clients
	maxWants          = 16 // parts of one stream
	liveEvery         = time.Second
	liveAlive         = 15 * time.Second // after which a comment shows that the stream is alive
	eventTimeout      = 30 * time.Second // in which an event must be taken
)

// errStreams refuses a stream.
var errStreams = errors.New("too many event streams are open")

// errEnded ends the streams when the mirror stops.
var errEnded = errors.New("the mirror is stopping")

// hub makes the parts for all streams of one side: at most once a second, only what some stream wants,
// and only while streams are open.
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

// open begins a stream of the parts that want names, with commas. The caller calls close.
func (h *hub) open(want string, address netip.Addr) (*stream, error) {
	s := &stream{hub: h, address: address}
	for id := range strings.SplitSeq(want, ",") {
		if _, _, ok := h.page.findPart(id); ok && len(s.wants) < maxWants && !slices.Contains(s.wants, id) {
			s.wants = append(s.wants, id)
		}
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
		return nil, errStreams
	}
	h.streams[s] = struct{}{}
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
		tick.Reset(liveEvery)
		for h.make(ctx) {
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

// findPart finds the row of an element's id, and the argument in the id.
func (p *Page) findPart(id string) (row part, arg string, ok bool) {
	if len(id) > 64 {
		return part{}, "", false
	}
	for _, row := range p.parts {
		arg, ok := strings.CutPrefix(id, row.id)
		if ok && (arg == "") != strings.HasSuffix(row.id, ".") {
			return row, arg, true
		}
	}
	return part{}, "", false
}

// event makes the event of one part: the id, a line end, the HTML.
func (l *look) event(id string) ([]byte, error) {
	row, arg, ok := l.page.findPart(id)
	if !ok {
		return nil, notFound
	}
	data, err := row.load(l, arg)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := l.page.templates[row.page].ExecuteTemplate(&b, row.template, frame{Operator: l.operator, Data: data}); err != nil {
		return nil, err
	}
	out := fmt.Appendf(nil, "event: part\ndata: %s\n", id)
	for line := range bytes.Lines(visible(b.Bytes())) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = fmt.Appendf(out, "data: %s\n", line)
		}
	}
	return append(out, '\n'), nil
}

// Run makes what event streams send, until ctx ends; then the streams end. Call Run once.
func (p *Page) Run(ctx context.Context) error {
	var hubs sync.WaitGroup
	hubs.Go(func() { p.operatorHub.run(ctx) })
	hubs.Go(func() { p.clientHub.run(ctx) })
	hubs.Wait()
	return nil
}

// Follow begins an event stream of the parts that want names, for a client. next waits for the next
// bytes, which the caller must not change; its error ends the stream. The caller calls end. Too many
// streams are an error.
func (c *Clients) Follow(want string, client netip.Addr) (next func(context.Context) ([][]byte, error), end func(), err error) {
	s, err := c.page.clientHub.open(want, client)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) ([][]byte, error) {
		events, err := s.next(ctx)
		if events == nil && err == nil {
			events = alive
		}
		return events, err
	}, s.close, nil
}

// alive is a comment, which readers of events drop.
var alive = [][]byte{[]byte(": alive\n\n")}

// live is GET /ui/live for operators. A stream is no use of its session, and ends with the session.
func (p *Page) live(w http.ResponseWriter, r *http.Request) {
	session := p.sessions.find(r, false)
	if session == nil {
		http.Error(w, "the session has ended", http.StatusUnauthorized)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("X-Accel-Buffering", "no") // nginx would keep events back
	if r.Method == http.MethodHead {
		return
	}
	s, err := p.operatorHub.open(r.URL.Query().Get("want"), netip.Addr{})
	if err != nil {
		head.Set("Retry-After", "5")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer s.close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() { // ends with the handler
		defer close(ended)
		select {
		case <-session.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { <-ended }()
	defer cancel()
	out := http.NewResponseController(w)
	for events := alive; ; {
		_ = out.SetWriteDeadline(time.Now().Add(eventTimeout)) // a listener without deadlines has its own end
		for _, event := range events {
			if _, err := w.Write(event); err != nil {
				return
			}
		}
		if out.Flush() != nil {
			return
		}
		if events, err = s.next(ctx); err != nil || p.sessions.find(r, false) != session {
			return
		}
		if events == nil {
			events = alive
		}
	}
}
