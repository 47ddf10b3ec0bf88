package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The records: the totals, each series, and the events in pieces of eventsEach rows, so that a new
// event changes one small record.
const (
	// writeAllEvery is how often records are written that have not changed: the index may have been lost
	// and made anew.
	writeAllEvery = time.Hour

	keyTotals  = "totals"
	keySeries  = "series/"
	keyEvents  = "events/"
	eventsEach = 50
)

// savedSeries is a record of a series. Slots without a byte are left out.
type savedSeries struct {
	Step  int64      `json:"step"` // seconds; slots of another step are of no use
	Slots [][3]int64 `json:"slots"`
}

// savedEvents is a piece of the events.
type savedEvents struct {
	Numbers []int64 `json:"numbers"`
	Events  []Event `json:"events"`
}

// Save writes what has changed since the last save, after a last sample.
func (h *History) Save() {
	if h.o.Notes == nil {
		return
	}
	h.sample(time.Now())
	h.saving.Lock()
	defer h.saving.Unlock()
	now, err := h.records()
	if err != nil {
		h.log.Error("the mirror's history cannot be written down", "error", err)
		return
	}
	put, remove := make(map[string][]byte), []string(nil)
	all := time.Since(h.wrote) >= writeAllEvery
	for key, text := range now {
		if all || !bytes.Equal(text, h.saved[key]) {
			put[key] = text
		}
	}
	for key := range h.saved {
		if _, ok := now[key]; !ok {
			remove = append(remove, key)
		}
	}
	if len(put) == 0 && len(remove) == 0 {
		return
	}
	err = h.o.Notes.Write(put, remove)
	if err == nil {
		h.saved = now
		if all {
			h.wrote = time.Now()
		}
	} else if !h.failed {
		h.log.Warn("the mirror's history cannot be saved", "error", err)
	}
	h.failed = err != nil
}

// records gives all records as they are now.
func (h *History) records() (map[string][]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	values := map[string]any{keyTotals: Totals{Since: h.before.Since, Counts: h.before.plus(h.sampled)}}
	for _, r := range h.series {
		s := savedSeries{Step: int64(r.step / time.Second), Slots: [][3]int64{}}
		for _, c := range r.slots {
			if c.number > 0 {
				s.Slots = append(s.Slots, [3]int64{c.number, c.served, c.fetched})
			}
		}
		values[keySeries+r.name] = s
	}
	pieces := make(map[string]*savedEvents)
	for _, r := range h.events.rows {
		key := fmt.Sprintf("%s%016x", keyEvents, r.number/eventsEach)
		if pieces[key] == nil {
			pieces[key] = new(savedEvents)
			values[key] = pieces[key]
		}
		pieces[key].Numbers = append(pieces[key].Numbers, r.number)
		pieces[key].Events = append(pieces[key].Events, r.Event)
	}
	out := make(map[string][]byte, len(values))
	for key, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", key, err)
		}
		out[key] = text
	}
	return out, nil
}

// load takes in the records. One that cannot be read is told of, and begins anew.
func (h *History) load() {
	if h.o.Notes == nil {
		return
	}
	all, err := h.o.Notes.All()
	if err != nil {
		h.log.Warn("the mirror's history cannot be read: it begins anew", "error", err)
		return
	}
	h.saved, h.wrote = all, time.Now()
	h.read(all, keyTotals, func(text []byte) error {
		var t Totals
		if err := json.Unmarshal(text, &t); err != nil {
			return err
		}
		if t.Since.IsZero() { // a Since that is to come is that of a clock which is not set yet
			return errors.New("totals since no time")
		}
		h.before = Totals{t.Since, Counts{}.plus(t.Counts)}
		return nil
	})
	for i := range h.series {
		h.read(all, keySeries+spans[i].name, h.series[i].load)
	}
	h.loadEvents(all)
}

func (h *History) read(all map[string][]byte, key string, take func([]byte) error) {
	text, ok := all[key]
	if !ok {
		return
	}
	if err := take(text); err != nil {
		h.log.Warn("a record of the mirror's history cannot be read: it begins anew", "record", key, "error", err)
	}
}

// load takes in a record of the ring.
func (r *ring) load(text []byte) error {
	var s savedSeries
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if s.Step != int64(r.step/time.Second) {
		return fmt.Errorf("steps of %d seconds", s.Step)
	}
	for _, c := range s.Slots {
		if c[0] <= 0 || c[1] < 0 || c[2] < 0 {
			continue
		}
		*r.at(c[0]) = slot{c[0], c[1], c[2]}
	}
	return nil
}

// loadEvents takes in the pieces of events, which come in the order of their keys.
func (h *History) loadEvents(all map[string][]byte) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasPrefix(key, keyEvents) {
			continue
		}
		h.read(all, key, func(text []byte) error {
			var piece savedEvents
			if err := json.Unmarshal(text, &piece); err != nil {
				return err
			}
			if len(piece.Numbers) != len(piece.Events) {
				return errors.New("numbers and events do not match")
			}
			for i, e := range piece.Events {
				if len(h.events.rows) >= maxEvents || piece.Numbers[i] < h.events.next {
					continue
				}
				h.events.next = piece.Numbers[i]
				h.events.push(e)
			}
			return nil
		})
	}
}
