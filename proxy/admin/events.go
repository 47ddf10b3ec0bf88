package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"imgmirror/proxy/meaning"
)

// Server-sent events: each event is the whole state of a job, or of the mirror, so that a client that lost the stream
// has missed nothing once the stream is back.

const (
	// The names of the events.
	eventJob    = "job"
	eventStatus = "status"
	// What a stream may be about.
	topicJobs   = "jobs"
	topicStatus = "status"

	keepAlive = 15 * time.Second
	// eventPause is between two looks at a job, at least: progress comes in steps of milliseconds.
	// encodeShare makes it longer for jobs with so many images that writing them down takes long.
	eventPause  = 200 * time.Millisecond
	encodeShare = 20
	// eventTimeout is how long one event may take to be taken; lastTimeout is for
	// those that a stop sends.
	eventTimeout = 30 * time.Second
	lastTimeout  = 500 * time.Millisecond
)

// events is GET /events: one job's until it is over, the Status's, or all jobs'.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	var only *job
	switch topic := r.URL.Query().Get("topic"); topic {
	case "", topicJobs:
	case topicStatus:
		return s.statusEvents(w, r)
	default:
		return refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "topic is %q, want jobs or status", shorten(topic))
	}
	if id := r.URL.Query().Get("job"); id != "" {
		var err error
		if only, err = s.jobs.get(id); err != nil {
			return err
		}
	}
	watch, err := s.jobs.watch(only)
	if err != nil {
		return err
	}
	defer watch.close()
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	out := s.beginStream(w)
	defer out.end()
	if out.send(": jobs\n\n") != nil {
		return nil // the client is gone
	}
	for last := false; !last; {
		select {
		case <-r.Context().Done():
			return nil
		case <-s.stopping:
			last = true // jobs are over by now: say so
		case <-alive.C:
			if out.send(": alive\n\n") != nil {
				return nil
			}
			continue
		case <-watch.wake:
		}
		begun := time.Now()
		for _, j := range watch.take() { // the copy of one job at a time
			state := j.snapshot()
			data, err := json.Marshal(state)
			if err != nil {
				return err
			}
			if out.event(eventJob, data) != nil {
				return nil
			}
			if only != nil && state.Over() {
				return nil
			}
		}
		pause := time.NewTimer(max(eventPause, encodeShare*time.Since(begun)))
		select {
		case <-pause.C:
		case <-r.Context().Done():
		case <-s.stopping:
		}
		pause.Stop()
	}
	return nil
}

// stream is a reply of events.
type stream struct {
	s     *Server
	w     http.ResponseWriter
	out   *http.ResponseController
	ended chan struct{}
}

// beginStream begins the reply; end must follow.
func (s *Server) beginStream(w http.ResponseWriter) *stream {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would keep events back
	st := &stream{s: s, w: w, out: http.NewResponseController(w), ended: make(chan struct{})}
	go func() {
		select {
		case <-s.stopping: // a client that reads nothing must not hold up the stop
			_ = st.out.SetWriteDeadline(time.Now().Add(lastTimeout))
		case <-st.ended:
		}
	}()
	return st
}

func (st *stream) end() { close(st.ended) }

// event sends one event with one line of data.
func (st *stream) event(name string, data []byte) error {
	return st.send(fmt.Sprintf("event: %s\ndata: %s\n\n", name, data))
}

// send sends text now. An error says that the client is gone.
func (st *stream) send(text string) error {
	if err := st.out.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	select {
	case <-st.s.stopping: // after the deadline above: the one of the stop counts
		_ = st.out.SetWriteDeadline(time.Now().Add(lastTimeout))
	default:
	}
	if _, err := io.WriteString(st.w, text); err != nil {
		return err
	}
	return st.out.Flush()
}
