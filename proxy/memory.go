package proxy

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/proxy/catalog"
	"imgmirror/proxy/meaning"
)

// ConnectionMemory is the most memory, in bytes, that one open connection takes beside
// Options.Memory: fasthttp's buffers, the request, a small reply and the goroutine. A TLS connection
// takes ConnectionMemoryTLS. The kernel's socket buffers are not part of either.
const (
	ConnectionMemory    = 64 << 10
	ConnectionMemoryTLS = 128 << 10
)

// smallBody is the most bytes of a reply that has a copy of its own in its connection's memory.
// Larger bodies are sent from prepared texts, or count in Options.Memory.
const smallBody = 16 << 10

// memoryRetry is the Retry-After of a reply that Options.Memory has no room for.
const memoryRetry = 5 * time.Second

// errOldList ends replies with a list that newer lists have replaced.
var errOldList = errors.New("newer lists have taken the memory of this one")

// memory is the account of what replies under way hold, in bytes: bodies of single replies, and
// lists that newer lists have replaced while clients still read the old ones. Lists in use count
// nothing: the catalogue has them anyway, and all of their readers share them.
type memory struct {
	limit   int64
	used    prometheus.Gauge
	refused map[string]prometheus.Counter // by reason: memory, old_list

	conns *conns // for the readers of a text

	mu     sync.Mutex
	bodies int64                 // of single replies
	old    int64                 // of booked
	booked map[*sharedText]int64 // replaced texts with readers, but for those that were cut, and their sizes
	latest map[textKind]*sharedText
}

// textKind names one of the prepared texts; their number follows from the configured channels.
type textKind struct {
	form     textForm
	channel  string
	named    bool
	encoding catalog.Encoding
}

type textForm uint8

const (
	formImages textForm = iota
	formDatasets
	formPaths
)

// sharedText is the account of a prepared text. It lives as long as the text, in the text's Account.
type sharedText struct {
	size    atomic.Int64 // of the text, and of the places of its elements once they are known
	readers atomic.Int64 // clients whose reading is this text
	state   atomic.Int32 // written with memory.mu held
	// progress is when a reader began or took a part last, in Unix nanoseconds. Whole lists go out
	// in one part.
	progress atomic.Int64
	file     textFile     // for the event loops
	inFiles  atomic.Int64 // bytes of file
}

// The states of a sharedText.
const (
	textNew      = iota
	textLatest   // of its kind
	textReplaced // by a newer one of its kind
	textCut      // replaced, and its readers were cut
)

// sharedOf gives the account of a text of size bytes.
func sharedOf(account *catalog.Account, size int) *sharedText {
	for {
		if t, ok := account.Load().(*sharedText); ok {
			if int64(size) > t.size.Load() {
				t.size.Store(int64(size))
			}
			return t
		}
		account.CompareAndSwap(nil, new(sharedText))
	}
}

func (m *memory) init(limit int64, c *conns, used prometheus.Gauge, refused map[string]prometheus.Counter) {
	m.limit, m.conns, m.used, m.refused = limit, c, used, refused
	m.booked = make(map[*sharedText]int64)
	m.latest = make(map[textKind]*sharedText)
}

// take books n bytes for a new reply. A new reply goes before the readers of replaced lists. take
// fails, with an error for the client, if the replies under way need the memory.
func (m *memory) take(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bodies+n > m.limit {
		m.refused["memory"].Inc()
		return &apiError{status: 503, code: meaning.Unavailable, message: "too many replies are under way: ask again later"}
	}
	m.bodies += n
	m.shrink(0)
	return nil
}

// give returns n bytes that take booked.
func (m *memory) give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bodies -= n
	m.count()
}

// hold makes c a reader of t until release. t is the newest text of its kind: a text before, which is still
// being read, counts from now on. While the text stays the newest one, hold and release need no lock.
func (m *memory) hold(c *client, kind textKind, t *sharedText) {
	t.progress.Store(time.Now().UnixNano())
	c.reading.Store(t)
	t.readers.Add(1) // first, then state: who replaces t does it the other way round, so that one of the two sees the other
	if t.state.Load() == textLatest {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.latest[kind]
	if before == t {
		return
	}
	m.latest[kind] = t
	if t.state.Load() != textCut {
		m.unbook(t) // a request that began before a change of lists came after the change
		t.state.Store(textLatest)
	}
	if before == nil || before.state.Load() != textLatest {
		return
	}
	before.state.Store(textReplaced)
	if before.readers.Load() > 0 {
		m.booked[before] = before.size.Load() + before.inFiles.Load()
		m.old += m.booked[before]
		m.shrink(1)
	}
}

// release ends hold.
func (m *memory) release(c *client) {
	t := c.reading.Load()
	c.reading.Store(nil)
	t.readers.Add(-1)
	if t.state.Load() == textLatest {
		return
	}
	m.mu.Lock() // shrink may be about to close the connection: better now than during its next reply
	defer m.mu.Unlock()
	if t.readers.Load() == 0 {
		m.unbook(t)
		m.count()
	}
}

// unbook takes t out of the account; mu is held.
func (m *memory) unbook(t *sharedText) {
	m.old -= m.booked[t]
	delete(m.booked, t)
}

// shrink cuts the readers of replaced texts until the account is within its limit or only kept of
// the texts are left. The text of which no reader took anything for the longest time goes first. mu
// is held.
func (m *memory) shrink(kept int) {
	defer m.count()
	for m.bodies+m.old > m.limit && len(m.booked) > kept {
		var first *sharedText
		for t := range m.booked {
			if first == nil || t.progress.Load() < first.progress.Load() {
				first = t
			}
		}
		first.state.Store(textCut)
		m.unbook(first)
		for c := range m.conns.readers(first) {
			m.refused["old_list"].Inc()
			_ = rawConn(c.nc).Close() // the writer sees the error
		}
	}
}

// count shows the account; mu is held.
func (m *memory) count() { m.used.Set(float64(m.bodies + m.old)) }

// reserve is memory.take for req: a refusal says when to ask again.
func (s *Server) reserve(req *request, n int64) error {
	err := s.memory.take(n)
	if err != nil {
		req.set(hdrRetryAfter, strconv.Itoa(int(memoryRetry/time.Second)))
	}
	return err
}
