// Package nodes is the journal of nodes: which address asked the mirror for what, when, with which
// client, how fast the bytes went, and what the mirror saved for the address. The journal is kept
// in bounded room, on disk as notes of the index. The package knows nothing of HTTP: the front that
// serves clients hands in one small value for each request, and waits for nothing.
//
// An address is all that the journal knows of a node: nodes behind one NAT, or behind a proxy, are
// one node.
package nodes

import (
	"context"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// MaxImages is how many images the journal knows of one node: the ones that the node asked for
	// last.
	MaxImages = 48
	// MaxAgent bounds what is kept of a user agent, in bytes.
	MaxAgent = 200
	// NodeMemory is what a node takes at most, in bytes.
	NodeMemory = 3 << 10

	queueLength = 2048 // requests that wait to be taken in
	// gatherFor is how long requests gather before they are taken in together: to wake Run for each
	// request would cost clients of small answers several percent.
	gatherFor  = 50 * time.Millisecond
	writeEvery = 30 * time.Second // what a kill may lose, if no more than writeBytes has changed
	writeBytes = 8 << 20          // of notes in that time: badger needs memory in proportion
	batchNodes = 128              // nodes in one write, of at most 3 KiB each
)

// Kind is what a request asks for.
type Kind uint8

// The kinds of requests.
const (
	Other    Kind = iota // a ping, an icon, the channels
	List                 // of images
	Manifest             // of one image
	File                 // of one image
	kinds    = iota
)

// Request is what a node asked for, told after the last byte of the reply.
type Request struct {
	Address netip.Addr // without zone, IPv4 as IPv4
	Agent   string     // the user agent as the client sent it; see Cut
	Ended   time.Time
	Took    time.Duration
	Kind    Kind
	Failed  bool // the mirror failed, or the body ended early

	// Of files only:
	Result string // hit, miss or join
	Sent   int64  // bytes
	// The next three are of the first file of an image; nodes install no other one. Image is zero
	// for other files.
	Image uuid.UUID
	Start int64 // of the file: where the bytes begin
	Size  int64 // of the whole file
}

// Notes is where the journal is kept; a cache.Notes is one.
type Notes interface {
	All() (map[string][]byte, error)
	Write(put map[string][]byte, remove []string) error
}

// Limits say what is kept. The journal is off, and keeps nothing, if one of them is 0.
type Limits struct {
	Keep time.Duration // since a node was last seen
	// Max bounds the nodes. The one that has not been seen for longest goes first; if one IPv6 network
	// of /64 has more than half of the room, of this network.
	Max int
}

func (l Limits) off() bool { return l.Keep <= 0 || l.Max <= 0 }

// Options of New. Required: Notes.
type Options struct {
	Limits     Limits
	Notes      Notes
	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
}

// Journal is the journal of nodes. Its methods may be called concurrently.
type Journal struct {
	notes   Notes
	log     *slog.Logger
	off     atomic.Bool
	queue   chan Request
	pressed chan struct{} // a token in it: half of the queue is full
	load    func()
	count   atomic.Int64
	dropped prometheus.Counter
	lost    atomic.Int64 // what dropped counts
	ill     bool         // the last write failed; guarded by writing

	writing sync.Mutex // one write at a time, held over I/O; taken before mu

	mu     sync.RWMutex // guards what follows
	limits Limits
	nodes  map[netip.Addr]*node
	seen   node                // the ring of all nodes: seen.next was seen last, seen.previous longest ago
	gone   map[string]struct{} // keys of notes that are to be removed

	networks map[netip.Prefix]*network
	crowd    *network // the one that has more than half of the room, if there is one
}

// New makes the journal. The notes are read by Run, or by the first question.
func New(o Options) *Journal {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	j := &Journal{
		notes: o.Notes, log: o.Logger, limits: o.Limits,
		queue: make(chan Request, queueLength), pressed: make(chan struct{}, 1),
		nodes: make(map[netip.Addr]*node), gone: make(map[string]struct{}), networks: make(map[netip.Prefix]*network),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "imgmirror_nodes_dropped_total",
			Help: "Requests that the journal of nodes did not take in, because too many came at once.",
		}),
	}
	j.off.Store(o.Limits.off())
	j.seen.next, j.seen.previous = &j.seen, &j.seen
	j.load = sync.OnceFunc(j.read)
	if o.Registerer != nil {
		o.Registerer.MustRegister(j.dropped, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "imgmirror_nodes",
			Help: "Addresses in the journal of nodes.",
		}, func() float64 { return float64(j.count.Load()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "imgmirror_nodes_limit",
			Help: "Addresses that the journal of nodes may have: nodes.max; 0 = there is no journal.",
		}, func() float64 { return float64(j.limit()) }))
	}
	return j
}

// Note hands in a request. Note never waits: while too many requests come at once, some are dropped
// and counted.
func (j *Journal) Note(r Request) {
	if j.off.Load() || !r.Address.IsValid() {
		return
	}
	r.Agent = Cut(r.Agent)
	select {
	case j.queue <- r:
	default:
		j.lost.Add(1)
		j.dropped.Inc()
	}
	if len(j.queue) >= queueLength/2 {
		select {
		case j.pressed <- struct{}{}:
		default:
		}
	}
}

// Run takes requests in until ctx ends, writes what has changed every 30 s and at the end, and lets
// go of nodes that were not seen for too long. If more than 8 MiB has changed, what changed first
// is written first, and the rest with the next write. A write that fails is logged, and made again
// with the next one. Call Run once.
func (j *Journal) Run(ctx context.Context) error {
	j.load()
	var writer sync.WaitGroup
	writer.Go(func() { j.keepWritten(ctx) })
	pause := time.NewTimer(gatherFor)
	defer pause.Stop()
	for done := ctx.Done(); done != nil; {
		select {
		case r := <-j.queue:
			j.take(&r)
		case <-done:
			done = nil
			continue
		}
		if len(j.queue) > 0 {
			continue
		}
		pause.Reset(gatherFor)
		select {
		case <-pause.C:
		case <-j.pressed:
		case <-done:
			done = nil
		}
	}
	writer.Wait()
	for len(j.queue) > 0 {
		r := <-j.queue
		j.take(&r)
	}
	j.flush(math.MaxInt)
	return nil
}

// keepWritten writes every 30 s.
func (j *Journal) keepWritten(ctx context.Context) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			j.flush(writeBytes)
		}
	}
}

// take takes a request in, and some of those that wait behind it.
func (j *Journal) take(r *Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.takeLocked(r)
	for range 63 {
		select {
		case next := <-j.queue:
			j.takeLocked(&next)
		default:
			return
		}
	}
}

// catchUp takes in what waits, for a question that is to know of all requests before it.
func (j *Journal) catchUp() {
	for range queueLength / 64 {
		select {
		case r := <-j.queue:
			j.take(&r)
		default:
			return
		}
	}
}

// takeLocked takes one request in. mu is held.
func (j *Journal) takeLocked(r *Request) {
	if j.limits.off() {
		return
	}
	n := j.nodes[r.Address]
	if n == nil {
		n = &node{address: r.Address, first: r.Ended.Unix()}
		j.nodes[r.Address] = n
		if _, stored := j.gone[n.key()]; stored {
			delete(j.gone, n.key())
			n.stored = true
		}
	} else {
		j.detach(n)
	}
	j.attach(n)
	n.take(r)
	j.trim()
}

// trim lets go of the nodes beyond Max. mu is held.
func (j *Journal) trim() {
	for len(j.nodes) > max(j.limits.Max, 0) {
		j.drop(j.last())
	}
	j.count.Store(int64(len(j.nodes)))
}

// expire lets go of nodes that were last seen before the time to keep. mu is held.
func (j *Journal) expire(now time.Time) {
	oldest := now.Add(-j.limits.Keep).Unix()
	for n := j.seen.previous; n != &j.seen && n.last < oldest; n = j.seen.previous {
		j.drop(n)
	}
	j.count.Store(int64(len(j.nodes)))
}

// drop takes a node out. mu is held.
func (j *Journal) drop(n *node) {
	j.detach(n)
	delete(j.nodes, n.address)
	if n.stored {
		j.gone[n.key()] = struct{}{}
	}
}

// Adjust puts other limits in force.
func (j *Journal) Adjust(l Limits) {
	j.load()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.limits = l
	j.off.Store(l.off())
	if l.off() {
		j.limits.Max = 0
	}
	j.findCrowd()
	j.expire(time.Now())
	j.trim()
}

// limit is how many nodes the journal may have; 0 = it is off.
func (j *Journal) limit() int {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.limits.off() {
		return 0
	}
	return j.limits.Max
}

// Room tells how many nodes the journal has and may have, 0 when it is off, and how many requests
// were dropped.
func (j *Journal) Room() (used, limit int, dropped int64) {
	j.load()
	return j.Len(), j.limit(), j.lost.Load()
}

// Len is how many nodes the journal has; 0 before Run, or the first question, has read the journal.
func (j *Journal) Len() int { return int(j.count.Load()) }

// On tells whether the journal is on.
func (j *Journal) On() bool { return !j.off.Load() }
