package cache

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// storeAhead brings m with nobody waiting for it.
func (m *sample) storeAhead(t testing.TB, s *Store) error {
	t.Helper()
	b := m.blob
	b.Low = true
	r, err := s.File(t.Context(), b, sources(m.src))
	if err != nil {
		return err
	}
	return errors.Join(r.Stored(t.Context()), r.Close())
}

// What is brought ahead of need takes free room only.
func TestAheadEvictsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MaxSize: 3500})
		all := samples(t, 5, 1000)
		all[0].store(t, s)
		time.Sleep(time.Second)
		all[1].store(t, s)
		if err := all[2].storeAhead(t, s); err != nil {
			t.Fatal(err)
		}
		if err := all[3].storeAhead(t, s); !errors.Is(err, ErrNoSpace) {
			t.Errorf("with no room left: %v", err)
		}
		wantAsked(t, all[3].src)
		unknown := all[3].blob
		unknown.Low, unknown.Want.Size = true, 0
		if _, err := s.File(t.Context(), unknown, sources(all[3].src)); !errors.Is(err, ErrNoSpace) {
			t.Errorf("of a size that its source tells: %v", err)
		}
		wantPresent(t, s, "0 1 2", all...)

		// Clients take the room of what nobody has asked for first, old as theirs may be.
		time.Sleep(time.Hour)
		all[4].store(t, s)
		wantPresent(t, s, "0 1 4", all...)
	})
}

// A file that was brought ahead is like any other once somebody has asked for
// it; until then it is the first to go, restarts included.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		all := samples(t, 3, 1000)
		all[0].store(t, s)
		time.Sleep(time.Second)
		for _, m := range all[1:] {
			if err := m.storeAhead(t, s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		wantData(t, s, all[1].blob, all[1].data, Hit)
		s = reopenLater(t, s)
		s.SetLimits(2100, 0)
		plan, err := s.Vacuum(t.Context(), true)
		if err != nil || len(plan) != 2 || plan[0].Sum != all[2].sum() || !plan[0].Idle || plan[1].Sum != all[0].sum() || plan[1].Idle {
			t.Errorf("plan %+v, %v", plan, err)
		}
	})
}

// A client who comes in the very moment in which a fill finds no room for
// nobody gets the room that is his due.
func TestAheadAndClientAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MaxSize: 1500})
		all := samples(t, 2, 1000)
		all[0].store(t, s)
		done := make(chan error, 1)
		ask := s.space.free
		asked := 0
		s.space.free = func() (int64, error) {
			if asked++; asked == 1 { // the low fill looks for room
				go func() {
					_, _, err := get(s, all[1].blob, all[1].src)
					done <- err
				}()
				time.Sleep(time.Second)
			}
			return ask()
		}
		if err := all[1].storeAhead(t, s); err != nil && !errors.Is(err, ErrNoSpace) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("the client: %v", err)
		}
		synctest.Wait()
		wantPresent(t, s, "1", all...)
	})
}
