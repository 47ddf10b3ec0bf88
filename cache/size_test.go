package cache

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// lied is data's blob as a manifest tells of it that has the size wrong.
func lied(data []byte, by int64) Blob {
	b := blobOf(data)
	b.Want.Size += by
	return b
}

// dripping sends what it claims, a byte a second.
func dripping(name string, data []byte) *fake {
	return always(name, data, reply{chunk: 1, pause: time.Second})
}

// An image with another one's sha1 and a wrong size hides nothing: each size is a download of its own.
func TestWrongSizeHidesNothing(t *testing.T) {
	data := noise(1, 300_000)
	for name, c := range map[string]struct {
		blob Blob
		src  func() *fake
	}{
		"larger, dripping":  {lied(data, 1), func() *fake { return dripping("liar", append(bytes.Clone(data), 'x')) }},
		"smaller, dripping": {lied(data, -1), func() *fake { return dripping("liar", data[:len(data)-1]) }},
		"larger":            {lied(data, 1), func() *fake { return &fake{name: "liar", data: append(bytes.Clone(data), 'x')} }},
		"smaller":           {lied(data, -1), func() *fake { return &fake{name: "liar", data: data[:len(data)-1]} }},
		"hanging":           {lied(data, 1), func() *fake { return always("liar", data, reply{delay: time.Hour}) }},
		"of another size":   {lied(data, 1), func() *fake { return &fake{name: "liar", data: data} }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				liar := c.src()
				told := make(chan error, 1)
				go func() {
					_, _, err := get(s, c.blob, liar)
					told <- err
				}()
				time.Sleep(10 * time.Second)
				began := time.Now()
				wantData(t, s, blobOf(data), data, Miss, &fake{name: "honest", data: data})
				if took := time.Since(began); took != 0 {
					t.Errorf("took %v", took)
				}
				err := <-told
				if err == nil {
					t.Error("a file of a wrong size was given out")
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("the wrong one ended after %v, with %v", took, err)
				}
				synctest.Wait()
				wantData(t, s, blobOf(data), data, Hit)
				_, _, err = get(s, c.blob, liar)
				wantError(t, err, verify.ErrMismatch)
				if left, _ := os.ReadDir(s.dir.partials()); len(left) > 0 || len(s.Partials()) > 0 || len(s.Fills()) > 0 {
					t.Errorf("left: %v, %v, %v", left, s.Partials(), s.Fills())
				}
				if s.Stats().Bytes() != int64(len(data)) || s.Stats().Booked != 0 {
					t.Errorf("account: %+v", s.Stats())
				}
				if n := failures(s, "honest", whereDigest) + failures(s, "honest", whereSize); n != 0 {
					t.Error("the honest source was blamed")
				}
			})
		})
	}
}

// Who has been given bytes of the wrong size is cut as soon as the right file is there.
func TestWrongSizeIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		liar := always("liar", append(bytes.Clone(data), 'x'), reply{stall: 200_000, gate: make(chan struct{})})
		r := open(t, s, lied(data, 1), liar)
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, blobOf(data), data, Miss, &fake{name: "honest", data: data})
		_, err := io.ReadAll(r)
		wantError(t, err, verify.ErrMismatch)
	})
}

// A manifest may lie of the md5, too.
func TestWrongMD5HidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		wrong := blobOf(data)
		wrong.Want.MD5 = make([]byte, 16)
		gate := make(chan struct{})
		r := open(t, s, wrong, always("a", data, reply{stall: 1000, gate: gate}))
		defer r.Close()
		wantData(t, s, blobOf(data), data, Miss, &fake{name: "b", data: data})
		synctest.Wait()
		right := blobOf(data)
		right.Want.MD5 = md5Of(data)
		wantData(t, s, right, data, Hit)
		_, err := io.ReadAll(r)
		wantError(t, err, verify.ErrMismatch)
	})
}

// A fill of unknown size is joined by requests for the size that its source tells, and joins no other fill.
func TestSizeUnknownIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		unknown := blobOf(data)
		unknown.Want.Size = 0
		gate := make(chan struct{})
		src := always("a", data, reply{stall: 1000, gate: gate})
		first := open(t, s, unknown, src)
		defer first.Close()
		second := open(t, s, blobOf(data), &fake{name: "b", data: data})
		defer second.Close()
		if second.Result() != Join {
			t.Errorf("result %s", second.Result())
		}
		other := always("liar", data[:100_000], reply{})
		_, _, err := get(s, lied(data, -200_000), other)
		wantError(t, err, verify.ErrMismatch)
		wantAsked(t, other, 0) // it was a download of its own
		close(gate)
		for _, r := range []*Reader{first, second} {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
		wantAsked(t, src, 0)
	})
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		unknown := blobOf(data)
		unknown.Want.Size = 0
		r := open(t, s, lied(data, 1), dripping("liar", append(bytes.Clone(data), 'x')))
		defer r.Close()
		wantData(t, s, unknown, data, Miss, &fake{name: "honest", data: data})
	})
}

// Two downloads of one sha1 have a partial file each, which each goes on with, also after a restart.
func TestPartialFilesOfOneSum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data, longer := noise(1, 300_000), noise(2, 300_001)
		long := blobOf(longer)
		long.Want.SHA1 = sumOf(data)
		half := func(b Blob, data []byte, at int) *Reader {
			t.Helper()
			r := open(t, s, b, always("a", data, reply{stall: at}))
			if _, err := io.ReadFull(r, make([]byte, at)); err != nil {
				t.Fatal(err)
			}
			return r
		}
		r1, r2 := half(blobOf(data), data, 200_000), half(long, longer, 150_000)
		closeStore(t, s)
		r1.Close()
		r2.Close()
		s = reopen(t, s)
		left := s.Partials()
		slices.SortFunc(left, func(a, b Partial) int { return int(a.Size - b.Size) })
		sum := sumOf(data)
		want := []Partial{{Sum: sum, Size: 300_000, Have: 200_000}, {Sum: sum, Size: 300_001, Have: 150_000}}
		if !slices.Equal(left, want) {
			t.Fatalf("Partials = %+v, want %+v", left, want)
		}
		if n := s.Unfinished(blobOf(data)) + s.Unfinished(long); n != 350_000 {
			t.Errorf("Unfinished: %d bytes in all", n)
		}
		liar, honest := &fake{name: "liar", data: longer}, &fake{name: "honest", data: data}
		_, _, err := get(s, long, liar)
		wantError(t, err, verify.ErrMismatch)
		wantData(t, s, blobOf(data), data, Miss, honest)
		wantAsked(t, liar, 150_000, 0) // once more from the start, since the leftover might have been to blame
		wantAsked(t, honest, 200_000)
		synctest.Wait()
		if left, _ := os.ReadDir(s.dir.partials()); len(left) > 0 || s.Stats().Unfinished != 0 {
			t.Errorf("left: %v, account %+v", left, s.Stats())
		}
	})
}

// Remove and eviction take all that is left of a sha1's downloads.
func TestRemovePartialsOfOneSum(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1000)
	leave(t, s, blobOf(data).partialName(), data[:500])
	leave(t, s, lied(data, 1).partialName(), data[:400])
	leave(t, s, sumOf(data).String(), data[:300])
	closeStore(t, s)
	s = reopen(t, s)
	if plan := s.plan(need{should: 1 << 20}); len(plan) != 3 {
		t.Errorf("plan %+v", plan)
	}
	if e, err := s.Remove(context.Background(), sumOf(data)); err != nil || e.Size != 1200 || len(s.Partials()) != 0 {
		t.Errorf("%+v, %v, left %v", e, err, s.Partials())
	}
	if left, _ := os.ReadDir(s.dir.partials()); len(left) > 0 || s.Stats().Bytes() != 0 {
		t.Errorf("left: %v, account %+v", left, s.Stats())
	}
}

// What an earlier version left, named by the sha1 alone, is gone on with by the first that it may belong to.
func TestPartialOfEarlierVersion(t *testing.T) {
	data := noise(1, 300_000)
	old := sumOf(data).String()
	for name, c := range map[string]struct {
		blob Blob
		data []byte
		from int64
	}{
		"known size":     {blobOf(data), data, 200_000},
		"no size":        {Blob{Want: verify.Want{SHA1: sumOf(data)}}, data, 200_000},
		"a wrong one":    {blobOf(data), flip(data, 5), 200_000},
		"too long to be": {blobOf(data), append(bytes.Clone(data), data...), 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			have := min(len(c.data), 200_000)
			if c.from == 0 {
				have = len(c.data)
			}
			leave(t, s, old, c.data[:have])
			closeStore(t, s)
			s = reopen(t, s)
			if left := s.Partials(); len(left) != 1 || left[0] != (Partial{Sum: sumOf(data), Have: int64(have)}) {
				t.Fatalf("Partials = %+v", left)
			}
			src := &fake{name: "a", data: data}
			for range 2 { // a wrong leftover may cost those who have been given of it
				if got, _, err := get(s, c.blob, src); err == nil && !bytes.Equal(got, data) {
					t.Fatalf("%d other bytes", len(got))
				}
			}
			s.Idle()
			wantData(t, s, c.blob, data, Hit)
			if asked := src.asked(); asked[0] != c.from {
				t.Errorf("asked from %v, want %d", asked, c.from)
			}
			if left, _ := os.ReadDir(s.dir.partials()); len(left) > 0 || s.Stats().Bytes() != int64(len(data)) {
				t.Errorf("left: %v, account %+v", left, s.Stats())
			}
		})
	}
}

func TestParsePartial(t *testing.T) {
	sum := sumOf([]byte("x"))
	f := func(name string, ok bool, size int64) {
		t.Helper()
		left, got := parsePartial(name)
		if got != ok || ok && (left.Sum != sum || left.Size != size) {
			t.Errorf("%q: %+v, %v", name, left, got)
		}
	}
	f(sum.String(), true, 0)
	f(sum.String()+"-0", true, 0)
	f(sum.String()+"-42", true, 42)
	f(sum.String()+"-42-00112233445566778899aabbccddeeff", true, 42)
	for _, bad := range []string{"-", "-x", "--1", "-042", "-+1", "-42-", "-42-00", "-42-00112233445566778899AABBCCDDEEFF", "-99999999999999999999"} {
		f(sum.String()+bad, false, 0)
	}
	f("key-0", false, 0)
}
