package cache

import "time"

// liar is a source in respect of one fill key.
type liar struct{ source, key string }

// liarMemory is how long a source that sent wrong bytes is asked last for them.
const liarMemory = time.Hour

// trusted orders sources: those that lately sent wrong bytes for key come last.
// s.mu is held.
func (s *Store) trusted(key string, sources []Source) []Source {
	good, bad := make([]Source, 0, len(sources)), []Source(nil)
	for _, src := range sources {
		when, lied := s.liars[liar{src.Name, key}]
		if lied && time.Since(when) < liarMemory {
			bad = append(bad, src)
		} else {
			good = append(good, src)
		}
	}
	return append(good, bad...)
}

// distrust remembers that source sent wrong bytes for key.
func (s *Store) distrust(source, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, when := range s.liars {
		if time.Since(when) >= liarMemory {
			delete(s.liars, l)
		}
	}
	s.liars[liar{source, key}] = time.Now()
}
