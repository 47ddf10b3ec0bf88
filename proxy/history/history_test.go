package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNotes are notes in memory.
type fakeNotes struct {
	mu     sync.Mutex
	all    map[string][]byte
	fails  error
	writes int
}

func (n *fakeNotes) All() (map[string][]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.all), n.fails
}

func (n *fakeNotes) Write(put map[string][]byte, remove []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fails != nil {
		return n.fails
	}
	n.writes++
	if n.all == nil {
		n.all = make(map[string][]byte)
	}
	maps.Copy(n.all, put)
	for _, key := range remove {
		delete(n.all, key)
	}
	return nil
}

// process is the counters of one process.
type process struct {
	mu sync.Mutex
	Counts
}

func (p *process) sample() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Counts{}.plus(p.Counts)
}

// serve counts n bytes to a client, met so, and as many from a source for a miss.
func (p *process) serve(result string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Counts = p.plus(Counts{Requests: map[string]int64{result: 1}, Served: map[string]int64{result: n}})
	if result == Miss {
		p.Fetched += n
		p.Brought += n
		p.Took += time.Second
	}
}

func begin(notes Notes) (*process, *History) {
	p := new(process)
	return p, New(Options{Sample: p.sample, Notes: notes})
}

// What is counted goes on over restarts, to the last minute before a kill.
func TestTotalsOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := new(fakeNotes)
		p, h := begin(notes)
		since := h.Totals().Since
		ctx, kill := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { h.Run(ctx) })
		p.serve(Miss, 1000)
		p.serve(Hit, 3000)
		h.Add(Event{Kind: KindBrought, Text: "an image"})
		time.Sleep(saveEvery + time.Second)
		p.serve(Hit, 50) // lost with the process
		kill()
		run.Wait()

		p, h = begin(notes)
		p.serve(Join, 500)
		got := h.Totals()
		if !got.Since.Equal(since) || got.Requests[Hit] != 1 || got.Served[Hit] != 3000 || got.Served[Miss] != 1000 || got.Served[Join] != 500 || got.Fetched != 1000 {
			t.Errorf("after a kill: %+v", got)
		}
		if got.Saved() != 3500 || got.SavedTime() != 3500*time.Millisecond {
			t.Errorf("saved are %d bytes and %s, want 3500 bytes at 1000 a second", got.Saved(), got.SavedTime())
		}
		if e := h.Events(10); len(e) != 1 || e[0].Text != "an image" {
			t.Errorf("events: %+v", e)
		}
		h.Save()
		if _, h = begin(notes); h.Totals().Served[Join] != 500 {
			t.Errorf("after a stop: %+v", h.Totals())
		}
	})
}

// A series has its whole span, with zeroes where nothing was; what is older than the span is gone.
func TestSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := new(fakeNotes)
		p, h := begin(notes)
		sums := func(h *History, span string) (served, fetched int64) {
			t.Helper()
			_, points, ok := h.Series(span)
			if !ok {
				t.Fatalf("no series of a %s", span)
			}
			for i, point := range points {
				if i > 0 && !point.Time.After(points[i-1].Time) {
					t.Errorf("%s: point %d is not behind the one before", span, i)
				}
				served, fetched = served+point.Served, fetched+point.Fetched
			}
			return served, fetched
		}
		want := func(h *History, span string, served, fetched int64) {
			t.Helper()
			if s, f := sums(h, span); s != served || f != fetched {
				t.Errorf("%s: %d bytes served and %d fetched, want %d and %d", span, s, f, served, fetched)
			}
		}
		p.serve(Miss, 100)
		want(h, Hour, 100, 100)
		time.Sleep(30 * time.Minute)
		p.serve(Hit, 11)
		want(h, Hour, 111, 100)
		time.Sleep(40 * time.Minute)
		want(h, Hour, 11, 0)
		want(h, Day, 111, 100)
		h.Save()
		_, h = begin(notes)
		want(h, Hour, 11, 0)
		want(h, Week, 111, 100)
		time.Sleep(25 * time.Hour)
		want(h, Day, 0, 0)
		want(h, Week, 111, 100)
		time.Sleep(8 * 24 * time.Hour)
		want(h, Week, 0, 0)
		if _, _, ok := h.Series("year"); ok {
			t.Error("there is a series of a year")
		}
	})
}

// A flood costs a row, rows have a limit, and no flood of one kind takes the rows of others.
func TestEventsAreBounded(t *testing.T) {
	notes := new(fakeNotes)
	_, h := begin(notes)
	for range 10_000 {
		h.Add(Event{Kind: KindRefused, Text: "replies"})
		h.Add(Event{Kind: KindRefused, Text: "connections", Count: 2})
	}
	got := h.Events(10)
	if len(got) != 2 || got[0].Count != 20_000 || got[1].Count != 10_000 {
		t.Fatalf("two floods are %+v", got)
	}
	h.Add(Event{Kind: KindConflict, UUID: "a", Text: "two sources"})
	for n := range 3 * maxEvents {
		h.Add(Event{Kind: KindEvicted, UUID: fmt.Sprint(n), Text: strings.Repeat("é", maxText)})
	}
	all := h.Events(2 * maxEvents)
	if len(all) != maxEvents {
		t.Errorf("%d rows", len(all))
	}
	if of := h.Of("a"); len(of) != 1 || of[0].Kind != KindConflict {
		t.Errorf("the conflict is %+v", of)
	}
	if text := all[0].Text; len(text) > maxText || !strings.HasSuffix(text, "é…") || all[0].UUID != fmt.Sprint(3*maxEvents-1) {
		t.Errorf("the newest row is %+v", all[0])
	}
	h.Save()
	for key, text := range notes.all {
		if len(text) > 64<<10 {
			t.Errorf("record %s has %d bytes", key, len(text))
		}
	}
	_, again := begin(notes)
	if got := again.Events(2 * maxEvents); fmt.Sprint(got) != fmt.Sprint(all) {
		t.Error("another process reads other events")
	}
	records := len(notes.all)
	for n := range 3 * maxEvents {
		again.Add(Event{Kind: KindBrought, UUID: fmt.Sprint(n)})
	}
	again.Save()
	if len(notes.all) > records+2*maxEvents/eventsEach {
		t.Errorf("%d records, %d before", len(notes.all), records)
	}
}

// A record that cannot be read begins anew, with a line in the log, and costs no other.
func TestUnreadableRecords(t *testing.T) {
	notes := new(fakeNotes)
	p, h := begin(notes)
	p.serve(Miss, 10)
	h.Add(Event{Kind: KindBrought, Text: "an image"})
	h.Save()
	notes.all[keyTotals] = []byte("{")
	notes.all[keySeries+Day] = []byte(`{"step":7}`)
	var log strings.Builder
	h = New(Options{Sample: new(process).sample, Notes: notes, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if h.Totals().Fetched != 0 || len(h.Events(10)) != 1 {
		t.Errorf("totals %+v, events %+v", h.Totals(), h.Events(10))
	}
	if strings.Count(log.String(), "begins anew") != 2 {
		t.Errorf("the log says %s", log.String())
	}
	log.Reset()
	notes.fails = errors.New("the index is away")
	h = New(Options{Sample: new(process).sample, Notes: notes, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		h.Add(Event{Kind: KindBrought, Text: "another"})
		h.Save()
	}
	if strings.Count(log.String(), "cannot be read") != 1 || strings.Count(log.String(), "cannot be saved") != 1 {
		t.Errorf("the log says %s", log.String())
	}
	notes.fails = nil
	if h.Save(); notes.writes == 0 {
		t.Error("what could not be saved is not saved later")
	}
}

// What has not changed is not written again.
func TestSaveWritesChangesOnly(t *testing.T) {
	notes := new(fakeNotes)
	_, h := begin(notes)
	for range 3 {
		h.Save()
	}
	if notes.writes != 1 {
		t.Errorf("%d writes of nothing new", notes.writes)
	}
}

// Notes that get lost while the mirror runs are written again.
func TestLostNotesAreWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := new(fakeNotes)
		_, h := begin(notes)
		h.Add(Event{Kind: KindBrought, Text: "an image"})
		h.Save()
		clear(notes.all)
		time.Sleep(writeAllEvery)
		h.Save()
		if _, h = begin(notes); len(h.Events(1)) != 1 {
			t.Error("the events are lost")
		}
	})
}

// A clock that was never set, as at a start without a battery, costs neither totals nor the graphs.
func TestClockIsNotSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := new(fakeNotes)
		if err := notes.Write(map[string][]byte{keyTotals: []byte(`{"since":"2026-01-02T03:04:05Z","requests":{"hit":7},"served":{"hit":3000}}`)}, nil); err != nil {
			t.Fatal(err)
		}
		if !time.Now().Before(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
			t.Fatal("the clock of the test is ahead")
		}
		_, h := begin(notes)
		if got := h.Totals(); got.Served[Hit] != 3000 || got.Since.Year() != 2026 {
			t.Errorf("%+v", got)
		}
	})
	for _, s := range spans {
		r := newRing(s)
		now := time.Unix(600, 0)
		r.add(now, 5, 1)
		if all := r.points(now); int64(len(all)) != s.steps || all[len(all)-1].Served != 5 {
			t.Errorf("%s: %+v", s.name, all)
		}
	}
}
