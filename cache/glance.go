package cache

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// Room is what the files take and may take.
type Room struct {
	Size    int64 // bytes stored, unfinished downloads included
	Limit   int64 // bytes that may be stored as things are; 0: the disk does not tell
	Free    int64 // bytes on the file system that this process may take
	MinFree int64 // the part of Free that stays free
	Files   int
}

// Room tells what the files take and may take, now.
func (s *Store) Room() Room {
	st := s.Stats()
	r := Room{Size: st.Bytes(), Limit: s.space.limit(), Files: st.Files, Free: s.freeBytes()}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	r.MinFree = s.space.minFree
	return r
}

// freeBytes is what is free on the file system; 0 when it does not tell.
func (s *Store) freeBytes() int64 {
	free, err := s.space.free()
	if err != nil {
		return 0
	}
	return free
}

// Images gives the images with a file on disk, in no order.
func (s *Store) Images() []uuid.UUID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.images.known))
}

// glanceMetrics are about the disk and the scrub.
func (s *Store) glanceMetrics(reg prometheus.Registerer) error {
	gauge := func(name, help string, value func() float64) error {
		return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	return errors.Join(
		gauge("imgmirror_disk_free_bytes", "Bytes that are free on the file system of the data folder.", func() float64 { return float64(s.freeBytes()) }),
		gauge("imgmirror_disk_min_free_bytes", "Bytes that stay free on this file system (cache.min_free).", func() float64 { return float64(s.Room().MinFree) }),
		gauge("imgmirror_scrub_every_seconds", "Within that time each file is checked (verify.scrub_every); 0 = there is no scrub.",
			func() float64 { return max(s.o.ScrubEvery, 0).Seconds() }),
		gauge("imgmirror_scrub_round_begun_timestamp_seconds", "When the round of the scrub began; 0 = there is no scrub.",
			func() float64 { return unixSeconds(s.ScrubRound().Began) }),
		gauge("imgmirror_scrub_last_complete_timestamp_seconds", "When the last round of the scrub was complete; 0 = never, or there is no scrub.",
			func() float64 { return unixSeconds(s.ScrubRound().LastComplete) }),
		gauge("imgmirror_scrub_round_files", "Files that the round of the scrub has to check; 0 = there is no scrub.", func() float64 { return float64(s.ScrubRound().Total) }),
		gauge("imgmirror_scrub_round_checked", "Files that have been checked in the round of the scrub.", func() float64 { return float64(s.ScrubRound().Checked) }),
	)
}

func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
