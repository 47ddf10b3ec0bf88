package cache

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// blackHole is a source to which no connection comes about.
func blackHole(name string) *fake {
	return &fake{name: name, reply: func(int, int64) reply { return reply{delay: 2 * time.Second, err: errDown} }}
}

// However many sources cannot be reached, the one behind them is.
func TestBehindBlackHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		good := &fake{name: "good", data: data}
		began := time.Now()
		wantData(t, s, blobOf(data), data, Miss, blackHole("a"), blackHole("b"), blackHole("c"), good)
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %s", took)
		}
		wantAsked(t, good, 0)
	})
}

func TestAllBlackHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		began := time.Now()
		_, _, err := get(s, blobOf(data), blackHole("a"), blackHole("b"), blackHole("c"), blackHole("d"))
		wantError(t, err, verify.ErrUnavailable)
		if took := time.Since(began); took > 2600*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

// A source that is slow to its first byte has its time, also beside others
// that refuse; of two that are slow the first to answer is taken, and the other
// one's answer goes unread.
func TestSlowBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		slow := always("slow", data, reply{delay: 19 * time.Second})
		wantData(t, s, blobOf(data), data, Miss, slow, blackHole("b"))
		wantAsked(t, slow, 0)

		data = noise(2, 1<<20)
		slow = always("slow", data, reply{delay: 19 * time.Second})
		quick := always("quick", data, reply{delay: 2 * time.Second})
		wantData(t, s, blobOf(data), data, Miss, slow, quick)
		wantAsked(t, slow, 0)
		wantAsked(t, quick, 0)
		if slow.bytes() != 0 {
			t.Errorf("%d bytes of the slow source", slow.bytes())
		}
	})
}

// A quick source is the only one to be asked.
func TestFirstOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		second := always("b", data, reply{})
		wantData(t, s, blobOf(data), data, Miss, always("a", data, reply{delay: 400 * time.Millisecond}), second)
		wantAsked(t, second)
	})
}

// A source that is called off although it has just answered is hung up on.
func TestCalledOffIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		closed := make(chan struct{})
		stubborn := Source{Name: "stubborn", Open: func(context.Context, int64) (*verify.Stream, error) {
			time.Sleep(time.Minute) // whatever happens
			return &verify.Stream{Size: int64(len(data)), ReadCloser: closer{func() { close(closed) }}}, nil
		}}
		r, err := s.File(t.Context(), blobOf(data), []Source{stubborn, always("b", data, reply{}).source()})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s) // waits for it
		<-closed
	})
}

type closer struct{ close func() }

func (c closer) Read([]byte) (int, error) { return 0, errors.New("not to be read") }
func (c closer) Close() error             { c.close(); return nil }

// A source that skips forward gives no bytes for long, and is alive.
func TestSkipsForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{cut: 1000}
			}
			return reply{skip: time.Minute}
		}}
		wantData(t, s, blobOf(data), data, Miss, src)
		wantAsked(t, src, 0, 1000)
	})
}
