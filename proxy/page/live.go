package page

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
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
		out = fmt.Appendf(out, "data: %s\n", bytes.TrimSuffix(line, []byte("\n"))) // no other line end is left
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
