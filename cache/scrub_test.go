package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// healer brings from memory what it has.
func healer(s **Store, all ...*sample) func(context.Context, verify.Sum, int64) error {
	return func(ctx context.Context, sum verify.Sum, size int64) error {
		for _, m := range all {
			if m.sum() == sum && m.blob.Want.Size == size {
				r, err := (*s).File(ctx, m.blob, sources(m.src))
				if err != nil {
					return err
				}
				defer r.Close()
				return r.Stored(ctx)
			}
		}
		return fmt.Errorf("nobody has %s: %w", sum, fs.ErrNotExist)
	}
}

// spoil flips one bit of a stored file, as a disk would: size and stamp stay.
func (m *sample) spoil(t testing.TB, s *Store) {
	t.Helper()
	path := s.dir.file(m.sum())
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data := append([]byte(nil), m.data...)
	data[len(data)/2] ^= 1
	if err := errors.Join(os.WriteFile(path, data, 0o644), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
		t.Fatal(err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if f := s.files[m.sum()]; f != nil {
		f.stamp.Store(nil)
	}
}

func quarantined(t testing.TB, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir.quarantine())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func scrubbed(s *Store, r CheckResult) int { return counter(s.metrics.scrubbed[r]) }

func TestCheck(t *testing.T) {
	var s *Store
	all := samples(t, 6, 200_000)
	s = openStore(t, Options{Heal: healer(&s, all[1], all[2])})
	for _, m := range all {
		m.store(t, s)
	}
	check := func(m *sample, want CheckResult, is error) {
		t.Helper()
		var last int64
		got, err := s.Check(t.Context(), m.sum(), func(done int64) {
			if done <= last {
				t.Errorf("progress %d after %d", done, last)
			}
			last = done
		})
		if got != want || !errors.Is(err, is) {
			t.Errorf("Check = %q, %v, want %q", got, err, want)
		}
		if want == CheckOK && last != int64(len(m.data)) {
			t.Errorf("progress ends at %d", last)
		}
	}
	check(all[0], CheckOK, nil)
	wantPresent(t, s, "0 1 2 3 4 5", all...)

	all[1].spoil(t, s)
	check(all[1], CheckHealed, nil)
	wantData(t, s, all[1].blob, all[1].data, Hit)
	if in := quarantined(t, s); len(in) != 1 || !strings.HasPrefix(in[0], all[1].sum().String()+"-") {
		t.Errorf("in quarantine: %v", in)
	}
	if err := os.Remove(s.dir.file(all[2].sum())); err != nil {
		t.Fatal(err)
	}
	check(all[2], CheckRestored, nil)

	// Who is reading wrong bytes is cut short.
	r, err := s.File(t.Context(), all[3].blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all[3].spoil(t, s)
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	check(all[3], CheckQuarantined, verify.ErrMismatch)
	if _, err := io.ReadAll(r); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("the reader of wrong bytes got %v", err)
	}
	if err := os.Remove(s.dir.file(all[4].sum())); err != nil {
		t.Fatal(err)
	}
	check(all[4], CheckAbsent, fs.ErrNotExist)
	wantPresent(t, s, "0 1 2 5", all...)
	if got, err := s.Check(t.Context(), all[4].sum(), nil); got != "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Check of nothing = %q, %v", got, err)
	}

	// What cannot be read is not absent, and is not given up.
	path := filepath.Dir(s.dir.file(all[5].sum()))
	if err := errors.Join(os.Rename(path, path+"x"), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Check(t.Context(), all[5].sum(), nil); got != CheckUnreadable || err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, verify.ErrMismatch) {
		t.Errorf("Check of an unreadable file = %q, %v", got, err)
	}
	if err := errors.Join(os.Remove(path), os.Rename(path+"x", path)); err != nil {
		t.Fatal(err)
	}
	check(all[5], CheckOK, nil)
	for r, n := range map[CheckResult]int{CheckOK: 2, CheckHealed: 1, CheckRestored: 1, CheckQuarantined: 1, CheckAbsent: 1, CheckUnreadable: 1} {
		if scrubbed(s, r) != n {
			t.Errorf("%d results %q counted, want %d", scrubbed(s, r), r, n)
		}
	}
	if n := failures(s, sourceDisk, whereDigest); n != 2 {
		t.Errorf("%d failures counted", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := s.Check(ctx, all[5].sum(), nil); got != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("Check with a context that has ended = %q, %v", got, err)
	}
}

// A wrong file that cannot be moved away is not served, and goes later.
func TestQuarantineFails(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 1000, nil)
	m.store(t, s)
	m.spoil(t, s)
	if err := os.WriteFile(s.dir.quarantine(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := s.Check(t.Context(), m.sum(), nil)
	if got != CheckUnreadable || !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("Check = %q, %v", got, err)
	}
	if _, _, err := get(s, m.blob, m.src); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a client got %v", err)
	}
	if err := os.Remove(s.dir.quarantine()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Check(t.Context(), m.sum(), nil); got != CheckQuarantined {
		t.Errorf("Check = %q, %v", got, err)
	}
	m.store(t, s)
	wantPresent(t, s, "0", m)
}

// A file of another length is found when it is opened, and healed by the fill
// that follows.
func TestWrongSizeIsQuarantined(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 1000, nil)
	m.store(t, s)
	if err := os.Truncate(s.dir.file(m.sum()), 999); err != nil {
		t.Fatal(err)
	}
	m.store(t, s)
	wantPresent(t, s, "0", m)
	if in := quarantined(t, s); len(in) != 1 {
		t.Errorf("in quarantine: %v", in)
	}
	wantData(t, s, m.blob, m.data, Hit)
}

// Each file is read once in ScrubEvery, the one whose turn it is first, at
// ScrubRate; after a restart it goes on where it was.
func TestScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 2 * time.Minute // badger's tickers make long times long
		all := samples(t, 3, 1_000_000)
		var s *Store
		s = openStore(t, Options{ScrubEvery: 7 * day, ScrubRate: 100_000, Heal: healer(&s, all...)})
		for _, m := range all {
			m.store(t, s)
			time.Sleep(day)
		}
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
		wantScrubbed := func(ok, healed int) {
			t.Helper()
			synctest.Wait()
			if scrubbed(s, CheckOK) != ok || scrubbed(s, CheckHealed) != healed {
				t.Errorf("%d were right and %d healed, want %d and %d", scrubbed(s, CheckOK), scrubbed(s, CheckHealed), ok, healed)
			}
		}
		stop := run() // at day 3: their turns are at 7, 8, 9
		time.Sleep(4*day - time.Second)
		wantScrubbed(0, 0)
		time.Sleep(6 * time.Second)
		wantScrubbed(0, 0) // 1 MB takes 10 s
		time.Sleep(10 * time.Second)
		wantScrubbed(1, 0)
		all[1].spoil(t, s)
		time.Sleep(day)
		wantScrubbed(1, 1)
		stop()
		s = reopenLater(t, s)
		stop = run()
		defer stop()
		time.Sleep(day / 2)
		wantScrubbed(0, 0)
		time.Sleep(day)
		wantScrubbed(1, 0)
		time.Sleep(7 * day)
		wantScrubbed(4, 0)
		wantPresent(t, s, "0 1 2", all...)
	})
}

func TestQuarantineIsCapped(t *testing.T) {
	s := openStore(t, Options{})
	if err := s.quarantine.limit(1, 1); err != nil { // there is none yet
		t.Fatal(err)
	}
	if err := os.Mkdir(s.dir.quarantine(), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := verify.Sum{1}.String()
	for i := range 6 {
		name := fmt.Sprintf("%s-2026010%dT000000.0", sum, 9-i)
		if err := os.WriteFile(filepath.Join(s.dir.quarantine(), name), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func(files int, size int64, want int) {
		t.Helper()
		if err := s.quarantine.limit(files, size); err != nil {
			t.Fatal(err)
		}
		in := quarantined(t, s)
		if len(in) != want || want > 0 && !strings.Contains(in[len(in)-1], "20260109") {
			t.Errorf("in quarantine: %v", in)
		}
	}
	left(6, 600, 6)
	left(4, 600, 4)
	left(4, 399, 3)
	left(4, 99, 0)
}

func TestFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1})
		m := newSample(t, 1, 10<<20, nil)
		src := always("a", m.data, reply{chunk: 64 << 10, pause: 62500 * time.Microsecond}) // 1 MiB/s
		r, err := s.File(t.Context(), m.blob, sources(src))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		time.Sleep(time.Millisecond)
		began := time.Now()
		waiting := newSample(t, 2, 1000, nil)
		go get(s, waiting.blob, waiting.src) //nolint:errcheck // it only waits
		time.Sleep(4 * time.Second)
		synctest.Wait()
		all := s.Fills()
		if len(all) != 2 {
			t.Fatalf("Fills = %+v", all)
		}
		f := all[0]
		if f.Image != m.id || f.Sum != m.sum() || f.Size != 10<<20 || f.Have < 3<<20 || f.Have > 4<<20+64<<10 || f.Readers != 1 ||
			f.Source != "a" || f.State != FillFilling || f.Began.After(began) {
			t.Errorf("the fill under way: %+v", f)
		}
		if f.Rate < 900_000 || f.Rate > 1_200_000 || f.ETA < 5*time.Second || f.ETA > 8*time.Second {
			t.Errorf("rate %d, ETA %s", f.Rate, f.ETA)
		}
		f = all[1]
		if f.Image != waiting.id || f.State != FillWaiting || f.Rate != 0 || f.ETA != -1 || f.Readers != 1 || f.Size != 1000 || f.Source != "" {
			t.Errorf("the waiting fill: %+v", f)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if all := s.Fills(); len(all) != 0 {
			t.Errorf("Fills = %+v", all)
		}
	})
}

func TestSpeed(t *testing.T) {
	var s speed
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	if s.now(at(0)) != 0 {
		t.Error("a rate of nothing")
	}
	s.add(0, at(0))
	s.add(100, at(500*time.Millisecond))
	if got := s.now(at(500 * time.Millisecond)); got != 200 {
		t.Errorf("within the first period: %d", got)
	}
	s.add(100, at(time.Second))
	s.add(700, at(2*time.Second))
	if got := s.now(at(2 * time.Second)); got != 400 {
		t.Errorf("after two periods: %d", got)
	}
	if got := s.now(at(2*time.Second + speedStale)); got != 0 {
		t.Errorf("when nothing came: %d", got)
	}
	s.add(1000, at(12*time.Second)) // what was before is forgotten
	if got := s.now(at(12 * time.Second)); got != 100 {
		t.Errorf("after a stall: %d", got)
	}
}
