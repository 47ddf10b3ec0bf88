package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

var errDown = errors.New("connection refused")

func TestMissThenHit(t *testing.T) {
	s := openStore(t, Options{Sources: []string{"a"}})
	data := noise(1, 3<<20)
	src := &fake{name: "a", data: data}
	wantData(t, s, blobOf(data), data, Miss, src)
	s.Idle() // until it is published
	wantData(t, s, blobOf(data), data, Hit, src)
	wantAsked(t, src, 0)

	info, ok := s.Peek(blobOf(data))
	if !ok || info.Digests.SHA1 != sumOf(data) || !bytes.Equal(info.Digests.MD5[:], md5Of(data)) || info.Digests.Size != int64(len(data)) {
		t.Errorf("Peek = %+v, %v", info, ok)
	}
	onDisk, err := os.ReadFile(s.dir.file(sumOf(data)))
	if err != nil || !bytes.Equal(onDisk, data) {
		t.Errorf("on disk: %d bytes, %v", len(onDisk), err)
	}
	if left, _ := os.ReadDir(s.dir.partials()); len(left) > 0 {
		t.Errorf("left in partial/: %v", left)
	}
	if s.Stats().Bytes() != int64(len(data)) || s.Stats().Booked != 0 || s.Stats().Unfinished != 0 {
		t.Errorf("account: %+v", s.Stats())
	}
	if h, mi := s.requests(Hit), s.requests(Miss); h != 1 || mi != 1 {
		t.Errorf("%d hits, %d misses counted, want one each", h, mi)
	}
	if n := s.Traffic().Clients[Hit].Bytes; n != int64(len(data)) {
		t.Errorf("%d bytes counted as served, want %d", n, len(data))
	}
}

func TestSizes(t *testing.T) {
	s := openStore(t, Options{})
	for i, n := range []int{0, 1, holdBack - 1, holdBack, holdBack + 1, 1 << 20, 1<<20 + 1, 5<<20 + 3} {
		data := noise(byte(i), n)
		for _, chunk := range []int{0, 7777} {
			b := blobOf(data)
			if chunk > 0 { // the same bytes once more, under a name of their own
				b = Blob{Key: fmt.Sprint("file/", n), Want: verify.Want{MD5: md5Of(data)}}
			}
			src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{chunk: chunk} }}
			wantData(t, s, b, data, Miss, src)
			s.Idle()
			wantData(t, s, b, data, Hit)
		}
	}
}

// Nobody gets the last block of a file before its digests hold, and nobody
// anything of a file that is no longer than that.
func TestHoldBack(t *testing.T) {
	for _, n := range []int{1, holdBack, holdBack + 1, 3<<20 + 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := openStore(t, Options{})
			data := noise(1, n)
			gate := make(chan struct{})
			src := &fake{name: "a", data: data, reply: func(int, int64) reply {
				return reply{stall: max(1, n-1), gate: gate, noSize: true}
			}}
			if n == 1 { // all is there, but that it is all is not known
				src.reply = func(int, int64) reply { return reply{stall: -1, gate: gate} }
			}
			r, err := s.File(context.Background(), blobOf(data), sources(src))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			before := make([]byte, max(0, n-holdBack))
			if _, err := io.ReadFull(r, before); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, data[:len(before)]) {
				t.Fatal("wrong bytes")
			}
			soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if n, err := r.WaitContext(soon); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("before the digests were known: %d more bytes, %v", n, err)
			}
			close(gate)
			rest, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(rest, data[len(before):]) {
				t.Fatalf("the rest: %d bytes, %v", len(rest), err)
			}
		})
	}
}

// A hundred readers of one fill, each at its own offset: one request.
func TestManyReaders(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 2<<20)
	src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{chunk: 100_000} }}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			from := rng.IntN(len(data) + 1)
			r, err := s.File(context.Background(), blobOf(data), sources(src))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			r.SeekTo(int64(from))
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data[from:]) {
				t.Errorf("from %d: %d bytes, %v", from, len(got), err)
			}
		})
	}
	wg.Wait()
	wantAsked(t, src, 0)
	if n := src.bytes(); n != int64(len(data)) {
		t.Errorf("%d bytes were fetched, want %d", n, len(data))
	}
}

// Readers are woken in batches, however small the pieces are that come.
func TestAnnouncesInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{chunk: 1000, pause: time.Millisecond} }}
		r, err := s.File(t.Context(), blobOf(data), sources(src))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		waits := 0
		for {
			n, err := r.Wait()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.SendTo(io.Discard, n); err != nil {
				t.Fatal(err)
			}
			waits++
		}
		if waits > 130 { // about a second, in steps of 10 ms
			t.Errorf("the reader was woken %d times in a second", waits)
		}
	})
}

func TestCutEveryTenth(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1_000_000)
	src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{cut: 100_000} }}
	wantData(t, s, blobOf(data), data, Miss, src)
	if n := src.bytes(); n != int64(len(data)) {
		t.Errorf("%d bytes were fetched, want %d", n, len(data))
	}
	wantAsked(t, src, 0, 100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000, 800_000, 900_000)
	if n := counter(s.metrics.resumes.WithLabelValues("a")); n != 9 {
		t.Errorf("%d resumes counted, want 9", n)
	}
}

// A source that brings a few bytes and breaks, for ever, is not hammered.
func TestResumesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1000)
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{cut: 10} }}
		began := time.Now()
		wantData(t, s, blobOf(data), data, Miss, src)
		if took := time.Since(began); took < 7*time.Second {
			t.Errorf("100 tries in %s", took)
		}
	})
}

func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		for _, at := range []int{-1, 1, 500_000, len(data) - 1} {
			b := Blob{Key: fmt.Sprint("file/", at), Want: verify.Want{MD5: md5Of(data)}}
			src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
				if try == 1 {
					return reply{stall: at}
				}
				return reply{}
			}}
			began := time.Now()
			wantData(t, s, b, data, Miss, src)
			if took := time.Since(began); took < 20*time.Second || took > 22*time.Second {
				t.Errorf("stall at %d: took %s", at, took)
			}
			wantAsked(t, src, 0, max(0, int64(at)))
		}
	})
}

// While a source stalls, the other is asked.
func TestStallThenOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		a := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{stall: 1000} }}
		b := &fake{name: "b", data: data}
		wantData(t, s, blobOf(data), data, Miss, a, b)
		wantAsked(t, a, 0)
		wantAsked(t, b, 1000)
	})
}

// A source that says of itself that it has stalled is asked behind the others, like one that is found to stall here.
func TestStallToldBySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		told := fmt.Errorf("GET /file: %w: no byte for 20s", verify.ErrStalled)
		a := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{cut: 1000}
			}
			return reply{err: told}
		}}
		b := &fake{name: "b", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{err: errDown}
			}
			return reply{}
		}}
		wantData(t, s, blobOf(data), data, Miss, a, b)
		wantAsked(t, a, 0, 1000)
		wantAsked(t, b, 1000, 1000)
	})
}

func TestFailsTwiceThenServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try <= 2 {
				return reply{err: errors.New("status 500")}
			}
			return reply{}
		}}
		began := time.Now()
		wantData(t, s, blobOf(data), data, Miss, src)
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestAllRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1000)
		src := &fake{name: "a", reply: func(int, int64) reply { return reply{err: errDown} }}
		began := time.Now()
		_, _, err := get(s, blobOf(data), src)
		wantError(t, err, verify.ErrUnavailable, fs.ErrNotExist, verify.ErrMismatch)
		if took := time.Since(began); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("took %s, want about 2.5s", took)
		}
		if n := len(src.asked()); n < 8 || n > 12 {
			t.Errorf("%d tries", n)
		}
		if len(s.Fills()) != 0 || len(s.Partials()) != 0 || s.Stats().Booked != 0 {
			t.Errorf("left behind: %d fills, %d partials, %d booked", len(s.Fills()), len(s.Partials()), s.Stats().Booked)
		}
		_, _, err = get(s, blobOf(data))
		wantError(t, err, verify.ErrUnavailable, fs.ErrNotExist)
	})
}

func TestNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1000)
		says := func(err error) *fake {
			return &fake{name: err.Error(), reply: func(int, int64) reply { return reply{err: fmt.Errorf("asked: %w", err)} }}
		}
		absent, denied, down := says(fs.ErrNotExist), says(fs.ErrPermission), says(errDown)

		_, _, err := get(s, blobOf(data), absent)
		wantError(t, err, fs.ErrNotExist, verify.ErrUnavailable)
		wantAsked(t, absent, 0) // a clear answer is not asked for twice

		_, _, err = get(s, blobOf(data), absent, denied)
		wantError(t, err, verify.ErrUnavailable, fs.ErrNotExist, fs.ErrPermission)
		wantAsked(t, denied, 0)
		wantError(t, err, ErrRefused)

		_, _, err = get(s, blobOf(data), denied, down)
		wantError(t, err, verify.ErrUnavailable, ErrRefused)

		_, _, err = get(s, blobOf(data), absent, down)
		wantError(t, err, verify.ErrUnavailable, fs.ErrNotExist)

		wantData(t, s, blobOf(data), data, Miss, absent, denied, &fake{name: "ok", data: data})
	})
}

// A source that answers late is not one that refuses.
func TestSlowFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1000)
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{delay: 19 * time.Second} }}
		wantData(t, s, blobOf(data), data, Miss, src)
		wantAsked(t, src, 0)

		data = noise(2, 1000)
		late := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{delay: time.Hour} }}
		began := time.Now()
		_, _, err := get(s, blobOf(data), late)
		wantError(t, err, verify.ErrUnavailable)
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestOneOfTwoDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		a := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try > 1 {
				return reply{err: errDown}
			}
			return reply{cut: 400_000}
		}}
		b := &fake{name: "b", data: data}
		began := time.Now()
		wantData(t, s, blobOf(data), data, Miss, a, b)
		wantAsked(t, b, 400_000)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the change took %s", took)
		}
	})
}

// In mid-file the sources have four chances before the fill fails; what is
// there is kept.
func TestDrySpell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		down := 4
		src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			switch {
			case try == 1:
				return reply{cut: 500_000}
			case try-1 <= down:
				return reply{err: errDown}
			}
			return reply{}
		}}
		got, _, err := get(s, blobOf(data), src)
		wantError(t, err, verify.ErrUnavailable, verify.ErrMismatch)
		if !bytes.Equal(got, data[:500_000]) {
			t.Errorf("%d bytes were given out", len(got))
		}
		synctest.Wait()
		if p := s.Partials(); len(p) != 1 || p[0] != (Partial{Sum: sumOf(data), Size: int64(len(data)), Have: 500_000}) {
			t.Errorf("Partials = %v", p)
		}
		wantData(t, s, blobOf(data), data, Miss, src)
		wantAsked(t, src, 0, 500_000, 500_000, 500_000, 500_000, 500_000)

		data = noise(2, 1<<20)
		down = 3
		src.data, src.offsets = data, nil
		wantData(t, s, blobOf(data), data, Miss, src)
	})
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{Deadline: time.Minute})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{chunk: 1000, pause: time.Second} }}
		_, _, err := get(s, blobOf(data), src)
		wantError(t, err, verify.ErrUnavailable)
	})
}

func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1})
		gate := make(chan struct{})
		var order []byte
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := byte(0); i < 4; i++ {
			data := noise(i, 1000)
			src := &fake{name: "a", data: data, reply: func(int, int64) reply {
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				return reply{stall: -1, gate: gate}
			}}
			wg.Go(func() { wantData(t, s, blobOf(data), data, Miss, src) })
			synctest.Wait()
		}
		if in, waiting := counter(s.metrics.inflight), counter(s.metrics.slotsWaiting); in != 1 || waiting != 3 {
			t.Errorf("%d in flight, %d waiting; want 1 and 3", in, waiting)
		}
		close(gate)
		wg.Wait()
		if !bytes.Equal(order, []byte{0, 1, 2, 3}) {
			t.Errorf("order %v", order)
		}
		synctest.Wait()
		if in, waiting := counter(s.metrics.inflight), counter(s.metrics.slotsWaiting); in != 0 || waiting != 0 {
			t.Errorf("%d in flight, %d waiting; want none", in, waiting)
		}
	})
}

// The fill belongs to the store, not to who asked for it.
func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{delay: 10 * time.Second} }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.File(ctx, blobOf(data), sources(src))
		wantError(t, err, context.DeadlineExceeded)
		wantData(t, s, blobOf(data), data, Join, src)
		wantAsked(t, src, 0)
	})
}

// A second image with the same bytes brings its own sources along.
func TestJoinBringsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		a := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{chunk: 10_000, pause: time.Second, cut: 500_000}
			}
			return reply{err: errDown}
		}}
		r, err := s.File(t.Context(), blobOf(data), sources(a))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b := &fake{name: "b", data: data}
		wantData(t, s, blobOf(data), data, Join, b)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("first reader: %d bytes, %v", len(got), err)
		}
		wantAsked(t, b, 500_000)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(int, int64) reply { return reply{stall: 300_000} }}
		r, err := s.File(t.Context(), blobOf(data), sources(src))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		closed := make(chan error)
		go func() {
			time.Sleep(time.Second)
			closed <- s.Close()
		}()
		got, err := io.ReadAll(r)
		wantError(t, err, ErrClosed)
		if !bytes.Equal(got, data[:300_000]) {
			t.Errorf("%d bytes were given out", len(got))
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		_, err = s.File(t.Context(), blobOf(data), sources(src))
		wantError(t, err, ErrClosed)
		_, err = s.Lists().Listings()
		wantError(t, err, ErrClosed)
		wantError(t, s.Run(t.Context()), ErrClosed)
	})
}
