package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/cache/ranges"
	"imgmirror/verify"
)

const mib = 1 << 20

// ranged is a source of ranges; each connection brings a MiB in 50 ms.
func ranged(name string, data []byte, change func(try int, offset int64, r *reply)) *fake {
	f := &fake{name: name, data: data, ranged: true}
	f.reply = func(try int, offset int64) reply {
		r := reply{chunk: 64 << 10, pause: 3125 * time.Microsecond}
		if change != nil {
			change(try, offset, &r)
		}
		return r
	}
	return f
}

// inRanges runs a test in a bubble with a store of that many streams, and wants its memory to be free in the end.
func inRanges(t *testing.T, o Options, run func(t *testing.T, s *Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, o)
		run(t, s)
		synctest.Wait()
		if used, _, _ := s.ranges.Usage(); used != 0 {
			t.Errorf("%d bytes of memory are booked", used)
		}
	})
}

// A file comes in several ranges at the same time, from all sources.
func TestRanges(t *testing.T) {
	data := noise(1, 40*mib)
	f := func(what string, streams int, least, most time.Duration, fakes ...*fake) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			inRanges(t, Options{Streams: streams}, func(t *testing.T, s *Store) {
				began := time.Now()
				wantData(t, s, blobOf(data), data, Miss, fakes...)
				if took := time.Since(began); took < least || took > most {
					t.Errorf("took %v, want %v to %v", took, least, most)
				}
				var sent int64
				for _, f := range fakes {
					sent += f.bytes()
				}
				if sent > int64(len(data))*11/10 {
					t.Errorf("%d bytes were sent for %d", sent, len(data))
				}
			})
		})
	}
	const ms = time.Millisecond
	f("one stream", 1, 2000*ms, 2100*ms, ranged("a", data, nil), ranged("b", data, nil))
	f("four streams", 4, 500*ms, 560*ms, ranged("a", data, nil))
	f("two sources", 2, 500*ms, 560*ms, ranged("a", data, nil), ranged("b", data, nil))
	f("without ranges", 4, 2000*ms, 2100*ms, &fake{name: "a", data: data, reply: ranged("", nil, nil).reply})
	f("ranges are ignored", 4, 2000*ms, 2100*ms, ranged("a", data, func(_ int, _ int64, r *reply) { r.whole = true }))
}

// One request is for all of a file that is small, or of which nothing is known, or with one stream.
func TestOneRequest(t *testing.T) {
	f := func(what string, o Options, size int, change func(b *Blob)) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			inRanges(t, o, func(t *testing.T, s *Store) {
				data := noise(1, size)
				a := ranged("a", data, func(_ int, _ int64, r *reply) { r.md5 = md5Of(data) })
				b := blobOf(data)
				change(&b)
				wantData(t, s, b, data, Miss, a)
				wantAsked(t, a, 0)
			})
		})
	}
	f("one stream", Options{Streams: 1}, 20*mib, func(*Blob) {})
	f("zero streams", Options{}, 20*mib, func(*Blob) {})
	f("a small file", Options{Streams: 4}, 8*mib-1, func(*Blob) {})
	f("no digest", Options{Streams: 4}, 20*mib, func(b *Blob) { b.Want.SHA1, b.Key = verify.Sum{}, "file/x/0" })
	f("no size", Options{Streams: 4}, 20*mib, func(b *Blob) { b.Want.Size = 0 })
	f("no memory", Options{Streams: 4, RangeMemory: 9*mib - 1}, 20*mib, func(*Blob) {})
}

// Whatever one of two sources does wrong, the file comes, and who is to blame is known.
func TestRangesFaults(t *testing.T) {
	data := noise(1, 40*mib)
	f := func(what string, change func(try int, offset int64, r *reply), then func(t *testing.T, s *Store, a, b *fake)) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			inRanges(t, Options{Streams: 2, Sources: []string{"a", "b"}}, func(t *testing.T, s *Store) {
				a, b := ranged("a", data, nil), ranged("b", data, change)
				wantData(t, s, blobOf(data), data, Miss, a, b)
				then(t, s, a, b)
			})
		})
	}
	asked := func(most int) func(t *testing.T, s *Store, a, b *fake) {
		return func(t *testing.T, _ *Store, _, b *fake) {
			if n := len(b.asked()); n == 0 || n > most {
				t.Errorf("b was asked %d times, want 1 to %d", n, most)
			}
		}
	}
	f("not there", func(_ int, _ int64, r *reply) { r.err = fs.ErrNotExist }, asked(2))
	f("down", func(_ int, _ int64, r *reply) { r.err = errors.New("down") }, asked(2))
	f("another size", func(_ int, _ int64, r *reply) { r.size = 41 * mib }, func(t *testing.T, s *Store, a, b *fake) {
		asked(2)(t, s, a, b)
		if n := failures(s, "b", whereSize); n == 0 {
			t.Error("nothing is counted")
		}
	})
	f("breaks off", func(_ int, _ int64, r *reply) { r.cut = 100_000 }, func(*testing.T, *Store, *fake, *fake) {})
	f("falls silent", func(_ int, _ int64, r *reply) { r.stall = 100_000 }, asked(20))
}

// liedFrom is data with other bytes from the offset on.
func liedFrom(data []byte, offset int) []byte {
	other := bytes.Clone(data)
	for i := range other[offset:] {
		other[offset+i] ^= 1
	}
	return other
}

// A source of another file, beside one that is well, cuts no client, brings nothing, and is known as the one to blame.
func TestRangesLiar(t *testing.T) {
	data := noise(1, 24*mib)
	inRanges(t, Options{Streams: 2, Sources: []string{"a", "b"}}, func(t *testing.T, s *Store) {
		a, b := ranged("a", data, nil), ranged("b", liedFrom(data, 0), nil)
		wantData(t, s, blobOf(data), data, Miss, a, b)
		if failures(s, "a", whereMixed)+failures(s, "b", whereMixed)+failures(s, "a", whereDigest) != 0 || failures(s, "b", whereDigest) != 1 {
			t.Error("b alone is to blame")
		}
		if n := b.bytes(); n > 1<<20 {
			t.Errorf("b has sent %d bytes", n)
		}
		next := noise(2, 24*mib)
		b = ranged("b", next, nil)
		wantData(t, s, blobOf(next), next, Miss, ranged("a", next, nil), b)
		if b.bytes() < 4*mib {
			t.Errorf("of a file that b has, too, b has sent %d bytes", b.bytes())
		}
	})
}

// Where the first source is the liar, its client is cut, as with one request; the other source brings the file.
func TestRangesFirstLies(t *testing.T) {
	data := noise(1, 24*mib)
	inRanges(t, Options{Streams: 2, Sources: []string{"a", "b"}}, func(t *testing.T, s *Store) {
		a, b := ranged("a", liedFrom(data, 0), nil), ranged("b", data, nil)
		if _, _, err := get(s, blobOf(data), a, b); !errors.Is(err, verify.ErrMismatch) {
			t.Fatalf("the first client got %v", err)
		}
		wantData(t, s, blobOf(data), data, Join, a, b)
		if failures(s, "a", whereDigest) != 1 || failures(s, "b", whereDigest)+failures(s, "b", whereMixed) != 0 {
			t.Error("a alone is to blame")
		}
	})
}

// The rest of a file does not come from a source that differs: the source that is well comes back.
func TestRangesLiarWaits(t *testing.T) {
	data := noise(1, 24*mib)
	inRanges(t, Options{Streams: 2, Sources: []string{"a", "b"}}, func(t *testing.T, s *Store) {
		began := time.Now()
		a := ranged("a", data, func(_ int, _ int64, r *reply) {
			if gone := time.Since(began); gone > 200*time.Millisecond && gone < 2*time.Second {
				r.err = errors.New("down")
			}
		})
		wantData(t, s, blobOf(data), data, Miss, a, ranged("b", liedFrom(data, 0), nil))
	})
}

// Of two sources whose ranges make a wrong file none is to blame. Then one source brings all, in one
// request.
func TestRangesMixed(t *testing.T) {
	data := noise(1, 40*mib)
	other := liedFrom(data, mib)
	inRanges(t, Options{Streams: 2, Sources: []string{"a", "b"}}, func(t *testing.T, s *Store) {
		a, b := ranged("a", data, nil), ranged("b", other, nil)
		if _, _, err := get(s, blobOf(data), a, b); !errors.Is(err, verify.ErrMismatch) {
			t.Fatalf("the first client got %v", err)
		}
		wantData(t, s, blobOf(data), data, Join, a, b)
		for _, name := range []string{"a", "b"} {
			if n := failures(s, name, whereMixed); n != 1 {
				t.Errorf("%d failures of mixed bytes of %s", n, name)
			}
		}
		if asked := a.asked(); asked[len(asked)-1] != 0 {
			t.Errorf("a was asked at %v", asked)
		}
		// The next file comes from one of them, and is not cut.
		next, wrong := noise(2, 40*mib), noise(3, 40*mib)
		b = ranged("b", wrong, nil)
		wantData(t, s, blobOf(next), next, Miss, ranged("a", next, nil), b)
		wantAsked(t, b)
	})
}

// A download that is ended goes on behind what is in the file, again in ranges.
func TestRangesResume(t *testing.T) {
	data := noise(1, 40*mib)
	dir := t.TempDir()
	b := blobOf(data)
	b.Why = Job
	inRanges(t, Options{Streams: 4, Dir: dir}, func(t *testing.T, s *Store) {
		a := ranged("a", data, nil)
		r, err := s.File(context.Background(), b, sources(a))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 15*mib)); err != nil {
			t.Fatal(err)
		}
		r.Close() // the last reader of a job
		closeStore(t, s)
	})
	inRanges(t, Options{Streams: 4, Dir: dir}, func(t *testing.T, s *Store) {
		a := ranged("a", data, nil)
		wantData(t, s, b, data, Miss, a)
		asked := a.asked()
		if first := slices.Min(asked); first < 15*mib || first > 30*mib {
			t.Errorf("it went on at %d: %v", first, asked)
		}
		if len(asked) < 4 {
			t.Errorf("asked at %v", asked)
		}
	})
}

// A Reader that waits is served as soon as the first range has bytes, and a reader in the middle of
// the file as soon as the file has got there.
func TestRangesFirstByte(t *testing.T) {
	data := noise(1, 40*mib)
	inRanges(t, Options{Streams: 4}, func(t *testing.T, s *Store) {
		began := time.Now()
		r, err := s.File(context.Background(), blobOf(data), sources(ranged("a", data, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Read(make([]byte, 1)); err != nil || time.Since(began) > 20*time.Millisecond {
			t.Errorf("the first byte came after %v: %v", time.Since(began), err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
	})
}

// A source that refuses ranges, and not what is left of a file in one request, gives the file.
func TestRangesRefused(t *testing.T) {
	data := noise(1, 40*mib)
	inRanges(t, Options{Streams: 4}, func(t *testing.T, s *Store) {
		a := ranged("a", data, func(_ int, _ int64, r *reply) { r.refused = errors.New("416") })
		wantData(t, s, blobOf(data), data, Miss, a)
	})
}

// A source of which all streams fail in mid-file is asked again by the rules of any download.
func TestRangesBreak(t *testing.T) {
	data := noise(1, 40*mib)
	inRanges(t, Options{Streams: 4}, func(t *testing.T, s *Store) {
		var mu sync.Mutex
		down := false
		a := ranged("a", data, func(try int, _ int64, r *reply) {
			mu.Lock()
			defer mu.Unlock()
			if try == 9 {
				down = true
				time.AfterFunc(5*time.Second, func() {
					mu.Lock()
					defer mu.Unlock()
					down = false
				})
			}
			if down {
				r.err = errors.New("down")
			}
		})
		wantData(t, s, blobOf(data), data, Miss, a)
	})
}

// All fills together keep to the limit of memory.
func TestRangesMemory(t *testing.T) {
	_, least := ranges.Window(4)
	inRanges(t, Options{Streams: 4, RangeMemory: 2*least - 1}, func(t *testing.T, s *Store) {
		one, two := ranged("a", noise(1, 40*mib), nil), ranged("b", noise(2, 40*mib), nil)
		r, err := s.File(context.Background(), blobOf(one.data), sources(one))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		wantData(t, s, blobOf(two.data), two.data, Miss, two)
		wantAsked(t, two, 0)
		if _, _, refused := s.ranges.Usage(); refused != 1 {
			t.Errorf("%d refusals", refused)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
	})
}

// A download that found no memory for ranges asks for ranges after a break, once there is memory.
func TestRangesOnceThereIsMemory(t *testing.T) {
	_, least := ranges.Window(4)
	inRanges(t, Options{Streams: 4, RangeMemory: 2*least - 1}, func(t *testing.T, s *Store) {
		one := ranged("a", noise(1, 40*mib), func(_ int, _ int64, r *reply) { r.pause = time.Millisecond }) // over before the break
		two := ranged("b", noise(2, 40*mib), func(try int, _ int64, r *reply) {
			if try == 1 {
				r.cut = 16 * mib
			}
		})
		r, err := s.File(context.Background(), blobOf(one.data), sources(one))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		wantData(t, s, blobOf(two.data), two.data, Miss, two)
		if asked := two.asked(); len(asked) < 4 {
			t.Errorf("asked for %v: one request is for all after the break", asked)
		}
	})
}
