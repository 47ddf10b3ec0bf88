package nodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/cache"
)

// The room of the journal with 10,000 nodes, each as large as can be.
const (
	memoryRoom = 32 << 20
	diskRoom   = 160 << 20 // of the whole index, while the index is being written
)

// heap is what lives on the heap.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// folderSize is what a folder takes on the disk; files with holes count by their blocks.
func folderSize(t testing.TB, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return nil
		}
		info, err := os.Stat(path)
		if err == nil {
			size += blocks(info)
		}
		if errors.Is(err, fs.ErrNotExist) { // badger has removed a table
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// largest is the n-th of requests that make every node as large as it can be.
func largest(n int) *Request {
	const nodes = 10000
	r := fetch(n%nodes, n/nodes, "join")
	r.Sent, r.Size, r.Took = 1<<50, 1<<50, time.Hour
	r.Agent = fmt.Sprintf("%-*d", MaxAgent, n)
	return r
}

// A million requests of 10,000 addresses, each with as many images as the journal keeps, and more,
// and a user agent of its own: the folder of the index stays in its room, and a restart finds all.
func TestRoomOfAMillion(t *testing.T) {
	dir := t.TempDir()
	open := func() *cache.Store {
		t.Helper()
		s, err := cache.Open(context.Background(), cache.Options{Dir: dir, Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	j := newJournal(t, s.Notes("nodes"), Limits{})
	most := int64(0)
	for n := range 1_000_000 {
		j.take(largest(n))
		if n%200_000 == 199_999 {
			j.flush(math.MaxInt)
			most = max(most, folderSize(t, filepath.Join(dir, "index")))
		}
	}
	t.Logf("the index takes at most %d MiB", most>>20)
	if most > diskRoom {
		t.Errorf("the index took %d MiB of disk", most>>20)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close() //nolint:errcheck // only read
	j = newJournal(t, s.Notes("nodes"), Limits{})
	n, fetches, ok := j.Node(address(9999))
	if used, _, _ := j.Room(); used != 10000 || !ok || n.Files != 100 || len(fetches) != MaxImages || strings.TrimSpace(n.Agent) != "999999" {
		t.Errorf("after a restart: %d nodes, %+v with %d images", used, n, len(fetches))
	}
}

// The journal alone, without an index, stays in its room.
func TestMemory(t *testing.T) {
	before := heap()
	j := newJournal(t, new(fakeNotes), Limits{})
	for n := range 490_000 {
		j.take(largest(n))
	}
	used := heap() - before
	if len(j.nodes) != 10000 || used > memoryRoom {
		t.Errorf("%d nodes take %d MiB", len(j.nodes), used>>20)
	}
	t.Logf("%d nodes take %d KiB, one note has %d bytes", len(j.nodes), used>>10, len(j.seen.next.encode()))
	if size := len(j.seen.next.encode()); size*batchNodes > 400<<10 {
		t.Errorf("a note of %d bytes: a write of %d nodes is more than one transaction", size, batchNodes)
	}
}

func BenchmarkNote(b *testing.B) {
	j := New(Options{Limits: Limits{Keep: time.Hour, Max: 10000}, Notes: new(fakeNotes)})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- j.Run(ctx) }()
	r := *fetch(1, 1, "hit")
	for b.Loop() {
		j.Note(r)
	}
	b.ReportMetric(testutil.ToFloat64(j.dropped)/float64(b.N), "dropped/op")
	stop()
	<-ended
}

func BenchmarkTake(b *testing.B) {
	j := New(Options{Limits: Limits{Keep: time.Hour, Max: 10000}, Notes: new(fakeNotes)})
	for n := 0; b.Loop(); n++ {
		j.take(largest(n))
	}
}

func BenchmarkList(b *testing.B) {
	j := New(Options{Limits: Limits{Keep: time.Hour, Max: 10000}, Notes: new(fakeNotes)})
	for n := range 490_000 {
		j.take(largest(n))
	}
	for b.Loop() {
		j.List(Query{Lacks: imageID(3), Sort: "saved", Limit: 100})
	}
}
