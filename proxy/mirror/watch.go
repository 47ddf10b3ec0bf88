package mirror

import (
	"fmt"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/history"
)

const (
	refusalsEvery = time.Minute // between two looks at the counters of refusals
	// maxNews bounds the events of new conflicts that one look gives; a list may bring 100,000.
	maxNews = 20

	// Of catalog.Status.State.
	stateUp   = "up"
	stateDown = "down"
)

// watch sees changes that no part of the mirror tells of: of the sources, the conflicts between them,
// the counters of refusals. A watch is for one goroutine.
type watch struct {
	m         *Mirror
	list      *catalog.List // the list that was looked at last
	conflicts map[manifest.Conflict]bool
	states    map[string]string // of the sources
	looked    time.Time         // at the refusals
	refused   map[string]int64
}

// newWatch begins with what is known already: none of it is news.
func newWatch(m *Mirror) *watch {
	w := &watch{m: m, list: m.Current(), states: make(map[string]string), refused: make(map[string]int64), looked: time.Now()}
	w.conflicts = setOf(w.list.Conflicts())
	return w
}

// look gives what has happened since the last look.
func (w *watch) look(now time.Time) []history.Event {
	all := append(w.sources(), w.newConflicts()...)
	if now.Sub(w.looked) >= refusalsEvery {
		w.looked = now
		all = append(all, w.refusals()...)
	}
	return all
}

// sources gives the sources that answer again, or no more. A source that answers from the start is no
// news.
func (w *watch) sources() (all []history.Event) {
	states := make(map[string]string)
	for _, s := range w.m.Status() {
		before := w.states[s.Name]
		states[s.Name] = s.State
		switch {
		case s.State == stateDown && before != stateDown:
			all = append(all, history.Event{Kind: history.KindSourceDown, Source: s.Name, Text: s.LastError})
		case s.State == stateUp && before == stateDown:
			all = append(all, history.Event{Kind: history.KindSourceUp, Source: s.Name})
		}
	}
	w.states = states
	return all
}

// newConflicts gives the conflicts of the list that the list before did not have.
func (w *watch) newConflicts() (all []history.Event) {
	list := w.m.Current()
	if list == w.list {
		return nil
	}
	w.list = list
	conflicts, more := setOf(list.Conflicts()), 0
	for c := range conflicts {
		switch {
		case w.conflicts[c]:
		case len(all) == maxNews:
			more++
		default:
			e := w.m.eventOf(c.UUID, history.KindConflict)
			e.Source = c.Left
			e.Text += fmt.Sprintf(": source %s has other files than %s, and is not asked for them", c.Left, c.Kept)
			all = append(all, e)
		}
	}
	if more > 0 {
		all = append(all, history.Event{Kind: history.KindConflict, Text: "more images of which sources have different files", Count: more})
	}
	w.conflicts = conflicts
	return all
}

func setOf(all []manifest.Conflict) map[manifest.Conflict]bool {
	set := make(map[manifest.Conflict]bool, len(all))
	for _, c := range all {
		set[c] = true
	}
	return set
}

// refusals gives the bounds that have refused something since the last look.
func (w *watch) refusals() (all []history.Event) {
	for _, b := range w.m.Bounds() {
		if n := b.Refused - w.refused[b.Name]; n > 0 {
			all = append(all, history.Event{Kind: history.KindRefused, Text: b.refusal(), Count: int(n)})
		}
		w.refused[b.Name] = b.Refused
	}
	return all
}
