package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

// errGone and errForbidden are what sources say that refuse.
var (
	errGone      = fmt.Errorf("404: %w", fs.ErrNotExist)
	errForbidden = fmt.Errorf("403: %w", fs.ErrPermission)
)

// refusing serves up to the cut at its first request, then refuses a few times.
func refusing(name string, data []byte, cut, times int, why error) *fake {
	return &fake{name: name, data: data, reply: func(try int, _ int64) reply {
		switch {
		case try == 1:
			return reply{cut: cut}
		case try <= 1+times:
			return reply{err: why}
		}
		return reply{}
	}}
}

// A source that was just sending the file, and refuses its rest, is asked again as one that broke is.
func TestRefusedInMidFile(t *testing.T) {
	data := noise(1, 1<<20)
	const cut = 400_000
	for _, why := range []error{errGone, errForbidden} {
		for times := range dryPasses {
			t.Run(fmt.Sprint(why, ", times ", times), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, Options{})
					src := refusing("a", data, cut, times, why)
					wantData(t, s, blobOf(data), data, Miss, src)
					if n := len(src.asked()); n != 2+times {
						t.Errorf("asked %d times, want %d", n, 2+times)
					}
				})
			})
		}
		t.Run(fmt.Sprint(why, ", for good"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				src := refusing("a", data, cut, 1000, why)
				began := time.Now()
				got, _, err := get(s, blobOf(data), src)
				if err == nil || len(got) != cut || errors.Is(err, fs.ErrNotExist) != errors.Is(why, fs.ErrNotExist) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				if took := time.Since(began); took < time.Second || took > time.Minute {
					t.Errorf("given up after %v", took)
				}
				if n := len(src.asked()); n != 1+dryPasses {
					t.Errorf("asked %d times, want %d", n, 1+dryPasses)
				}
				synctest.Wait()
				// What came is kept for a later download.
				wantData(t, s, blobOf(data), data, Miss, &fake{name: "b", data: data})
			})
		})
	}
}

// With another source there is no wait; refused by both, the one that was sending is asked again.
func TestRefusedInMidFileElsewhere(t *testing.T) {
	data := noise(1, 1<<20)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		a, b := refusing("a", data, 400_000, 1000, errForbidden), &fake{name: "b", data: data}
		began := time.Now()
		wantData(t, s, blobOf(data), data, Miss, a, b)
		wantAsked(t, b, 400_000)
		if took := time.Since(began); took > headStart {
			t.Errorf("took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		a, b := refusing("a", data, 400_000, 2, errForbidden), always("b", data, reply{err: errGone})
		wantData(t, s, blobOf(data), data, Miss, a, b)
		wantAsked(t, b, 400_000) // before any byte a refusal holds
	})
}

// What can be had only once is refused for good.
func TestRefusedInMidFileOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		once := refusing("a", data, 400_000, 1, errForbidden)
		src := once.source()
		src.Once = true
		began := time.Now()
		r, err := s.File(t.Context(), blobOf(data), []Source{src})
		if err == nil { // else the download has ended before the Reader was made
			defer r.Close()
			err = r.Stored(t.Context())
		}
		if err == nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wantAsked(t, once, 0, 400_000)
	})
}

// Before any byte a refusal is final, and told at once, also where an earlier download has left a part.
func TestRefusedAtOnce(t *testing.T) {
	data := noise(1, 1<<20)
	for _, why := range []error{errGone, errForbidden} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, Options{})
			src := always("a", data, reply{err: why})
			began := time.Now()
			if _, _, err := get(s, blobOf(data), src); err == nil || errors.Is(err, fs.ErrNotExist) != errors.Is(why, fs.ErrNotExist) {
				t.Errorf("%v", err)
			}
			if n, took := len(src.asked()), time.Since(began); n != 1 || took != 0 {
				t.Errorf("asked %d times, %v", n, took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		broken := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{cut: 400_000}
			}
			return reply{err: errDown}
		}}
		if _, _, err := get(s, blobOf(data), broken); err == nil {
			t.Fatal("no error")
		}
		synctest.Wait()
		src := always("b", data, reply{err: errGone})
		began := time.Now()
		_, _, err := get(s, blobOf(data), src)
		wantError(t, err, fs.ErrNotExist)
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		wantAsked(t, src, 400_000)
	})
}

// A reader that waits through the refusals gets its bytes.
func TestReaderWaitsThroughRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		r, err := s.File(t.Context(), blobOf(data), sources(refusing("a", data, 100_000, 3, errGone)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.SeekTo(500_000)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[500_000:]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}
