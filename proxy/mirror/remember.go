package mirror

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/history"
)

// openHistory reads what former processes remember of the mirror.
func (m *Mirror) openHistory() {
	m.history = history.New(history.Options{
		Notes: m.store.Notes("history"), Sample: m.counts, Look: m.look,
		Logger: m.log.With("component", "history"),
	})
}

// look is called by the history, in one goroutine, once the mirror runs.
func (m *Mirror) look(now time.Time) []history.Event {
	return m.watch.look(now)
}

// History is what the mirror remembers of itself across restarts.
func (m *Mirror) History() *history.History { return m.history }

// counts is what the history samples.
func (m *Mirror) counts() history.Counts {
	t := m.store.Traffic()
	c := history.Counts{
		Requests: make(map[string]int64), Served: make(map[string]int64),
		Fetched: t.Fetched, Brought: t.Brought, Took: t.Took,
	}
	for result, tally := range t.Clients {
		name := strings.ToLower(string(result))
		c.Requests[name], c.Served[name] = tally.Requests, tally.Bytes
	}
	return c
}

// kinds are the events of files, as the history calls them.
var kinds = map[cache.EventKind]string{
	cache.EventStored: history.KindBrought,
	cache.EventWrong:  history.KindWrong,
	cache.EventLost:   history.KindQuarantined,
	cache.EventHealed: history.KindHealed,
}

// fileEvent is told by the cache of what happens to files.
func (m *Mirror) fileEvent(e cache.Event) {
	images := e.Images
	if len(images) == 0 {
		images = []uuid.UUID{uuid.Nil}
	}
	for _, id := range images {
		row := m.eventOf(id, kinds[e.Kind])
		row.Source = e.Source
		switch {
		case e.Err != nil:
			row.Text += ": " + e.Err.Error()
		case e.Size > 0:
			row.Text += ", " + humanize.Bytes(uint64(e.Size))
		}
		m.history.Add(row)
	}
}

// eventOf begins an event of an image, with the image's name as its text; uuid.Nil: of no image.
func (m *Mirror) eventOf(id uuid.UUID, kind string) history.Event {
	if id == uuid.Nil {
		return history.Event{Kind: kind, Text: "a file of no image"}
	}
	// An image without a known manifest counts as private.
	e := history.Event{Kind: kind, UUID: id.String(), Text: "image " + id.String(), Private: true}
	g := m.now.Load()
	if g == nil { // the mirror is being made
		return e
	}
	if entry, ok := g.Current().Entry(id); ok {
		e.Text, e.Private = titleOf(entry.Manifest), !entry.Manifest.Public
	} else if image, err := m.store.Manifest(id); err == nil {
		e.Text, e.Private = titleOf(image), !image.Public
	}
	return e
}

func titleOf(image manifest.Manifest) string {
	return strings.TrimSpace(image.Name + " " + image.Version)
}

// fileRemoved is told by the cache of each file that has gone.
func (m *Mirror) fileRemoved(e cache.Evicted) {
	m.forgetEvicted(e)
	for _, id := range e.Images {
		row := m.eventOf(id, history.KindEvicted)
		row.Text += ", " + humanize.Bytes(uint64(e.Size))
		if e.Reason == cache.ReasonDelete {
			row.Kind = history.KindDeleted
		} else {
			row.Text += fmt.Sprintf(", for %s", e.Reason)
		}
		m.history.Add(row)
	}
}
