package cache

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// lie makes the sample's source send wrong bytes.
func (m *sample) lie(name string) *fake { return always(name, flip(m.data, 5), reply{}) }

// wantLie fails the test unless the sample's download fails by its bytes.
func (m *sample) wantLie(t *testing.T, s *Store, name string) {
	t.Helper()
	_, _, err := get(s, m.blob, m.lie(name))
	wantError(t, err, verify.ErrMismatch)
	synctest.Wait()
}

// fullStore is a store with a limit of ten files of 1000 bytes, in which all of these are.
func fullStore(t *testing.T, o Options) (*Store, []*sample) {
	t.Helper()
	s := openStore(t, o)
	all := samples(t, 10, 1000)
	for _, m := range all {
		m.store(t, s)
		time.Sleep(time.Second)
	}
	wantPresent(t, s, "0 1 2 3 4 5 6 7 8 9", all...)
	return s, all
}

// smallDisk makes the file system that small.
func smallDisk(s *Store, size int64) {
	s.space.free = func() (int64, error) { return size - s.Stats().Bytes(), nil }
}

// The wrong files of a source cost the share, once in an hour, however many these files are and however large;
// and right ones get all the room that they need, also from this source.
func TestWrongFilesCostTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := fullStore(t, Options{MaxSize: 10_000})
		for i := range 5 {
			newSample(t, 100+i, 8000+i, nil).wantLie(t, s, "a") // the source that brought the others
		}
		wantPresent(t, s, "1 2 3 4 5 6 7 8 9", all...)
		all[0].src.name = "b"
		all[0].store(t, s)
		newSample(t, 110, 8000, nil).wantLie(t, s, "a")
		wantPresent(t, s, "0 1 2 3 4 5 6 7 8 9", all...)
		if n := s.space.loans() + s.advances.removed(); n != 0 {
			t.Errorf("%d bytes are on the account with no download under way", n)
		}

		time.Sleep(liarMemory)
		big := newSample(t, 111, 8000, nil)
		big.store(t, s)
		wantPresent(t, s, "0", all...)
		if s.Stats().Bytes() > 10_000 {
			t.Errorf("account %+v", s.Stats())
		}
	})
}

// While nothing is known of the bytes of several downloads, only the share is gone for all of them; neither a vacuum nor
// the look at the limits takes more.
func TestUnverifiedTakesTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := fullStore(t, Options{MaxSize: 10_000})
		go s.Run(t.Context()) //nolint:errcheck // Close waits for it
		gate := make(chan struct{})
		var readers []*Reader
		for i := range 5 {
			m := newSample(t, 100+i, 1500+i, nil)
			r, err := s.File(t.Context(), m.blob, sources(always("liar", flip(m.data, 5), reply{stall: 1000, gate: gate})))
			if err != nil {
				t.Fatal(err)
			}
			readers = append(readers, r)
		}
		small := newSample(t, 110, 1000, nil)
		r, err := s.File(t.Context(), small.blob, sources(always("liar", flip(small.data, 5), reply{stall: 500, gate: gate})))
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
		if out, lent := s.advances.removed(), s.space.loans(); out != 1000 || lent != 7510 {
			t.Errorf("%d bytes are removed, %d lent", out, lent)
		}
		if _, err := s.Vacuum(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if got := present(s, all...); got != "2 3 4 5 6 7 8 9" { // one for the share, one for the vacuum's low water
			t.Errorf("there are %q", got)
		}
		close(gate)
		for _, r := range readers {
			if _, err := io.ReadAll(r); !errors.Is(err, verify.ErrMismatch) {
				t.Errorf("error %v", err)
			}
			r.Close()
		}
		synctest.Wait()
		wantPresent(t, s, "2 3 4 5 6 7 8 9", all...)
	})
}

// A wrong body without a size costs no more either.
func TestUnverifiedOfUnknownSize(t *testing.T) {
	const size = bookAhead / 8
	s := openStore(t, Options{MaxSize: 8 * size})
	all := samples(t, 8, size)
	for _, m := range all {
		m.store(t, s)
	}
	m := newSample(t, 100, 300_000, nil)
	m.blob.Want.Size = 0
	_, _, err := get(s, m.blob, always("liar", flip(m.data, 5), reply{noSize: true}))
	wantError(t, err, verify.ErrMismatch)
	s.Idle()
	wantPresent(t, s, "0 1 2 3 4 5 6 7", all...)
	wantData(t, s, m.blob, m.data, Miss, always("honest", m.data, reply{noSize: true}))
	s.Idle()
	if n := s.Stats().Bytes(); n > 8*size {
		t.Errorf("%d bytes are stored, at most %d may be", n, 8*size)
	}
}

// A loan ends when the download breaks off. What is left of it goes before any verified file.
func TestLoanOfABrokenDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MaxSize: 1_000_000})
		all := samples(t, 10, 100_000)
		for _, m := range all {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		go s.Run(t.Context()) //nolint:errcheck // Close waits for it
		big := newSample(t, 100, 800_000, nil)
		newSample(t, 101, 800_000, nil).wantLie(t, s, "a") // no file goes for this source
		all[0].src.name = "b"
		all[0].store(t, s)
		_, _, err := get(s, big.blob, &fake{name: "a", data: big.data, reply: func(try int, _ int64) reply {
			if try > 1 {
				return reply{err: errDown}
			}
			return reply{cut: 700_000}
		}})
		if err == nil {
			t.Fatal("no error")
		}
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		wantPresent(t, s, "0 1 2 3 4 5 6 7 8 9", all...)
		if n := s.Stats().Bytes(); n > 1_000_000 || s.space.loans() != 0 {
			t.Errorf("%d bytes are stored, %d lent", n, s.space.loans())
		}
		wantData(t, s, big.blob, big.data, Miss, big.src)
	})
}

// With a disk that has no more room, nothing can be lent. More than the share goes then for a source that has not lied; for
// one without a proof, for one download at a time.
func TestUnverifiedOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MinFree: 100})
		smallDisk(s, 1_000_100)
		all := samples(t, 10, 100_000)
		for _, m := range all {
			m.src.name = "old"
			m.store(t, s)
			time.Sleep(time.Second)
		}
		still := func(want string) {
			t.Helper()
			if got := present(s, all...); got != want {
				t.Errorf("there are %q, want %q", got, want)
			}
		}
		gate := make(chan struct{})
		first, second := newSample(t, 100, 300_000, nil), newSample(t, 101, 300_000, nil)
		r, err := s.File(t.Context(), first.blob, sources(always("new", flip(first.data, 5), reply{stall: 1000, gate: gate})))
		if err != nil {
			t.Fatal(err)
		}
		still("3 4 5 6 7 8 9")
		_, _, err = get(s, second.blob, always("new", second.data, reply{}))
		wantError(t, err, ErrNoSpace, verify.ErrUnavailable)
		if !strings.Contains(err.Error(), "source new") || counter(s.metrics.roomRefused[noRoomUnverified]) != 1 {
			t.Errorf("%v, counted %d", err, counter(s.metrics.roomRefused[noRoomUnverified]))
		}
		still("3 4 5 6 7 8 9")
		old := always("old", second.data, reply{})
		wantData(t, s, second.blob, second.data, Miss, always("new", second.data, reply{}), old)
		wantAsked(t, old, 0)
		synctest.Wait()
		still("7 8 9") // down to the low water

		close(gate)
		if _, err := io.ReadAll(r); !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("error %v", err)
		}
		r.Close()
		synctest.Wait()
		for _, m := range all[:3] { // its room is free: no file goes
			m.store(t, s)
		}
		wantPresent(t, s, "0 1 2 7 8 9", all...)
		for i := range 3 {
			third := newSample(t, 102+i, 300_000, nil)
			_, _, err = get(s, third.blob, third.lie("new"))
			wantError(t, err, ErrNoSpace)
		}
		wantPresent(t, s, "0 1 2 7 8 9", all...)
		time.Sleep(3 * liarMemory) // three shares have gone
		big := newSample(t, 110, 500_000, nil)
		big.src.name = "new"
		big.store(t, s)
		if _, there := s.Peek(big.blob); !there {
			t.Error("the source is not forgiven")
		}
	})
}

// Right bytes make good what wrong ones have cost.
func TestRightBytesMakeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := fullStore(t, Options{MaxSize: 10_000})
		newSample(t, 100, 8000, nil).wantLie(t, s, "a")
		if n := s.advances.allowance(Source{Name: "a"}, 1000); n != 0 {
			t.Errorf("%d bytes may go for a source after its lie", n)
		}
		if n := s.advances.allowance(Source{Name: "b"}, 1000); n != 1000 {
			t.Errorf("%d bytes may go for another source", n)
		}
		all[0].store(t, s)
		if n := s.advances.allowance(Source{Name: "a"}, 1000); n != 1000 {
			t.Errorf("%d bytes may go for a source that has made good its lie", n)
		}
	})
}
