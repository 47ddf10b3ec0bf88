package cache

import (
	"encoding/json"
	"sync"
	"time"
)

// ScrubRound is how far the scrub is. In a round each file is checked once; a file that comes during
// the round counts as checked.
type ScrubRound struct {
	LastComplete time.Time // when the round before was complete; zero: never, or there is no scrub
	Began        time.Time // of the round under way
	Checked      int       // files that have been checked in the round
	Total        int       // files there are
}

// rounds tells when the rounds of the scrub began and ended; its record makes that outlive the
// process.
type rounds struct {
	mu   sync.Mutex // guards what follows; never held over I/O
	last roundRecord

	saving sync.Mutex // of the record; held over I/O
}

type roundRecord struct {
	Began        time.Time `json:"began"`
	LastComplete time.Time `json:"last_complete,omitzero"`
}

const (
	notesScrub = "scrub"
	keyRound   = "round"
)

// loadRound takes up the round of the process before.
func (s *Store) loadRound() {
	now := time.Now().UTC()
	s.rounds.last = roundRecord{Began: now}
	if s.o.ScrubEvery <= 0 {
		return
	}
	notes, err := s.Notes(notesScrub).All()
	text, ok := notes[keyRound]
	var r roundRecord
	if err == nil && ok {
		err = json.Unmarshal(text, &r)
	}
	switch {
	case err != nil:
		s.log.Warn("the round of the scrub is not known: it begins anew", "error", err)
	case ok && !r.Began.After(now): // else the clock was ahead
		s.rounds.last = r
		return
	}
	s.saveRound()
}

// ScrubRound tells how far the scrub is.
func (s *Store) ScrubRound() ScrubRound {
	if s.o.ScrubEvery <= 0 {
		return ScrubRound{}
	}
	s.rounds.mu.Lock()
	last := s.rounds.last
	s.rounds.mu.Unlock()
	r := ScrubRound{LastComplete: last.LastComplete, Began: last.Began}
	began := last.Began.UnixNano()
	s.mu.RLock()
	defer s.mu.RUnlock()
	r.Total = len(s.files) + len(s.orphans)
	for _, f := range s.files {
		if f.checked.Load() > began {
			r.Checked++
		}
	}
	return r
}

// endRound begins the next round if all files have been checked in this one. A round without files
// is complete.
func (s *Store) endRound() {
	r := s.ScrubRound()
	if s.o.ScrubEvery <= 0 || r.Checked < r.Total {
		return
	}
	now := time.Now().UTC()
	s.rounds.mu.Lock()
	s.rounds.last = roundRecord{Began: now, LastComplete: now}
	s.rounds.mu.Unlock()
	s.saveRound()
}

// saveRound writes the record. Without it the round begins anew at the next start.
func (s *Store) saveRound() {
	s.rounds.saving.Lock()
	defer s.rounds.saving.Unlock()
	s.rounds.mu.Lock()
	last := s.rounds.last
	s.rounds.mu.Unlock()
	text, err := json.Marshal(last)
	if err == nil {
		err = s.Notes(notesScrub).Write(map[string][]byte{keyRound: text}, nil)
	}
	if err != nil {
		s.log.Warn("the round of the scrub cannot be saved", "error", err)
	}
}
