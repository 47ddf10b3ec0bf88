package proxy

import (
	"container/heap"
	"net"
	"sync/atomic"
	"time"
)

// client is one open client connection.
//
// A client is idle while no request of the client is being answered: from the accept, or the end of
// a reply, until a whole header has arrived. A header that drips in leaves its client idle.
type client struct {
	nc net.Conn

	// state is a time when the client is idle: since then, in ns after conns.began, at least 1.
	// Else state is answering, apart or leaving.
	state atomic.Int64

	reading atomic.Pointer[sharedText] // by the reply under way; see memory.hold

	sending atomic.Bool // an upload of the client is being read
	shut    atomic.Bool // the mirror has shut the reading side

	// What follows belongs to the goroutine of the connection.
	request request   // the one under way
	record  record    // of request
	whole   wholeBody // of request's reply
	agent   string    // the User-Agent of the last request
	ids     ids

	rooms  [roomKinds]*room // nil = no such limit
	places [roomKinds]place // in rooms; conns.mu guards places
}

// agentOf is a User-Agent header as a string. A client sends the same one again and again.
func (c *client) agentOf(header []byte) string {
	if string(header) != c.agent {
		c.agent = string(header)
	}
	return c.agent
}

// The states of a client that is not idle.
const (
	answering int64 = 0  // and in the order of idleness
	apart     int64 = -1 // answering, and outside of the order until the reply's end
	leaving   int64 = -2 // told to leave before a request came; outside of the order
)

// The kinds of rooms.
const (
	ofAll = iota
	ofAddress
	roomKinds
)

// room has the clients under one limit. conns.mu guards a room.
type room struct {
	max     int
	n       int // clients
	leaving int // of n: have the state leaving
	idle    idleHeap
}

// spareConns bounds the clients over a limit. Clients over a limit stand for leaving clients, which
// end within milliseconds, and for the rare client whose request came in the moment of leaving:
// such a client ends after the reply.
const spareConns = 64

// forNewcomer tells whether a newcomer may come in. Clients that have been idle longest make room:
// the caller must tell the given clients to leave.
func (r *room) forNewcomer() (ok bool, told []*client) {
	over := r.n - r.max
	needed := over - r.leaving
	ok = over < spareConns
	if ok {
		needed++
	}
	for range needed {
		c := r.idle.longest()
		if c == nil {
			break
		}
		told = append(told, c)
		for _, of := range c.rooms {
			if of != nil {
				of.leaving++
			}
		}
	}
	return ok && (needed <= 0 || len(told) > 0), told
}

// place is a client's place in the order of idleness of a room.
type place struct {
	index int   // in the heap; -1 = outside
	since int64 // the client is idle since then or later
}

// idleHeap is a heap by place.since, a lower bound of the time since when a client is idle.
// Requests change their client's state without a lock and without the heap; longest finds the truth.
type idleHeap struct {
	kind    int
	clients []*client
}

func (h *idleHeap) Len() int { return len(h.clients) }

func (h *idleHeap) Less(i, j int) bool {
	return h.clients[i].places[h.kind].since < h.clients[j].places[h.kind].since
}

func (h *idleHeap) Swap(i, j int) {
	h.clients[i], h.clients[j] = h.clients[j], h.clients[i]
	h.clients[i].places[h.kind].index = i
	h.clients[j].places[h.kind].index = j
}

// Push is for package heap.
func (h *idleHeap) Push(x any) { h.clients = append(h.clients, x.(*client)) } //nolint:forcetypeassert // enter's

// Pop is for package heap.
func (h *idleHeap) Pop() any {
	last := len(h.clients) - 1
	c := h.clients[last]
	h.clients[last] = nil
	h.clients = h.clients[:last]
	return c
}

// enter puts c, idle since since, into the order of each of its rooms.
func (c *client) enter(since int64) {
	for kind, r := range c.rooms {
		if r != nil {
			c.places[kind] = place{index: len(r.idle.clients), since: since}
			heap.Push(&r.idle, c)
		}
	}
}

// quit takes c out of every order that c is in.
func (c *client) quit() {
	for kind, r := range c.rooms {
		if p := &c.places[kind]; r != nil && p.index >= 0 {
			heap.Remove(&r.idle, p.index)
			p.index = -1
		}
	}
}

// longest takes the client that has been idle longest out of every order and makes its state
// leaving; nil = no client is idle.
//
// A client that was answered since the last look sinks, and a client that is being answered is apart
// until the end of its reply. So a request pays for each step of the loop, and a call takes a few
// steps on average.
func (h *idleHeap) longest() *client {
	for len(h.clients) > 0 {
		c := h.clients[0]
		p := &c.places[h.kind]
		switch state := c.state.Load(); {
		case state == answering:
			if c.state.CompareAndSwap(answering, apart) {
				c.quit()
			}
		case state > p.since:
			p.since = state
			heap.Fix(h, 0)
		case c.state.CompareAndSwap(state, leaving):
			c.quit()
			return c
		}
	}
	return nil
}

// stayed notes that c, which was leaving, has been answered or has ended. The caller holds conns.mu.
func (c *client) stayed() {
	for _, r := range c.rooms {
		if r != nil {
			r.leaving--
		}
	}
}

// leaveTime is how long a client that was told to leave may take, if no request arrives meanwhile.
const leaveTime = time.Second

// tellToLeave ends an idle client by shutReading, and closes a client that does not end by itself.
func (c *client) tellToLeave() {
	c.shutReading()
	time.AfterFunc(leaveTime, func() {
		if c.state.Load() == leaving {
			_ = rawConn(c.nc).Close() // once more, as a rule
		}
	})
}

// shutReading shuts the reading side of the connection. No request is lost: the server still reads and
// answers the requests that have arrived, and then reads the end of the stream.
func (c *client) shutReading() {
	c.shut.Store(true)
	if half, ok := rawConn(c.nc).(interface{ CloseRead() error }); ok {
		_ = half.CloseRead() // fails only on a dead connection
	} else {
		_ = c.nc.Close()
	}
}
