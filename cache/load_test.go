package cache

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/verify"
)

// crowd is many small files, and clients that ask for them at random, some files
// far more often than others.
type crowd struct {
	blobs []Blob
	total int64
}

// content is file i: its number, again and again.
func content(i int) []byte {
	data := make([]byte, 1000+(i*7919)%4000)
	for at := 0; at+8 <= len(data); at += 8 {
		binary.BigEndian.PutUint64(data[at:], uint64(i))
	}
	return data
}

func newCrowd(n int) *crowd {
	c := &crowd{}
	for i := range n {
		data := content(i)
		c.blobs = append(c.blobs, blobOf(data))
		c.total += int64(len(data))
	}
	return c
}

func (c *crowd) source(i int) Source {
	return Source{Name: "a", Open: func(_ context.Context, offset int64) (*verify.Stream, error) {
		f := &fake{name: "a", data: content(i)}
		return f.open(context.Background(), offset)
	}}
}

// ask has clients ask until more says no; each answer must be right.
func (c *crowd) ask(t *testing.T, s *Store, clients int, more func() bool) {
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for more() && !t.Failed() {
				i := int(math.Pow(r.Float64(), 2) * float64(len(c.blobs)))
				rd, err := s.File(context.Background(), c.blobs[i], []Source{c.source(i)})
				if err != nil {
					t.Errorf("file %d: %v", i, err)
					return
				}
				got, err := io.ReadAll(rd)
				if err != nil || string(got) != string(content(i)) {
					t.Errorf("file %d: %d bytes, %v", i, len(got), err)
				}
				rd.Close()
			}
		})
	}
	all.Wait()
}

// Clients who want twice of what may be stored: the limit holds at every moment,
// nobody gets an error, and the index equals the disk at the end.
func TestLimitHoldsUnderLoad(t *testing.T) {
	const clients = 16
	files, requests := 10_000, int64(12_000)
	if testing.Short() {
		files, requests = 1000, 3000
	}
	c := newCrowd(files)
	limit := c.total / 2
	s := openStore(t, Options{MaxSize: limit, FillSlots: clients, Logger: slog.New(slog.DiscardHandler)})
	var highest atomic.Int64
	s.step = func(string) {
		stats := s.Stats()
		used := stats.Bytes() + stats.Booked
		for have := highest.Load(); used > have && !highest.CompareAndSwap(have, used); have = highest.Load() {
		}
	}
	var asked atomic.Int64
	began := time.Now()
	c.ask(t, s, clients, func() bool { return asked.Add(1) <= requests })
	took := time.Since(began)
	s.Idle()
	if highest.Load() > limit {
		t.Errorf("%d bytes were in use, %d are the limit", highest.Load(), limit)
	}
	evicted := evictions(s, ReasonMaxSize)
	if evicted == 0 {
		t.Error("nothing was evicted")
	}
	t.Logf("%d requests in %s: %d hits, %d fills, %d evictions, at most %d of %d bytes",
		requests, took.Round(time.Millisecond), s.requests(Hit), s.requests(Miss), evicted, highest.Load(), limit)
	wantIndexed(t, s)
	size := s.Stats().Bytes()
	s = reopenLater(t, s)
	wantIndexed(t, s)
	if s.Stats().Bytes() != size || len(s.orphans) != 0 {
		t.Errorf("after a restart %d bytes, want %d; %d files without a record", s.Stats().Bytes(), size, len(s.orphans))
	}
}

// wantIndexed is wantConsistent for files that belong to no image.
func wantIndexed(t *testing.T, s *Store) {
	t.Helper()
	wantConsistent(t, s)
	if left, err := os.ReadDir(s.dir.partials()); err != nil || len(left) != len(s.Partials()) {
		t.Errorf("%d files in partial/, %v; %d known", len(left), err, len(s.Partials()))
	}
}

// A process that is killed while it fills and evicts leaves a folder in which,
// once the next one has looked through it, the index equals the disk.
func TestKilledUnderLoad(t *testing.T) {
	const variable = "IMGMIRROR_TEST_KILLED_DIR"
	c := newCrowd(1000)
	o := Options{MaxSize: c.total / 2, FillSlots: 16, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}
	if dir := os.Getenv(variable); dir != "" { // the one to be killed
		o.Dir = dir
		s, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		var evicted atomic.Int64
		s.o.OnRemove = func(Evicted) {
			if evicted.Add(1) == 200 {
				os.Stdout.WriteString("evicting\n")
			}
		}
		c.ask(t, s, 16, func() bool { return true })
		return
	}
	o.Dir = t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestKilledUnderLoad$")
	child.Env = append(os.Environ(), variable+"="+o.Dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(out, make([]byte, len("evicting\n")))
	if killed := child.Process.Kill(); err != nil || killed != nil {
		t.Fatal(err, killed)
	}
	child.Wait() //nolint:errcheck // it was killed

	s := openStore(t, o)
	for sum := range s.orphans {
		if err := s.adopt(t.Context(), sum); err != nil {
			t.Errorf("adopt %s: %v", sum, err)
		}
	}
	wantIndexed(t, s)
	if used := s.Stats().Bytes(); used > o.MaxSize || used == 0 {
		t.Errorf("%d bytes are stored, %d are the limit", used, o.MaxSize)
	}
	for i, b := range c.blobs {
		if _, ok := s.Peek(b); ok {
			wantData(t, s, b, content(i), Hit)
		}
	}
}
