package cache

import (
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// storeAhead brings m with nobody waiting for it.
func (m *sample) storeAhead(t testing.TB, s *Store) error {
	t.Helper()
	b := m.blob
	b.Why = Ahead
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
		unknown.Why, unknown.Want.Size = Ahead, 0
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

// A file that was brought ahead is like any other file once a client has asked for
// the file. Until then the file is the first to go, restarts included.
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

// What an earlier process left is not lost because there is no room to go on
// with it just now.
func TestAheadKeepsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MaxSize: 200_000})
		all := samples(t, 2, 100_000)
		all[1].src.reply = func(_ int, offset int64) reply {
			if offset > 0 {
				return reply{err: errors.New("down")}
			}
			return reply{cut: 70_000}
		}
		part := all[1].blob
		if _, _, err := get(s, part, all[1].src); !errors.Is(err, verify.ErrUnavailable) {
			t.Fatal(err)
		}
		synctest.Wait()
		part.Why, part.Want.Size = Ahead, 0 // so that only its source tells that it does not fit
		s.SetLimits(90_000, 0)
		all[1].src.reply = nil
		if _, err := s.File(t.Context(), part, sources(all[1].src)); !errors.Is(err, ErrNoSpace) {
			t.Errorf("with no room left: %v", err)
		}
		if left := s.Partials(); len(left) != 1 || left[0].Have != 70_000 {
			t.Fatalf("left is %+v", left)
		}
		s.SetLimits(0, 0)
		if err := all[1].storeAhead(t, s); err != nil {
			t.Fatal(err)
		}
		if asked := all[1].src.asked(); asked[len(asked)-1] != 70_000 {
			t.Errorf("asked from %v", asked)
		}
	})
}

// A client does not go without because room is booked for what nobody waits for.
func TestAheadMakesRoomForClient(t *testing.T) {
	for _, kept := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, Options{MaxSize: 200_000})
			all := samples(t, 2, 150_000)
			all[0].src.reply = func(try int, _ int64) reply {
				switch {
				case kept && try == 1:
					return reply{cut: 70_000}
				case kept && try <= 1+dryPasses:
					return reply{err: fs.ErrNotExist}
				}
				return reply{stall: 50_000}
			}
			if kept { // from an earlier download
				if _, _, err := get(s, all[0].blob, all[0].src); err == nil {
					t.Fatal("stored")
				}
				synctest.Wait()
			}
			ahead := make(chan error, 1)
			go func() { ahead <- all[0].storeAhead(t, s) }()
			time.Sleep(time.Second)
			if fills := s.Fills(); len(fills) != 1 || !fills[0].Ahead {
				t.Fatalf("Fills = %+v", fills)
			}
			all[1].store(t, s)
			if err := <-ahead; !errors.Is(err, ErrNoSpace) {
				t.Errorf("the one that gave way: %v", err)
			}
			synctest.Wait()
			wantPresent(t, s, "1", all...)
			if left := s.Partials(); len(left) != 0 || s.Stats().Booked != 0 || s.Stats().Unfinished != 0 {
				t.Errorf("left are %+v, account %+v", left, s.Stats())
			}
		})
	}
}
