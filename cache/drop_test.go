package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// forJob is the blob of data as a job wants it.
func forJob(data []byte) Blob {
	b := blobOf(data)
	b.Why = Job
	return b
}

// open gives a Reader on a fill that has begun.
func open(t *testing.T, s *Store, b Blob, src *fake) *Reader {
	t.Helper()
	r, err := s.File(t.Context(), b, sources(src))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A fill that only clients want ends when the last of these clients leaves. The next request
// for the file goes on from there.
func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{stall: 500_000}
			}
			return reply{}
		}}
		one, two := open(t, s, forJob(data), src), open(t, s, forJob(data), src)
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if fills := s.Fills(); len(fills) != 1 || fills[0].Readers != 1 || fills[0].Have != 500_000 {
			t.Fatalf("Fills = %+v, want the one with a reader left", fills)
		}
		if err := two.Close(); err != nil {
			t.Fatal(err)
		}
		// The last one's Close has seen its end.
		if len(s.Fills()) != 0 || s.Stats().Booked != 0 {
			t.Errorf("Fills = %+v, account %+v", s.Fills(), s.Stats())
		}
		if p := s.Partials(); len(p) != 1 || p[0] != (Partial{Sum: sumOf(data), Size: int64(len(data)), Have: 500_000, Dropped: true}) {
			t.Errorf("Partials = %+v", p)
		}
		wantData(t, s, blobOf(data), data, Miss, src)
		wantAsked(t, src, 0, 500_000)
	})
}

// One who gives up before the first byte leaves too.
func TestDroppedBeforeAnyByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{FillSlots: 1})
		data := noise(1, 1000)
		src := always("a", data, reply{stall: -1})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		b := blobOf(data)
		b.Why, b.Want.Size = Job, 0
		go func() {
			r, err := s.File(ctx, b, []Source{{Name: "a", Open: src.open}})
			if err == nil {
				err = errors.Join(errors.New("a Reader"), r.Close())
			}
			done <- err
		}()
		synctest.Wait()
		r := open(t, s, b, src) // the fill has an answer by now
		cancel()
		<-done
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(s.Fills()) != 0 || len(s.Partials()) != 0 {
			t.Errorf("Fills = %+v, Partials = %+v", s.Fills(), s.Partials())
		}
	})
}

// A reader that wants the file in any case has the fill go on, also after the reader has left.
// The order of the readers makes no difference.
func TestNotDropped(t *testing.T) {
	for _, order := range []string{"client first", "client last"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				data := noise(1, 1<<20)
				gate := make(chan struct{})
				src := always("a", data, reply{stall: 500_000, gate: gate})
				first, second := blobOf(data), forJob(data)
				if order == "client last" {
					first, second = second, first
				}
				one := open(t, s, first, src)
				two := open(t, s, second, src)
				if err := errors.Join(one.Close(), two.Close()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				close(gate)
				synctest.Wait()
				wantData(t, s, blobOf(data), data, Hit)
				wantAsked(t, src, 0)
			})
		})
	}
}

// A request that comes while a fill is being dropped is served by the fill that follows.
func TestJoinsWhileDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 1<<20)
		src := &fake{name: "a", data: data, reply: func(try int, _ int64) reply {
			if try == 1 {
				return reply{stall: 500_000}
			}
			return reply{}
		}}
		ending := make(chan struct{})
		slow := src.source()
		slow.Open = func(ctx context.Context, offset int64) (*verify.Stream, error) {
			stream, err := src.open(ctx, offset)
			if err == nil {
				stream.ReadCloser = slowToEnd{stream.ReadCloser, ending}
			}
			return stream, err
		}
		r, err := s.File(t.Context(), forJob(data), []Source{slow})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		go r.Close() //nolint:errcheck // nothing was read
		synctest.Wait()
		got := make(chan error, 1)
		go func() {
			data2, _, err := get(s, blobOf(data), src)
			if err == nil && len(data2) != len(data) {
				err = io.ErrUnexpectedEOF
			}
			got <- err
		}()
		synctest.Wait()
		wantAsked(t, src, 0)
		close(ending)
		if err := <-got; err != nil {
			t.Error(err)
		}
		wantAsked(t, src, 0, 500_000)
	})
}

// slowToEnd is a body whose Close waits.
type slowToEnd struct {
	io.ReadCloser
	until <-chan struct{}
}

func (b slowToEnd) Close() error {
	<-b.until
	return b.ReadCloser.Close()
}

// An unfinished download that a fill has taken over is not removed, and one that
// cannot be removed stays in the books.
func TestRemovePartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		data := noise(1, 300_000)
		halfway(t, s, data, 200_000)
		s = reopen(t, s)
		path := s.dir.partial(blobOf(data).partialName())
		if err := errors.Join(os.Rename(path, path+"x"), os.MkdirAll(path+"/full", 0o755)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(t.Context(), sumOf(data)); err == nil {
			t.Error("what cannot be removed was removed")
		}
		if len(s.Partials()) != 1 || s.Stats().Unfinished != 200_000 {
			t.Errorf("Partials = %v, account %+v", s.Partials(), s.Stats())
		}
		if err := errors.Join(os.RemoveAll(path), os.Rename(path+"x", path)); err != nil {
			t.Fatal(err)
		}

		plan := s.plan(need{should: 1})
		gate := make(chan struct{})
		src := always("a", data, reply{stall: 1000, gate: gate})
		r := open(t, s, blobOf(data), src)
		defer r.Close()
		if gone := s.evict(plan); len(plan) != 1 || len(gone) != 0 {
			t.Errorf("plan %v, gone %v", plan, gone)
		}
		if _, err := s.Remove(t.Context(), sumOf(data)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Remove of what is being filled: %v", err)
		}
		close(gate)
		if err := r.Stored(t.Context()); err != nil {
			t.Error(err)
		}
		wantAsked(t, src, 200_000)
	})
}
