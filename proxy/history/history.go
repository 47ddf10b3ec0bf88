// Package history owns what the mirror remembers of itself across restarts: what its clients were
// given and what its sources sent, in all and as series for graphs, and the last events. All of it
// has a fixed size. A kill loses a minute of it at most; what is lost, or cannot be read, begins
// anew.
//
// The package counts nothing itself: it samples counters that begin at zero with the process.
package history

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	sampleEvery = 10 * time.Second // the ring of the last hour has steps of a minute
	saveEvery   = time.Minute
)

// Notes keeps records by their keys; cache.Notes is one.
type Notes interface {
	All() (map[string][]byte, error)
	Write(put map[string][]byte, remove []string) error
}

// Options of New. Required: Sample.
type Options struct {
	// Sample gives the counts since the process began. It must be quick, and may be called at any time.
	Sample func() Counts
	// Look is called with each sample, by Run alone, and gives the events since its last call that Add
	// is not told of; nil: there are none.
	Look   func(now time.Time) []Event
	Notes  Notes        // nil: nothing is kept
	Logger *slog.Logger // nil: silent
}

// History is what the mirror remembers of itself. Its methods may be called concurrently.
type History struct {
	o   Options
	log *slog.Logger

	mu      sync.Mutex // guards what follows; never held over I/O
	before  Totals     // of former processes
	sampled Counts     // that are in the series
	series  [len(spans)]ring
	events  events

	saving sync.Mutex        // of save; held over I/O
	saved  map[string][]byte // what the notes have; guarded by saving
	wrote  time.Time         // when all of it was written, whether changed or not; guarded by saving
	failed bool              // the last save; guarded by saving
}

// New reads what former processes have left; records that cannot be read begin anew.
func New(o Options) *History {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &History{o: o, log: o.Logger}
	for i := range h.series {
		h.series[i] = newRing(spans[i])
	}
	h.before.Since = time.Now().UTC().Truncate(time.Second)
	h.sampled = o.Sample()
	h.load()
	return h
}

// Run samples and saves until ctx ends. Call it once, and Save behind it.
func (h *History) Run(ctx context.Context) {
	sample, save := time.NewTicker(sampleEvery), time.NewTicker(saveEvery)
	defer sample.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-sample.C:
			h.sample(now)
			if h.o.Look == nil {
				continue
			}
			for _, e := range h.o.Look(now) {
				h.Add(e)
			}
		case now := <-save.C:
			h.sample(now)
			h.Save()
		}
	}
}

// sample takes what was counted since the last sample into the series.
func (h *History) sample(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := h.o.Sample()
	served, fetched := counts.served()-h.sampled.served(), counts.Fetched-h.sampled.Fetched
	h.sampled = counts
	for i := range h.series {
		h.series[i].add(now, served, fetched)
	}
}

// Totals gives what was counted since the beginning, to this moment.
func (h *History) Totals() Totals {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Totals{Since: h.before.Since, Counts: h.before.plus(h.o.Sample())}
}

// Series gives the points of a span, oldest first: the whole span, its gaps as zeroes. False: there is
// no such span.
func (h *History) Series(span string) (step time.Duration, points []Point, ok bool) {
	now := time.Now()
	h.sample(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, s := range spans {
		if s.name == span {
			return s.step, h.series[i].points(now), true
		}
	}
	return 0, nil, false
}

// Add remembers an event.
func (h *History) Add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events.add(e)
}

// Events gives the last events, n at most, newest first.
func (h *History) Events(n int) []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events.last(n, func(Event) bool { return true })
}

// Of gives the events of one image that are remembered, newest first.
func (h *History) Of(image string) []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events.last(maxEvents, func(e Event) bool { return e.UUID == image })
}
