package admin

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"imgmirror/proxy/history"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
)

// What the mirror does and saves, at a glance.

const (
	lastEvents = 50
	// statusEvery is how old the Status of a stream may be: all streams share one.
	statusEvery = time.Second
)

// status is GET /status.
func (s *Server) status(*http.Request) (any, error) { return s.statusNow(), nil }

// statusNow puts the Status together.
func (s *Server) statusNow() Status {
	counts, round, room := s.mirror.Counts(), s.mirror.ScrubRound(), s.mirror.Room()
	st := Status{
		Version: s.mirror.Version(), Started: s.mirror.Began().UTC(), Now: time.Now().UTC(),
		Ready: s.o.Ready == nil || s.o.Ready(), Offline: s.mirror.Offline(), Trouble: append([]string{}, s.mirror.Trouble()...),
		Traffic: trafficOf(s.mirror.History().Totals()),
		Fills:   s.fillsNow(), Jobs: s.jobs.underWay(), Sources: sourcesOf(s.mirror.Status()),
		Disk:    Disk(room),
		Scrub:   Scrub{LastComplete: round.LastComplete.UTC(), Checked: round.Checked, Total: round.Total},
		Catalog: Counts(counts),
		Bounds:  boundsOf(s.mirror.Bounds()),
		Nodes:   s.mirror.Nodes().Len(),
		Events:  eventsOf(s.mirror.History().Events(lastEvents)),
	}
	if s.o.Certificate != nil {
		st.Certificate = s.o.Certificate()
	}
	return st
}

func trafficOf(t history.Totals) Traffic {
	return Traffic{
		Since: t.Since.UTC(), Requests: t.Requests, Served: t.Served, Fetched: t.Fetched,
		Saved: t.Saved(), SavedSeconds: int64(t.SavedTime() / time.Second),
	}
}

func boundsOf(all []mirror.Bound) []Bound {
	out := make([]Bound, len(all))
	for i, b := range all {
		out[i] = Bound(b)
	}
	return out
}

func eventsOf(all []history.Event) []Event {
	out := make([]Event, len(all))
	for i, e := range all {
		out[i] = Event(e)
	}
	return out
}

// traffic is GET /traffic.
func (s *Server) traffic(r *http.Request) (any, error) {
	span := r.URL.Query().Get("span")
	if span == "" {
		span = history.Hour
	}
	step, points, ok := s.mirror.History().Series(span)
	if !ok {
		return nil, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "span is %q, want hour, day or week", shorten(span))
	}
	series := Series{Span: span, Step: int64(step / time.Second), Points: make([]Point, len(points))}
	for i, p := range points {
		series.Points[i] = Point(p)
	}
	return series, nil
}

// history is GET /history.
func (s *Server) history(r *http.Request) (any, error) {
	id, err := uuidOf(r.URL.Query().Get("uuid"))
	if err != nil {
		return nil, err
	}
	return eventsOf(s.mirror.History().Of(id.String())), nil
}

// glance is the Status that all streams share.
type glance struct {
	mu   sync.Mutex // held while the Status is put together
	made time.Time
	text []byte // JSON
	key  string // JSON without the time of the Status: another key is a change
}

// latest gives the shared Status, at most statusEvery old.
func (g *glance) latest(now func() Status) (text []byte, key string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.text != nil && time.Since(g.made) < statusEvery {
		return g.text, g.key, nil
	}
	st := now()
	if g.text, err = json.Marshal(st); err != nil {
		return nil, "", err
	}
	st.Now = time.Time{}
	without, err := json.Marshal(st)
	if err != nil {
		return nil, "", err
	}
	g.key, g.made = string(without), time.Now()
	return g.text, g.key, nil
}

// statusEvents is GET /events?topic=status: the Status, at first and then at most once a second, when it has
// changed.
func (s *Server) statusEvents(w http.ResponseWriter, r *http.Request) error {
	over, err := s.jobs.watchStatus()
	if err != nil {
		return err
	}
	defer over()
	out := s.beginStream(w)
	defer out.end()
	if out.send(": status\n\n") != nil {
		return nil // the client is gone
	}
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	alive := time.Now()
	for sent := ""; ; {
		text, key, err := s.glance.latest(s.statusNow)
		if err != nil {
			return err
		}
		switch {
		case key != sent:
			err = out.event(eventStatus, text)
			sent, alive = key, time.Now()
		case time.Since(alive) >= keepAlive:
			err = out.send(": alive\n\n")
			alive = time.Now()
		}
		if err != nil {
			return nil // the client is gone
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-s.stopping:
			return nil
		case <-tick.C:
		}
	}
}
