package cache

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A round of the scrub is complete when each file has been checked in it; the round, and when the last
// one was complete, outlive the process.
func TestScrubRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 10 * time.Minute // badger's tickers make long times long
		all := samples(t, 2, 1000)
		s := openStore(t, Options{ScrubEvery: every})
		run := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			synctest.Wait()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		want := func(checked, total int, complete time.Time) {
			t.Helper()
			synctest.Wait()
			if r := s.ScrubRound(); r.Checked != checked || r.Total != total || !r.LastComplete.Equal(complete) {
				t.Errorf("the round is %+v, want %d of %d, the last one complete at %s", r, checked, total, complete)
			}
		}
		stop := run() // without a file the round is complete
		empty := time.Now()
		want(0, 0, empty)
		time.Sleep(time.Minute)
		all[0].store(t, s)
		all[1].store(t, s)
		want(2, 2, empty) // they were checked as they came
		time.Sleep(every + 30*time.Second)
		synctest.Wait()
		first := s.ScrubRound().LastComplete // at the tidying of 10 minutes
		if !first.After(empty) {
			t.Fatalf("the round is %+v", s.ScrubRound())
		}
		stop()
		s = reopenLater(t, s)
		stop = run()
		defer stop()
		want(0, 2, first)
		time.Sleep(every)
		synctest.Wait()
		if r := s.ScrubRound(); !r.LastComplete.After(first) {
			t.Errorf("after another round: %+v", r)
		}
	})
}

// A record that makes no sense costs the round, and nothing else.
func TestScrubRoundIsLost(t *testing.T) {
	s := openStore(t, Options{ScrubEvery: time.Hour})
	if err := s.Notes(notesScrub).Write(map[string][]byte{keyRound: []byte("{")}, nil); err != nil {
		t.Fatal(err)
	}
	s = reopenLater(t, s)
	if r := s.ScrubRound(); !r.LastComplete.IsZero() || time.Since(r.Began) > time.Minute {
		t.Errorf("the round is %+v", r)
	}
}

// Who is told of files hears what was stored, what was wrong, and what was lost or healed.
func TestEvents(t *testing.T) {
	var told []Event
	var s *Store
	m := newSample(t, 1, 200_000, nil)
	s = openStore(t, Options{OnEvent: func(e Event) { told = append(told, e) }, Heal: healer(&s, m)})
	want := func(what string, kinds ...EventKind) {
		t.Helper()
		s.Idle()
		var got []EventKind
		for _, e := range told {
			got = append(got, e.Kind)
			if e.Sum != m.sum() || len(e.Images) != 1 || e.Images[0] != m.id || (e.Err != nil) != (e.Kind == EventWrong || e.Kind == EventLost) {
				t.Errorf("%s: %+v", what, e)
			}
		}
		if len(got) != len(kinds) {
			t.Fatalf("%s: events %v, want %v", what, got, kinds)
		}
		for i := range got {
			if got[i] != kinds[i] {
				t.Errorf("%s: events %v, want %v", what, got, kinds)
			}
		}
		told = nil
	}
	liar := always("liar", m.data, reply{data: noise(9, len(m.data))})
	_, _, _ = get(s, m.blob, liar, m.src) // cut short, if it has had wrong bytes
	want("a source lies", EventWrong, EventStored)
	m.spoil(t, s)
	if _, err := s.Check(t.Context(), m.sum(), nil); err != nil {
		t.Fatal(err)
	}
	want("a file has gone bad", EventStored, EventHealed)
	s.o.Heal = nil
	if err := os.Remove(s.dir.file(m.sum())); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Check(t.Context(), m.sum(), nil); got != CheckAbsent || err == nil {
		t.Fatalf("%s, %v", got, err)
	}
	want("a file is gone", EventLost)
	m.store(t, s)
	if err := os.Truncate(s.dir.file(m.sum()), 9); err != nil {
		t.Fatal(err)
	}
	m.store(t, s)
	want("a file was cut", EventStored, EventLost, EventStored)
}
