package history

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The kinds of events.
const (
	KindBrought     = "brought"     // a file is on disk, verified
	KindEvicted     = "evicted"     // a file was removed to make room
	KindDeleted     = "deleted"     // a file was removed by an operator
	KindWrong       = "wrong_bytes" // a source sent bytes that are not what they should be
	KindQuarantined = "quarantined" // a file on disk was found wrong, and no source could heal it
	KindHealed      = "healed"      // a file that was found wrong, or gone, was brought anew
	KindConflict    = "conflict"    // two sources have other files under one uuid
	KindSourceUp    = "source_up"   // a source answers again
	KindSourceDown  = "source_down" // a source does not answer any more
	KindPublished   = "published"
	KindUnpublished = "unpublished"
	KindRefused     = "refused" // a bound was met
)

const (
	maxEvents = 500
	maxText   = 300 // bytes
	// rowBack is how many of the last rows an event may be equal to, to count as one more of the row:
	// floods of several events may be mixed.
	rowBack = 8
)

// Event is something of note that has happened.
type Event struct {
	Time   time.Time `json:"time"` // of the last one
	Kind   string    `json:"kind"`
	UUID   string    `json:"uuid,omitempty"`   // of the image
	Source string    `json:"source,omitempty"` // the name of the source
	Node   string    `json:"node,omitempty"`   // the address of the node
	Text   string    `json:"text"`             // for people
	// Private: the image is not public, and its row is for operators only.
	Private bool `json:"private,omitempty"`
	Count   int  `json:"count"` // how many equal ones the row stands for; 0 given to Add = 1
}

// events are the last events, oldest first.
type events struct {
	rows  []row
	next  int64 // number of the next new row
	kinds map[string]int
}

type row struct {
	number int64 // rises; a row that counts one more is a new one
	Event
}

// add takes in an event: as one more of a row that is equal, or as a row of its own. When there is no
// room, the oldest row of the kind with the most rows goes, so that no flood of one kind takes the
// others away.
func (all *events) add(e Event) {
	e.Text, e.Source, e.Node, e.UUID = bounded(e.Text), bounded(e.Source), bounded(e.Node), bounded(e.UUID)
	e.Count = max(e.Count, 1)
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	for i := len(all.rows) - 1; i >= max(0, len(all.rows)-rowBack); i-- {
		if before := all.rows[i].Event; before.same(e) {
			e.Count += before.Count
			all.drop(i)
			break
		}
	}
	if len(all.rows) >= maxEvents {
		all.dropOne()
	}
	all.push(e)
}

// push adds a row at the end.
func (all *events) push(e Event) {
	if all.kinds == nil {
		all.kinds = make(map[string]int)
	}
	all.rows = append(all.rows, row{all.next, e})
	all.kinds[e.Kind]++
	all.next++
}

func (all *events) drop(i int) {
	kind := all.rows[i].Kind
	if all.kinds[kind]--; all.kinds[kind] == 0 {
		delete(all.kinds, kind)
	}
	all.rows = slices.Delete(all.rows, i, i+1)
}

func (all *events) dropOne() {
	most := 0
	for _, n := range all.kinds {
		most = max(most, n)
	}
	all.drop(slices.IndexFunc(all.rows, func(r row) bool { return all.kinds[r.Kind] == most }))
}

func (e Event) same(o Event) bool {
	return e.Kind == o.Kind && e.UUID == o.UUID && e.Source == o.Source && e.Node == o.Node && e.Text == o.Text
}

// last gives the last events that are wanted, n at most, newest first.
func (all *events) last(n int, wanted func(Event) bool) []Event {
	out := []Event{}
	for _, r := range slices.Backward(all.rows) {
		if len(out) == n {
			break
		}
		if wanted(r.Event) {
			out = append(out, r.Event)
		}
	}
	return out
}

// bounded is text of no more than maxText bytes, in valid UTF-8.
func bounded(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxText {
		return text
	}
	end := maxText - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
