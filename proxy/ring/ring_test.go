package ring

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// put puts a value in.
func put[T any](r *Ring[T], v T) bool {
	p := r.Claim()
	if p == nil {
		return false
	}
	p.Value = v
	r.Publish(p)
	return true
}

// take takes a value out.
func take[T any](r *Ring[T]) (v T, ok bool) {
	p := r.Next()
	if p == nil {
		return v, false
	}
	v = p.Value
	r.Release(p)
	return v, true
}

// Values come out in their order, and a full ring takes no value until one has come out.
func TestOrderAndRoom(t *testing.T) {
	r := New[int](8)
	in, out := 0, 0
	for round := range 5 {
		for put(r, in) {
			in++
		}
		if r.Len() != 8 || in-out != 8 {
			t.Fatalf("a full ring has %d values, %d were put in", r.Len(), in-out)
		}
		for range round + 1 {
			v, ok := take(r)
			if !ok || v != out {
				t.Fatalf("value %d is %d, %v", out, v, ok)
			}
			out++
		}
	}
	for v, ok := take(r); ok; v, ok = take(r) {
		if v != out {
			t.Fatalf("value %d is %d", out, v)
		}
		out++
	}
	if r.Len() != 0 || out != in {
		t.Errorf("%d of %d values came out, %d are left", out, in, r.Len())
	}
}

// A value that is still being written holds back the later ones.
func TestClaimedValueIsNotThere(t *testing.T) {
	r := New[string](4)
	first := r.Claim()
	put(r, "second")
	if p := r.Next(); p != nil || r.waiting() {
		t.Fatalf("%v is there", p)
	}
	first.Value = "first"
	r.Publish(first)
	for _, want := range []string{"first", "second"} {
		if v, _ := take(r); v != want {
			t.Errorf("%q, want %q", v, want)
		}
	}
}

// Many writers at once: each value comes out once, and those of one writer in their order.
func TestManyWriters(t *testing.T) {
	type value struct{ writer, n int }
	const writers, each = 6, 20_000
	r := New[value](64)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := 0; n < each; {
				if put(r, value{w, n}) {
					n++
				} else {
					runtime.Gosched()
				}
			}
		})
	}
	var next [writers]int
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		writing.Wait()
		stop()
	}()
	r.Run(ctx, time.Millisecond, func() {
		for v, ok := take(r); ok; v, ok = take(r) {
			if v.n != next[v.writer] {
				t.Errorf("writer %d: value %d, want %d", v.writer, v.n, next[v.writer])
			}
			next[v.writer] = v.n + 1
		}
	})
	for w, n := range next {
		if n != each {
			t.Errorf("writer %d: %d values", w, n)
		}
	}
}

// Run sleeps without values, gathers for its time, takes at once what fills half of the ring, and takes
// the rest at the end.
func TestRunGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[int](16)
		var mu sync.Mutex
		var taken []int // how many each time
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			r.Run(ctx, time.Second, func() {
				n := 0
				for _, ok := take(r); ok; _, ok = take(r) {
					n++
				}
				mu.Lock()
				defer mu.Unlock()
				taken = append(taken, n)
			})
		})
		expect := func(want ...int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(taken, want) {
				t.Fatalf("taken %v, want %v", taken, want)
			}
		}
		time.Sleep(time.Hour)
		expect()
		put(r, 1)
		put(r, 2)
		time.Sleep(999 * time.Millisecond)
		expect()
		time.Sleep(time.Millisecond)
		expect(2)
		time.Sleep(time.Hour)
		expect(2)
		put(r, 3)
		synctest.Wait()
		for range 5 { // the eighth value since the start
			put(r, 4)
		}
		expect(2, 6)
		put(r, 5)
		stop()
		running.Wait()
		expect(2, 6, 1)
	})
}

func TestSizeIsAPowerOfTwo(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a ring of 12 places")
		}
	}()
	New[int](12)
}

// Put and take, against a channel of the same size.
func BenchmarkPut(b *testing.B) {
	type value [3]uint64
	b.Run("channel", func(b *testing.B) {
		c := make(chan value, 4096)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				select {
				case c <- value{}:
				default:
					<-c
				}
			}
		})
	})
	b.Run("ring", func(b *testing.B) {
		r := New[value](4096)
		var taking sync.Mutex
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if put(r, value{}) {
					continue
				}
				taking.Lock()
				for range 1024 {
					take(r)
				}
				taking.Unlock()
			}
		})
	})
}
