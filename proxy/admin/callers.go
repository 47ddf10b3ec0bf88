package admin

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// maxCallers bounds the connections of the listener for the network. The socket has no bound: the
// operators of this machine get in while the network's callers are too many.
const maxCallers = 256

// callers is the connections of a server. At a bound the connection that has waited longest without a
// request makes room for a newcomer. A newcomer is refused when every connection has a request.
type callers struct {
	most    int // 0 = no bound
	metrics *metrics

	mu      sync.Mutex // guards what follows
	ended   bool
	open    map[net.Conn]struct{}
	waiting map[net.Conn]time.Time // of open: without a request, and since when
	silent  map[net.Conn]struct{}  // of waiting: no request has ever begun
}

// watchCallers makes a server that has not begun to serve tell of its connections.
func watchCallers(server *http.Server, most int, m *metrics) *callers {
	c := &callers{most: most, metrics: m, open: make(map[net.Conn]struct{}), waiting: make(map[net.Conn]time.Time), silent: make(map[net.Conn]struct{})}
	server.ConnState = c.note
	return c
}

func (c *callers) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, conn)
	delete(c.silent, conn)
	switch state {
	case http.StateNew:
		c.metrics.callers.Inc()
		if c.ended || !c.room() {
			conn.Close() //nolint:errcheck // no request is lost
			return
		}
		c.open[conn] = struct{}{}
		c.waiting[conn] = time.Now()
		c.silent[conn] = struct{}{}
	case http.StateIdle:
		if _, ok := c.open[conn]; ok { // else note has closed conn
			c.waiting[conn] = time.Now()
		}
	case http.StateClosed, http.StateHijacked:
		c.metrics.callers.Dec()
		delete(c.open, conn)
	}
}

// room makes room for a connection; false = there is none. mu is held.
func (c *callers) room() bool {
	if c.most == 0 || len(c.open) < c.most {
		return true
	}
	var longest net.Conn
	for conn, since := range c.waiting {
		if longest == nil || since.Before(c.waiting[longest]) {
			longest = conn
		}
	}
	if longest == nil {
		c.metrics.callersRefused.Inc()
		return false
	}
	delete(c.open, longest)
	delete(c.waiting, longest)
	delete(c.silent, longest)
	longest.Close() //nolint:errcheck // no request is lost
	return true
}

// end closes the connections on which no request has begun, and those to come. Browsers open such
// connections to be ready, and http.Server.Shutdown would wait for them.
func (c *callers) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for conn := range c.silent {
		conn.Close() //nolint:errcheck // no request is lost
	}
}
