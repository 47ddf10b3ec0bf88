package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// holdFollowers keeps all followers from hashing until the result is called.
func holdFollowers(t *testing.T, s *Store) (release func()) {
	t.Helper()
	var held [][]byte
	for range cap(s.followers) {
		buf, err := s.followers.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, buf)
	}
	return func() {
		for _, buf := range held {
			s.followers.leave(buf)
		}
	}
}

// sha1 alone ends the bodies and frees the slot; the record has all digests.
func TestVerdictBySHA1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1})
		data, other := noise(1, 3<<20+77), noise(2, 1000)
		release := holdFollowers(t, s)
		b := blobOf(data)
		wantData(t, s, b, data, Miss, &fake{name: "a", data: data})
		synctest.Wait()
		if _, stored := s.Peek(b); stored {
			t.Error("the file is known before its digests are")
		}
		wantData(t, s, blobOf(other), other, Miss, &fake{name: "a", data: other}) // in the one slot
		if s.Fills()[0].State != FillVerifying {
			t.Errorf("state %s", s.Fills()[0].State)
		}
		release()
		s.Idle()
		info, stored := s.Peek(b)
		if !stored || info.Digests != digestsOf(data) {
			t.Errorf("%t, %+v, want %+v", stored, info.Digests, digestsOf(data))
		}
		wantData(t, s, b, data, Hit)
	})
}

// Of a verified file the md5 is waited for, unless a source claims one; before the verdict it is not.
func TestMD5OfVerifiedFile(t *testing.T) {
	for _, claimed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, Options{})
			data := noise(1, 2<<20)
			release := holdFollowers(t, s)
			defer func() { release() }()
			gate := make(chan struct{})
			how := reply{stall: 1 << 20, gate: gate}
			if claimed {
				how.md5 = md5Of(data)
			}
			r, err := s.File(t.Context(), blobOf(data), sources(always("a", data, how)))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if sum := md5From(t, r); string(sum) != string(how.md5) {
				t.Errorf("before the verdict: md5 %x, claimed %x", sum, how.md5)
			}
			close(gate)
			if _, err := io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			short, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			sum, err := r.MD5(short)
			if claimed && string(sum) != string(how.md5) || !claimed && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("claimed %t, before the digest: %x, %v", claimed, sum, err)
			}
			release()
			release = func() {}
			if sum := md5From(t, r); string(sum) != string(md5Of(data)) {
				t.Errorf("md5 %x, want %x", sum, md5Of(data))
			}
		})
	}
}

// A process that ends between verdict and record loses nothing, whether it may end in order or not.
func TestEndBeforeTheDigests(t *testing.T) {
	for _, killed := range []bool{false, true} {
		data := noise(1, 2<<20)
		s := openStore(t, Options{})
		release := holdFollowers(t, s)
		b, src := blobOf(data), &fake{name: "a", data: data}
		wantData(t, s, b, data, Miss, src)
		dir := s.o.Dir
		if killed {
			dir = t.TempDir()
			copyTree(t, s.o.Dir, dir)
			release()
		}
		closeStore(t, s)
		next := openStore(t, Options{Dir: dir})
		wantData(t, next, b, data, Miss, src)
		next.Idle()
		wantAsked(t, src, 0)
		if info, _ := next.Peek(b); info.Digests != digestsOf(data) || next.Stats().Unfinished != 0 {
			t.Errorf("killed %t: %+v, account %+v", killed, info.Digests, next.Stats())
		}
	}
}

// The digests of a small file are not left to the next process when the store is closed.
func TestCloseEndsSmallFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(1, 1000)
		s := openStore(t, Options{})
		release := holdFollowers(t, s)
		wantData(t, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
		context.AfterFunc(s.ctx, func() {
			synctest.Wait()
			release()
		})
		closeStore(t, s)
		wantData(t, openStore(t, Options{Dir: s.o.Dir}), blobOf(data), data, Hit)
	})
}

// A verdict that comes while the store ends takes a free place, so that a small file has its record. Where no place is
// free, the end of the store ends the wait.
func TestAwaitRecordsAtTheEnd(t *testing.T) {
	s := openStore(t, Options{})
	s.cancel(ErrClosed)
	for range cap(s.unrecorded) {
		if err := s.awaitRecords(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.awaitRecords(); !errors.Is(err, ErrClosed) {
		t.Errorf("without a place: %v", err)
	}
}

// A file that is lost between verdict and record is brought again, in a slot.
func TestLostBeforeTheRecord(t *testing.T) {
	s := openStore(t, Options{FillSlots: 1})
	data := noise(1, 2<<20)
	b := blobOf(data)
	var seats []int
	src := &fake{name: "a", data: data, reply: func(int, int64) reply {
		s.slots.mu.Lock()
		defer s.slots.mu.Unlock()
		seats = append(seats, s.slots.used)
		return reply{}
	}}
	s.step = func(now string) {
		if now == "digests" && len(seats) == 1 {
			if err := os.Remove(s.dir.partial(b.partialName())); err != nil {
				t.Error(err)
			}
		}
	}
	wantData(t, s, b, data, Miss, src)
	s.Idle()
	wantData(t, s, b, data, Hit)
	if len(seats) != 2 || seats[0] != 1 || seats[1] != 1 || s.slots.used != 0 {
		t.Errorf("slots in use at each request: %v, at the end %d", seats, s.slots.used)
	}
}

// The room of a file that has a verdict and no record is waited for, not refused. A file that is lost
// before its record gives way to the download that waits.
func TestRoomOfVerifiedFile(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			data, other := noise(1, 2<<20), noise(2, 2<<20)
			s := openStore(t, Options{MaxSize: 3 << 20, FillSlots: 1})
			began := time.Now()
			release := holdFollowers(t, s)
			if lost {
				partial := s.dir.partial(blobOf(data).partialName())
				var once sync.Once
				s.step = func(now string) {
					if now == "digests" {
						once.Do(func() {
							if err := os.Remove(partial); err != nil {
								t.Error(err)
							}
						})
					}
				}
			}
			wantData(t, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
			done := make(chan error)
			go func() {
				_, _, err := get(s, blobOf(other), &fake{name: "a", data: other})
				done <- err
			}()
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("it did not wait: %v", err)
			default:
			}
			release()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			s.Idle()
			if !lost { // else the file that was lost has come again, in the room of the other one
				wantData(t, s, blobOf(other), other, Hit)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A follower rests on a busy machine, until the record is urgent.
func TestFollowerRests(t *testing.T) {
	judged := func(f *fill) { f.view.verified, f.view.judged = true, time.Now() }
	for name, c := range map[string]struct {
		set  func(f *fill)
		want time.Duration
	}{
		"before the verdict": {func(f *fill) { f.urge() }, followRest},
		"after it":           {judged, followRest},
		"awaited":            {func(f *fill) { judged(f); f.urge() }, 0},
		"long after it":      {func(f *fill) { judged(f); f.view.judged = time.Now().Add(-followPatience - 1) }, 0},
		"crowded": {func(f *fill) {
			judged(f)
			for range cap(f.s.unrecorded) {
				f.s.unrecorded <- struct{}{}
			}
		}, 0},
		"soon awaited": {func(f *fill) {
			judged(f)
			time.AfterFunc(followRest/4, f.urge)
		}, followRest / 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &Store{unrecorded: make(chan struct{}, maxUnrecorded)}
			f := &fill{s: s, view: &view{}, wake: make(chan struct{})}
			c.set(f)
			began := time.Now()
			if err := (&follower{f: f}).rest(t.Context()); err != nil || time.Since(began) != c.want {
				t.Errorf("%s: rested for %s, %v", name, time.Since(began), err)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if err := (&follower{f: f}).rest(ended); err == nil {
				t.Error("an ended follower goes on")
			}
		})
	}
}

// A download that waits for the records of others hangs nothing: no request that ends, and no stop.
func TestWaitForRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(1, 2<<20)
		s := openStore(t, Options{FillSlots: 1})
		for range cap(s.unrecorded) {
			s.unrecorded <- struct{}{}
		}
		r := open(t, s, forJob(data), &fake{name: "a", data: data})
		if got, err := io.ReadAll(r); err != nil || len(got) != len(data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Stored(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it did not wait: %v", err)
		}
		if s.slots.used != 1 {
			t.Errorf("%d slots are in use, want 1", s.slots.used)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		closeStore(t, s)
		src := &fake{name: "a", data: data}
		wantData(t, openStore(t, Options{Dir: s.o.Dir}), blobOf(data), data, Miss, src)
		wantAsked(t, src)
	})
}
