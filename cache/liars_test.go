package cache

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// With all its sources known to have just lied, a file is refused at once, and none of them is asked, for a minute.
func TestLiesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		a, b := always("a", flip(data, 5), reply{}), always("b", nil, reply{data: data[:200_000], noSize: true})
		refused := func(b Blob, sources ...Source) {
			t.Helper()
			began := time.Now()
			_, err := s.File(t.Context(), b, sources)
			wantError(t, err, verify.ErrMismatch)
			var wrong *WrongBytesError
			if !errors.As(err, &wrong) || len(wrong.Sources) != len(sources) || time.Since(began) != 0 {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}
		lies := func(fakes ...*fake) {
			t.Helper()
			_, _, err := get(s, blobOf(data), fakes...)
			wantError(t, err, verify.ErrMismatch)
			synctest.Wait()
		}
		lies(a)
		for range 3 {
			refused(blobOf(data), a.source())
		}
		wantAsked(t, a, 0)
		if _, _, err := get(s, blobOf(data), a, b); err == nil { // another source there is, which ends too early
			t.Fatal("no error")
		}
		synctest.Wait()
		wantAsked(t, a, 0)
		refused(blobOf(data), a.source(), b.source())

		time.Sleep(lieMemory)
		lies(a)
		wantAsked(t, a, 0, 0)
		honest := &fake{name: "honest", data: data}
		wantData(t, s, blobOf(data), data, Miss, a, honest)
		wantAsked(t, a, 0, 0)
	})
}

// An operator's download asks again, and so does one after the source has said something else of the image.
func TestLiesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, change := range map[string]func(*Blob, *Source){
			"once":     func(_ *Blob, s *Source) { s.Once = true }, // another body
			"job":      func(b *Blob, _ *Source) { b.Why = Job },
			"manifest": func(_ *Blob, s *Source) { s.Said = []byte("another") },
			"size":     func(b *Blob, _ *Source) { b.Want.Size = 0 }, // another download
		} {
			s := openStore(t, Options{})
			data := noise(1, 300_000)
			src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
				if try == 1 {
					return reply{data: flip(data, 5)}
				}
				return reply{}
			}}
			_, _, err := get(s, blobOf(data), src)
			wantError(t, err, verify.ErrMismatch)
			synctest.Wait()
			b, source := blobOf(data), src.source()
			change(&b, &source)
			r, err := s.File(t.Context(), b, []Source{source})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := r.Stored(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			r.Close()
		}
	})
}

// With the honest source down, the liar does not cost each client a download; and what cost none is not remembered.
func TestLiarIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		liar, down := always("liar", flip(data, 5), reply{}), always("down", data, reply{err: errDown})
		for range 3 {
			if _, _, err := get(s, blobOf(data), liar, down); err == nil {
				t.Fatal("no error")
			}
			synctest.Wait()
		}
		wantAsked(t, liar, 0)

		claims := &fake{name: "claims", data: data[:1000]} // a size that is wrong at first sight
		for range 3 {
			_, _, err := get(s, blobOf(data), claims)
			wantError(t, err, verify.ErrMismatch)
			synctest.Wait()
		}
		wantAsked(t, claims, 0, 0, 0)
	})
}

// A wrong leftover of an earlier download is not the source's lie.
func TestWrongLeftoverIsNoLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		closeStore(t, s)
		leave(t, s, blobOf(data).partialName(), flip(data, 5)[:200_000])
		s = reopen(t, s)
		src := &fake{name: "a", data: data}
		got, _, err := get(s, blobOf(data), src)
		if err == nil && !bytes.Equal(got, data) {
			t.Fatal("wrong bytes")
		}
		synctest.Wait()
		wantData(t, s, blobOf(data), data, Hit)
		if !slices.Equal(src.asked(), []int64{200_000, 0}) || len(s.liars) != 0 {
			t.Errorf("asked at %v, liars %v", src.asked(), s.liars)
		}
		if failures(s, "a", whereDigest) != 0 || failures(s, sourceDisk, whereDigest) != 1 {
			t.Error("the source was blamed")
		}
	})
}
