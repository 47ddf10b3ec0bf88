package cache

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// One file at a time is checked, and nothing but checks waits for that: no hit, download, eviction, vacuum or removal. A
// file that is removed before its turn is not brought anew.
func TestChecksTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healed := 0
		s, all := fullStore(t, Options{MaxSize: 10_000, Heal: func(context.Context, verify.Sum, int64) error { healed++; return nil }})
		if err := s.checking.turn.take(t.Context()); err != nil { // a check of a large file
			t.Fatal(err)
		}
		ended := make(chan error, 2)
		check := func(ctx context.Context, m *sample) {
			_, err := s.Check(ctx, m.sum(), nil)
			ended <- err
		}
		go check(t.Context(), all[9])
		ctx, cancel := context.WithCancel(t.Context())
		go check(ctx, all[8])
		synctest.Wait()
		if len(ended) != 0 {
			t.Fatal("two checks at a time")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v of a check that was called off", err)
		}

		began := time.Now()
		wantData(t, s, all[7].blob, all[7].data, Hit)
		newSample(t, 100, 1000, nil).store(t, s)
		if _, err := s.Vacuum(t.Context(), false); err != nil {
			t.Error(err)
		}
		if _, err := s.Remove(t.Context(), all[9].sum()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("others waited %s for the check", took)
		}
		s.checking.turn.leave()
		if err := <-ended; !errors.Is(err, fs.ErrNotExist) || healed != 0 {
			t.Errorf("error %v of a file that was removed, healed %d times", err, healed)
		}
	})
}

// The scrub stands still while a file is checked by hand, and goes on with the next piece.
func TestScrubGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{ScrubEvery: time.Hour, ScrubRate: 1000})
		m := newSample(t, 1, 10_000, nil) // which takes the scrub ten seconds, and Check a quarter of that
		m.store(t, s)
		time.Sleep(time.Hour)
		go s.Run(t.Context()) //nolint:errcheck // Close waits for it
		time.Sleep(2 * time.Second)
		began := time.Now()
		if result, err := s.Check(t.Context(), m.sum(), nil); result != CheckOK || err != nil {
			t.Errorf("%s, %v", result, err)
		}
		if took := time.Since(began); took < time.Second || took > 3*time.Second {
			t.Errorf("the check took %s beside a scrub", took)
		}
		if n := counter(s.metrics.scrubbed[CheckOK]); n != 1 {
			t.Errorf("the scrub has checked %d files meanwhile", n-1)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := counter(s.metrics.scrubbed[CheckOK]); n != 2 {
			t.Errorf("%d checks, want that of the scrub too", n)
		}
	})
}

// A vacuum that waits for room which a download makes ends with its context, and so does a download.
func TestVacuumIsCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := fullStore(t, Options{MaxSize: 10_000})
		if err := s.evicting.take(t.Context()); err != nil { // a file system that is slow to show its room
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Vacuum(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		m := newSample(t, 100, 1000, nil)
		b := m.blob
		b.Why = Job
		go func() {
			time.Sleep(time.Second)
			s.evicting.leave()
		}()
		if _, err := s.File(ctx, b, sources(m.src)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		wantData(t, s, all[1].blob, all[1].data, Hit)
		time.Sleep(time.Second)
		synctest.Wait()
		if s.Stats().Booked != 0 || s.space.loans() != 0 || s.advances.removed() != 0 {
			t.Errorf("account %+v", s.Stats())
		}
	})
}
