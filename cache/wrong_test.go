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
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// flip gives data with one bit changed.
func flip(data []byte, at int) []byte {
	bad := bytes.Clone(data)
	bad[at] ^= 1
	return bad
}

// always gives a fake that treats each request alike.
func always(name string, data []byte, r reply) *fake {
	return &fake{name: name, data: data, reply: func(int, int64) reply { return r }}
}

// wantNothing fails the test if anything of data was published or left.
func wantNothing(t *testing.T, s *Store, data []byte) {
	t.Helper()
	s.Idle()
	if _, ok := s.Peek(blobOf(data)); ok {
		t.Error("Peek knows the file")
	}
	if _, err := os.Stat(s.dir.file(sumOf(data))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if left, _ := os.ReadDir(s.dir.partials()); len(left) > 0 {
		t.Errorf("left in partial/: %v", left)
	}
	if s.Stats().Bytes() != 0 || s.Stats().Booked != 0 {
		t.Errorf("account: %+v", s.Stats())
	}
}

func TestFlippedBit(t *testing.T) {
	data := noise(1, 1<<20)
	for _, at := range []int{0, 500_000, len(data) - 1} {
		s := openStore(t, Options{Sources: []string{"liar", "honest"}})
		liar := always("liar", flip(data, at), reply{})
		got, _, err := get(s, blobOf(data), liar)
		wantError(t, err, verify.ErrMismatch, verify.ErrUnavailable, fs.ErrNotExist)
		if len(got) > len(data)-holdBack {
			t.Errorf("%d bytes were given out", len(got))
		}
		wantNothing(t, s, data)
		if n := failures(s, "liar", whereDigest); n != 1 {
			t.Errorf("%d failures counted, want 1", n)
		}
		wantAsked(t, liar, 0)

		// The next request finds the honest one at once, although it is configured last.
		honest := &fake{name: "honest", data: data}
		wantData(t, s, blobOf(data), data, Miss, liar, honest)
		wantAsked(t, liar, 0)
	}
}

// Readers that were given wrong bytes are cut; those that wait, and those that
// come later, get the right ones from the other source.
func TestBeginsAgainElsewhere(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	gate := make(chan struct{})
	liar := always("liar", flip(data, 10), reply{stall: len(data) - 1, gate: gate})
	honest := &fake{name: "honest", data: data}
	open := func(offset int64) *Reader {
		r, err := s.File(context.Background(), blobOf(data), sources(liar, honest))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		r.SeekTo(offset)
		return r
	}
	cut, waiting, idle := open(0), open(int64(len(data)-100)), open(0)
	if _, err := io.ReadFull(cut, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if n, err := idle.Wait(); err != nil || n == 0 { // it was told of bytes, but took none
		t.Fatal(n, err)
	}
	close(gate)
	_, err := io.ReadAll(cut)
	wantError(t, err, verify.ErrMismatch)
	if got, err := io.ReadAll(waiting); err != nil || !bytes.Equal(got, data[len(data)-100:]) {
		t.Errorf("waiting at the end: %d bytes, %v", len(got), err)
	}
	if got, err := io.ReadAll(idle); err != nil || !bytes.Equal(got, data) {
		t.Errorf("waiting at the start: %d bytes, %v", len(got), err)
	}
	s.Idle()
	wantData(t, s, blobOf(data), data, Hit)
	wantAsked(t, liar, 0)
	wantAsked(t, honest, 0)
}

// A reader that sleeps through a wrong round finds the right one, also when
// everything is over by then.
func TestSleepsThroughWrongRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		liar := always("liar", flip(data, 10), reply{})
		r, err := s.File(t.Context(), blobOf(data), sources(liar, &fake{name: "honest", data: data}))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		synctest.Wait()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// When bytes of several sources are wrong together, each has to answer alone.
func TestMixedBytes(t *testing.T) {
	for _, order := range []string{"liar first", "honest first"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				data := noise(1, 1<<20)
				liar := &fake{name: "liar", data: flip(flip(data, 10), len(data)-10)}
				honest := &fake{name: "honest", data: data}
				first, second := liar, honest
				if order == "honest first" {
					first, second = honest, liar
				}
				first.reply = func(try int, _ int64) reply { // it breaks in the first round, and comes back
					switch try {
					case 1:
						return reply{cut: 500_000}
					case 2:
						return reply{err: errDown}
					}
					return reply{}
				}
				second.reply = func(try int, _ int64) reply {
					if try == 1 { // not before the client has bytes of the other
						return reply{delay: time.Second}
					}
					return reply{}
				}
				_, _, err := get(s, blobOf(data), first, second)
				wantError(t, err, verify.ErrMismatch)
				synctest.Wait()
				wantData(t, s, blobOf(data), data, Hit)
				if a, b := failures(s, "liar", whereMixed), failures(s, "honest", whereMixed); a != 1 || b != 1 {
					t.Errorf("mixed failures counted: liar %d, honest %d", a, b)
				}
				if n := failures(s, "honest", whereDigest); n != 0 {
					t.Error("the honest source was blamed")
				}
			})
		})
	}
}

// Alone in its round a source that dies makes way for the next, from the start.
func TestSoloSourceDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		flaky := &fake{name: "flaky", data: data, reply: func(try int, _ int64) reply {
			switch try {
			case 1, 3:
				return reply{cut: 500_000}
			}
			return reply{err: errDown}
		}}
		late := reply{delay: 100 * time.Millisecond} // the client has bytes of the other before, and the head start lasts
		liar := always("liar", flip(data, len(data)-5), late)
		honest := &fake{name: "honest", data: data}
		_, _, err := get(s, blobOf(data), flaky, liar, honest)
		wantError(t, err, verify.ErrMismatch)
		b, err := s.File(t.Context(), blobOf(data), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		b.SeekTo(int64(len(data) - 10)) // it is given nothing before the end, and so survives every round
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data[len(data)-10:]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestWrongSize(t *testing.T) {
	data := noise(1, 1<<20)
	shorter, longer := data[:len(data)-1], append(bytes.Clone(data), 'x')
	for _, c := range []struct {
		name  string
		r     reply
		opens bool // a body may begin
	}{
		{"one less, claimed", reply{data: shorter}, false},
		{"one more, claimed", reply{data: longer}, false},
		{"one less, not claimed", reply{data: shorter, noSize: true}, true},
		{"one more, not claimed", reply{data: longer, noSize: true}, true},
		{"one less, wrongly claimed", reply{data: shorter, size: int64(len(data))}, true},
		{"one more, wrongly claimed", reply{data: longer, size: int64(len(data))}, true},
		{"nothing", reply{data: []byte{}, noSize: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				src := always("a", data[:len(data)-1], c.r)
				r, err := s.File(t.Context(), blobOf(data), sources(src))
				if err == nil && !c.opens {
					t.Fatal("a body began")
				}
				if err == nil {
					var got []byte
					got, err = io.ReadAll(r)
					r.Close()
					if len(got) > len(data)-holdBack {
						t.Errorf("%d bytes were given out", len(got))
					}
				}
				if err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("error %v", err)
				}
				synctest.Wait()
				if _, ok := s.Peek(blobOf(data)); ok {
					t.Error("something was published")
				}
				if n := failures(s, "a", whereSize); n != 1 {
					t.Errorf("%d failures counted, want 1", n)
				}
				if len(s.files) == 0 && len(s.partials) == 0 && s.Stats().Bytes() != 0 {
					t.Errorf("account: %+v", s.Stats())
				}
			})
		})
	}
}

// A body whose length is not claimed may be cut: that it ends early is not
// believed before the source says so twice.
func TestCutWithoutLength(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
		if try == 1 {
			return reply{data: data[:400_000], noSize: true}
		}
		return reply{noSize: true}
	}}
	wantData(t, s, blobOf(data), data, Miss, src)
	wantAsked(t, src, 0, 400_000)
}

// One that is refused for its size leaves the fill to the others.
func TestWrongSizeThenOther(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	wrong := always("wrong", data[:1000], reply{})
	wantData(t, s, blobOf(data), data, Miss, wrong, &fake{name: "right", data: data})
	wantAsked(t, wrong, 0)
}

func TestSizeUnknown(t *testing.T) {
	data := noise(1, 1<<20)
	b := Blob{Want: verify.Want{SHA1: sumOf(data)}}
	gate := make(chan struct{})

	t.Run("claimed", func(t *testing.T) {
		s := openStore(t, Options{})
		src := always("a", data, reply{stall: 500_000, gate: gate})
		r, err := s.File(context.Background(), b, sources(src))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if r.Size() != int64(len(data)) {
			t.Errorf("Size = %d", r.Size())
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		close(gate)
		if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, data[1000:]) {
			t.Errorf("%d bytes, %v", len(rest), err)
		}
	})
	t.Run("not claimed", func(t *testing.T) {
		s := openStore(t, Options{})
		wantData(t, s, b, data, Miss, always("a", data, reply{noSize: true}))
	})
	t.Run("cut", func(t *testing.T) {
		s := openStore(t, Options{})
		wantData(t, s, b, data, Miss, always("a", data, reply{cut: 300_000}))
	})
	t.Run("too much", func(t *testing.T) {
		s := openStore(t, Options{})
		b := b
		b.MaxSize = 1000
		_, _, err := get(s, b, always("a", data, reply{}))
		wantError(t, err, verify.ErrMismatch)
		_, _, err = get(s, b, always("a", data, reply{noSize: true}))
		wantError(t, err, verify.ErrMismatch)
		wantNothing(t, s, data)
	})
}

func TestWithoutSHA1(t *testing.T) {
	data := noise(1, 1<<20)
	claim := reply{md5: md5Of(data), modTime: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
	wrong := reply{md5: make([]byte, 16)}
	b := Blob{Key: "file/u/0"}
	loose := Blob{Key: "icon/u", Unverified: true, MaxSize: 2 << 20}
	want := b
	want.Want.MD5 = md5Of(data)

	good := func(o Options, b Blob, r reply) {
		t.Helper()
		s := openStore(t, o)
		src := always("a", data, r)
		wantData(t, s, b, data, Miss, src)
		s.Idle()
		wantData(t, s, b, data, Hit)
		if info, ok := s.Peek(b); !ok || info.Digests.SHA1 != sumOf(data) || !info.ModTime.Equal(r.modTime) {
			t.Errorf("Peek = %+v, %v", info, ok)
		}
		wantData(t, s, blobOf(data), data, Hit) // it is there under its sum too
	}
	bad := func(o Options, b Blob, r reply, where string) {
		t.Helper()
		s := openStore(t, o)
		_, _, err := get(s, b, always("a", data, r))
		if where == whereUnchecked {
			wantError(t, err, ErrUnverified, verify.ErrUnavailable, verify.ErrMismatch) // the source is not to blame
		} else {
			wantError(t, err, verify.ErrMismatch)
		}
		wantNothing(t, s, data)
		if n := failures(s, "a", where); n != 1 {
			t.Errorf("%d failures counted, want 1", n)
		}
	}
	good(Options{}, b, claim)
	good(Options{}, want, reply{})
	good(Options{}, want, wrong) // the manifest's md5 counts
	good(Options{}, loose, reply{})
	good(Options{}, loose, claim)
	good(Options{AllowUnverified: true}, b, reply{})
	bad(Options{}, b, wrong, whereDigest)
	bad(Options{}, b, reply{}, whereUnchecked)
	bad(Options{}, want, reply{data: flip(data, 7)}, whereDigest)
	bad(Options{}, loose, wrong, whereDigest)
	bad(Options{AllowUnverified: true}, b, wrong, whereDigest)

	// A key whose bytes are other ones now is filled anew.
	s := openStore(t, Options{})
	wantData(t, s, want, data, Miss, &fake{name: "a", data: data})
	s.Idle()
	other := noise(2, 1000)
	want.Want.MD5 = md5Of(other)
	wantData(t, s, want, other, Miss, &fake{name: "a", data: other})

	if _, err := s.File(context.Background(), Blob{}, nil); err == nil {
		t.Error("a blob without sum or key was taken")
	}
}

// What nothing can be checked against must at least be one file of one source.
func TestUncheckedIsNotMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{AllowUnverified: true})
		data, other := noise(1, 1<<20), noise(2, 1<<20)
		when := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		a := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{cut: 500_000, modTime: when}
			}
			return reply{err: errDown}
		}}
		b := &fake{name: "b", data: other}
		_, _, err := get(s, Blob{Key: "k"}, a, b)
		wantError(t, err, verify.ErrUnavailable)
		synctest.Wait()
		wantData(t, s, Blob{Key: "k"}, other, Hit)

		// Nor may it change in between.
		changing := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			return reply{cut: 500_000, modTime: when.Add(time.Duration(try) * time.Hour)}
		}}
		_, _, err = get(s, Blob{Key: "k2"}, changing)
		wantError(t, err, verify.ErrMismatch)
	})
}

func TestWrongContentMD5(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	wantData(t, s, blobOf(data), data, Miss, always("a", data, reply{md5: make([]byte, 16)}))
	s.Idle()
	r, err := s.File(context.Background(), blobOf(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !bytes.Equal(md5From(t, r), md5Of(data)) {
		t.Errorf("md5 of the file on disk = %x", md5From(t, r))
	}

	// A manifest's md5 is not to be wrong, whatever the sha1.
	other := noise(2, 1000)
	b := blobOf(other)
	b.Want.MD5 = make([]byte, 16)
	_, _, err = get(s, b, &fake{name: "a", data: other})
	wantError(t, err, verify.ErrMismatch)
}

// A hit that asks for another size of the same sum is told so.
func TestHitOfOtherSize(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1000)
	wantData(t, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
	s.Idle()
	b := blobOf(data)
	b.Want.Size++
	_, _, err := get(s, b)
	wantError(t, err, verify.ErrMismatch)
	if _, ok := s.Peek(b); ok {
		t.Error("Peek knows a file of that size")
	}
}

// Whatever sources do, a body that ends well is the right one.
func TestNeverWrong(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 7))
				data := noise(byte(seed), rng.IntN(400_000))
				s := openStore(t, Options{Logger: nil})
				var fakes []*fake
				for i := range 1 + rng.IntN(3) {
					fakes = append(fakes, &fake{name: fmt.Sprint(i), data: data, reply: func(int, int64) reply {
						var r reply
						if len(data) > 0 {
							r.chunk = 1 + rng.IntN(100_000)
							switch rng.IntN(8) {
							case 0:
								r.cut = 1 + rng.IntN(len(data))
							case 1:
								r.stall = 1 + rng.IntN(len(data))
							case 2:
								r.data = flip(data, rng.IntN(len(data)))
							case 3:
								r.err = errDown
							case 4:
								r.data, r.noSize = data[:rng.IntN(len(data))], true
							case 5:
								r.noSize = true
							}
						}
						return r
					}})
				}
				for range 4 {
					got, result, err := get(s, blobOf(data), fakes...)
					switch {
					case err == nil && !bytes.Equal(got, data):
						t.Fatalf("%s of wrong bytes", result)
					case err != nil && len(data) > 0 && len(got) > max(0, len(data)-holdBack):
						t.Fatalf("%d of %d bytes were given out, and then: %v", len(got), len(data), err)
					}
				}
				synctest.Wait()
				if onDisk, err := os.ReadFile(s.dir.file(sumOf(data))); err == nil && !bytes.Equal(onDisk, data) {
					t.Fatal("wrong bytes were published")
				}
				if s.Stats().Booked != 0 || counter(s.metrics.inflight) != 0 {
					t.Fatalf("account: %+v", s.Stats())
				}
			})
		})
	}
}

// A reader that has taken no byte of a round that was wrong goes on with the next one's file, and lets the first one's go.
func TestReaderGoesOnWithAnotherFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(1, 300_000)
		s := openStore(t, Options{})
		gate := make(chan struct{})
		liar := always("liar", data, reply{data: flip(data, 200_000), stall: 250_000, gate: gate})
		r, err := s.File(t.Context(), blobOf(data), sources(liar, &fake{name: "honest", data: data}))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Wait(); err != nil { // the liar's file is open
			t.Fatal(err)
		}
		close(gate)
		synctest.Wait() // for the end of the fill
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// Once the bytes of two sources were wrong together, each has to bring the whole file alone.
func TestMixedOnceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(1, 300_000)
		s := openStore(t, Options{Deadline: time.Minute})
		liar := &fake{name: "liar", data: flip(data, 1000), reply: func(_ int, offset int64) reply {
			if offset > 0 {
				return reply{err: errDown}
			}
			return reply{cut: 100_000}
		}}
		honest := &fake{name: "honest", data: data}
		r, err := s.File(t.Context(), blobOf(data), sources(liar, honest))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		synctest.Wait()
		time.Sleep(2 * time.Minute) // whatever becomes of the fill, it has
		if _, err := r.Wait(); err != nil {
			t.Error(err)
		}
		wantAsked(t, honest, 100_000, 0)
	})
}
