package cache

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// goroutines gives the stacks of all goroutines; each begins with its number and " [".
func goroutines() []string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Split(string(stacks), "\n\n")
}

// Whatever sources and clients do, Close leaves nothing running.
func TestCloseLeavesNothing(t *testing.T) {
	before := make(map[string]bool) // tests of a disk that fails leave a database open
	for _, g := range goroutines() {
		name, _, _ := strings.Cut(g, " [")
		before[name] = true
	}
	s := openStore(t, Options{StallTimeout: 200 * time.Millisecond, FillSlots: 3})
	const manyTries = 25 // of all sources: then all kinds of trouble are under way
	var tries atomic.Int32
	busy := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 60 {
		data := noise(byte(i%12), 300_000)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		moody := func(name string) *fake {
			return &fake{name: name, data: data, reply: func(try int, _ int64) reply {
				if tries.Add(1) == manyTries {
					close(busy)
				}
				return []reply{
					{cut: 1 + try*50_000, pause: time.Millisecond}, {stall: 100_000}, {err: errDown}, {delay: time.Second}, {stall: -1},
					{chunk: 9000, pause: time.Millisecond},
				}[(try+len(name)+i)%6]
			}}
		}
		patience := time.Duration(rng.IntN(1500)) * time.Millisecond
		clients.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := s.File(ctx, blobOf(data), sources(moody("a"), moody("bb"), moody(fmt.Sprint("c", i))))
			if err != nil {
				return
			}
			defer r.Close()
			r.SeekTo(int64(rng.IntN(300_000)))
			r.Limit(int64(rng.IntN(300_000)))
			for ctx.Err() == nil {
				n, err := r.WaitContext(ctx)
				if err != nil {
					return
				}
				if _, err := r.SendTo(io.Discard, n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	select {
	case <-busy:
	case <-time.After(10 * time.Second):
		t.Errorf("only %d tries in 10 s", tries.Load())
	}
	closeStore(t, s)
	clients.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var left []string
		for _, g := range goroutines() {
			if name, _, _ := strings.Cut(g, " ["); before[name] {
				continue
			}
			if strings.Contains(g, "imgmirror/cache.") && !strings.Contains(g, "TestCloseLeavesNothing(") ||
				strings.Contains(g, "imgmirror/verify.") || strings.Contains(g, "dgraph-io/badger") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
	}
}
