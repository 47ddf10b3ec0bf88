package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"imgmirror/cache/index"
)

const (
	// tidyEvery is the time between two rounds of housekeeping.
	tidyEvery = 10 * time.Minute
	// sweepEvery is the time between two looks at the limits.
	sweepEvery = time.Minute
	// tendEvery is the time between two tries of an index that could not be written.
	tendEvery = 5 * time.Second
)

// Run adopts files without a record, then scrubs; beside that Run makes room where a limit is
// passed, records when files were used, removes stale partial files, collects the index's garbage,
// and goes back to an index that could not be written, until ctx ends. Call Run once.
func (s *Store) Run(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	s.running.Add(1)
	defer s.running.Done()
	s.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() { s.watchFolders(ctx) })
	reading.Go(func() {
		s.adoptAll(ctx)
		s.scrub(ctx)
	})
	tidy, flush, room, tend := time.NewTicker(tidyEvery), time.NewTicker(flushEvery), time.NewTicker(sweepEvery), time.NewTicker(tendEvery)
	due := tend.C
	if s.tend != nil {
		due = s.tend
	}
	s.wakeRoom() // the limits may be other ones than last time
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-flush.C:
			err = s.flushUses()
		case <-due:
			err = s.tendIndex()
		case <-room.C:
			err = s.sweep()
		case <-s.wakeRun:
			err = s.sweep()
		case <-tidy.C:
			s.removeStale()
			s.endRound()
			err = s.index.Collect()
		}
		if err != nil {
			s.log.Warn("housekeeping failed", "error", err)
		}
	}
}

// tendIndex goes back to an index that could not be written, or was removed.
func (s *Store) tendIndex() error {
	var lost error
	if s.present() == nil { // else the index may be away with its disk
		lost = s.index.Renew()
	}
	if s.index.Tend() {
		return errors.Join(lost, s.recordAgain())
	}
	return lost
}

// recordAgain writes the tables in memory to the index, after the index refused writes. Records of
// files that were removed during this time stay until the next start.
func (s *Store) recordAgain() error {
	s.mu.RLock()
	changes := make([]index.Change, 0, len(s.files)+len(s.images.known)+len(s.aliases.sums))
	for _, f := range s.files {
		changes = append(changes, index.PutFile(index.File{Info: f.Info, Stamp: f.stamp.Load()}))
	}
	for id, im := range s.images.known {
		changes = append(changes, index.PutImage(id, im))
	}
	for key, sum := range s.aliases.sums {
		changes = append(changes, index.PutAlias(key, sum))
	}
	s.mu.RUnlock()
	return s.index.Write(changes...)
}
