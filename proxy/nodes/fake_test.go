package nodes

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// fakeNotes are notes in memory.
type fakeNotes struct {
	sync.Mutex
	all      map[string][]byte
	err      error
	writes   int
	largest  int // bytes of one write
	puts     int // notes
	unsealed func()
}

func (f *fakeNotes) All() (map[string][]byte, error) {
	f.Lock()
	defer f.Unlock()
	return maps.Clone(f.all), f.err
}

func (f *fakeNotes) Write(put map[string][]byte, remove []string) error {
	if f.unsealed != nil {
		f.unsealed()
	}
	f.Lock()
	defer f.Unlock()
	if f.err != nil {
		return f.err
	}
	if f.all == nil {
		f.all = make(map[string][]byte)
	}
	size := 0
	for key, value := range put {
		size += len(key) + len(value)
		f.all[key] = bytes.Clone(value)
	}
	for _, key := range remove {
		delete(f.all, key)
	}
	f.writes++
	f.puts += len(put)
	f.largest = max(f.largest, size)
	return nil
}

func (f *fakeNotes) fail(err error) {
	f.Lock()
	defer f.Unlock()
	f.err = err
}

func (f *fakeNotes) len() int {
	f.Lock()
	defer f.Unlock()
	return len(f.all)
}

func testLog(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// now is the time of the tests' requests, of whole seconds.
var now = time.Now().Truncate(time.Second).UTC()

func newJournal(t testing.TB, notes Notes, limits Limits) *Journal {
	t.Helper()
	if limits == (Limits{}) {
		limits = Limits{Keep: 30 * 24 * time.Hour, Max: 10000}
	}
	j := New(Options{Limits: limits, Notes: notes, Logger: testLog(t)})
	j.load() // as Run does first
	return j
}

// address is the n-th of 2^32 addresses: every other one is of IPv6.
func address(n int) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint32(b[12:], uint32(n))
	if n%2 == 0 {
		b[12] |= 10
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	b[0], b[1] = 0xfd, 0x12
	return netip.AddrFrom16(b)
}

func imageID(n int) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

// fetch is a request for all of an image.
func fetch(node, image int, result string) *Request {
	return &Request{
		Address: address(node), Agent: "imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u)", Ended: now, Took: 2 * time.Second,
		Kind: File, Result: result, Image: imageID(image), Sent: 1000, Size: 1000,
	}
}

func (r *Request) with(change func(*Request)) *Request {
	change(r)
	return r
}

// wantNodes lists the nodes that q picks, by their numbers, in order.
func wantNodes(t testing.TB, j *Journal, q Query, total int, numbers ...int) {
	t.Helper()
	page, all := j.List(q)
	var got, want []netip.Addr
	for _, n := range page {
		got = append(got, n.Address)
	}
	for _, n := range numbers {
		want = append(want, address(n))
	}
	if all != total || !equal(got, want) {
		t.Errorf("%+v: %v of %d, want %v of %d", q, got, all, want, total)
	}
}

func equal(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
