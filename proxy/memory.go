package proxy

import (
	"errors"
	"net"
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

	mu     sync.Mutex
	bodies int64 // of single replies
	old    int64 // replaced texts with readers
	texts  map[*byte]*sharedText
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

// sharedText is a prepared text with readers, named by its first byte.
type sharedText struct {
	size     int64
	readers  map[*listReader]struct{}
	replaced bool
	cut      bool
	// progress is when a reader began or took a part last, in Unix nanoseconds. Whole lists go out
	// in one part.
	progress atomic.Int64
}

func (m *memory) init(limit int64, used prometheus.Gauge, refused map[string]prometheus.Counter) {
	m.limit, m.used, m.refused = limit, used, refused
	m.texts = make(map[*byte]*sharedText)
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

// listReader is one reply with a shared text.
type listReader struct {
	conn   net.Conn
	shared *sharedText
	key    *byte // names shared
}

// hold makes b a reader of text until release. text takes size bytes, and is the newest of its
// kind: a text before, which is still being read, counts from now on.
func (m *memory) hold(b *listReader, kind textKind, text []byte, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.texts[&text[0]]
	if t == nil {
		t = &sharedText{size: int64(size), readers: make(map[*listReader]struct{})}
		m.texts[&text[0]] = t
	}
	if !t.replaced {
		t.size = max(t.size, int64(size))
	}
	t.progress.Store(time.Now().UnixNano())
	t.readers[b] = struct{}{}
	b.shared, b.key = t, &text[0]
	before := m.latest[kind]
	if before == t {
		return
	}
	m.latest[kind] = t
	if t.replaced && !t.cut { // a request that began before a change of lists came after the change
		t.replaced = false
		m.old -= t.size
	}
	if before != nil && !before.replaced && len(before.readers) > 0 {
		before.replaced = true
		m.old += before.size
		m.shrink(1)
	}
}

// release ends hold.
func (m *memory) release(b *listReader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := b.shared
	delete(t.readers, b)
	if len(t.readers) > 0 {
		return
	}
	delete(m.texts, b.key)
	if t.replaced && !t.cut {
		m.old -= t.size
		m.count()
	}
}

// shrink cuts the readers of replaced texts until the account is within its limit or only kept of
// the texts are left. The text of which no reader took anything for the longest time goes first. mu
// is held.
func (m *memory) shrink(kept int) {
	defer m.count()
	for m.bodies+m.old > m.limit {
		var first *sharedText
		left := 0
		for _, t := range m.texts {
			if !t.replaced || t.cut {
				continue
			}
			left++
			if first == nil || t.progress.Load() < first.progress.Load() {
				first = t
			}
		}
		if left <= kept {
			return
		}
		first.cut = true
		m.old -= first.size
		for b := range first.readers {
			m.refused["old_list"].Inc()
			_ = rawConn(b.conn).Close() // the writer sees the error
		}
	}
}

// isCut tells whether the readers of t have been cut.
func (m *memory) isCut(t *sharedText) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return t.cut
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
