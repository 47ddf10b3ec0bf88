package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Server-sent events: each event is the whole state of a job, so that a client that lost the stream
// has missed nothing once the stream is back.

const (
	eventJob  = "job" // the event's name
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

// events is GET /events: one job's until it is over, else all jobs'.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	var only *job
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
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would keep events back
	out := http.NewResponseController(w)
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-s.stopping: // a client that reads nothing must not hold up the stop
			_ = out.SetWriteDeadline(time.Now().Add(lastTimeout))
		case <-ended:
		}
	}()
	send := func(text string) error {
		if err := out.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		select {
		case <-s.stopping: // after the deadline above: the one of the stop counts
			_ = out.SetWriteDeadline(time.Now().Add(lastTimeout))
		default:
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return out.Flush()
	}
	if err := send(": jobs\n\n"); err != nil {
		return nil // the client is gone
	}
	for last := false; !last; {
		select {
		case <-r.Context().Done():
			return nil
		case <-s.stopping:
			last = true // jobs are over by now: say so
		case <-alive.C:
			if send(": alive\n\n") != nil {
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
			if send(fmt.Sprintf("event: %s\ndata: %s\n\n", eventJob, data)) != nil {
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
