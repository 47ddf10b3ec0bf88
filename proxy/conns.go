package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/proxy/eventloop"
	"imgmirror/proxy/meaning"
)

// conns are the open client connections. conns keeps their limits, in all and per address, and
// ends the connections. fasthttp's own limits stay unused: fasthttp's limit per address wraps the
// connection, which loses sendfile.
//
// At a limit the connection that has been idle longest makes room for a newcomer. So neither idle
// connections nor headers that drip in keep newcomers out.
type conns struct {
	perAddr int
	metrics *metrics
	began   time.Time

	wg sync.WaitGroup // one per connection; only accept adds

	// draining makes every reply the last of its connection.
	draining atomic.Bool

	open sync.Map // net.Conn to *client; requests read open without a lock

	mu    sync.Mutex
	all   room
	hosts map[netip.Addr]*room // by remoteIP; kept only when perAddr > 0
}

// The limits: values of metrics' labels.
const (
	limitTotal   = "total"
	limitAddress = "address"
)

func (c *conns) limit(total, perAddr int, m *metrics) {
	c.perAddr, c.metrics, c.began = perAddr, m, time.Now()
	c.all = room{max: total, idle: idleHeap{kind: ofAll}}
	c.hosts = make(map[netip.Addr]*room)
}

// now is a time for client.state.
func (c *conns) now() int64 { return max(1, int64(time.Since(c.began))) }

// add takes nc in, or refuses nc. The caller must tell the given clients to leave in both cases.
// limit is the limit that refuses nc or makes clients leave.
func (c *conns) add(nc net.Conn) (limit string, ok bool, told []*client) {
	addr := remoteIP(nc.RemoteAddr())
	c.mu.Lock()
	defer c.mu.Unlock()
	host := c.hosts[addr]
	if host == nil && c.perAddr > 0 {
		host = &room{max: c.perAddr, idle: idleHeap{kind: ofAddress}}
	}
	limit = limitAddress
	if host == nil || host.n < host.max {
		limit = limitTotal
		ok, told = c.all.forNewcomer()
	} else if ok, told = host.forNewcomer(); ok {
		ok = c.all.n < c.all.max+spareConns
	}
	if !ok {
		return limit, false, told
	}
	cl := &client{nc: nc, rooms: [roomKinds]*room{ofAll: &c.all, ofAddress: host}}
	since := c.now()
	cl.state.Store(since)
	cl.enter(since)
	c.open.Store(nc, cl)
	if conn, ok := nc.(*eventloop.Conn); ok {
		conn.Owner = cl
	}
	c.all.n++
	if host != nil {
		host.n++
		c.hosts[addr] = host
	}
	c.metrics.connections.Inc()
	c.wg.Add(1)
	return limit, true, told
}

// remove forgets nc, a closed connection that add took in; err: why the last reply ended early.
func (c *conns) remove(nc net.Conn, err error) {
	cl := c.client(nc)
	cl.whole.ended(err)
	c.open.Delete(nc)
	c.mu.Lock()
	if cl.state.Swap(answering) == leaving {
		cl.stayed()
	}
	cl.quit()
	for _, r := range cl.rooms {
		if r != nil {
			r.n--
		}
	}
	if host := cl.rooms[ofAddress]; host != nil && host.n == 0 {
		delete(c.hosts, remoteIP(cl.nc.RemoteAddr()))
	}
	c.mu.Unlock()
	c.metrics.connections.Dec()
	c.wg.Done()
}

// crowd is the most connections that one address has open.
func (c *conns) crowd() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := 0
	for _, host := range c.hosts {
		most = max(most, host.n)
	}
	return float64(most)
}

// readers are the clients that read a text.
func (c *conns) readers(of *sharedText) iter.Seq[*client] {
	return func(yield func(*client) bool) {
		for _, value := range c.open.Range {
			if cl := value.(*client); cl.reading.Load() == of && !yield(cl) { //nolint:forcetypeassert // add's
				return
			}
		}
	}
}

// client is the client of an open connection.
func (c *conns) client(nc net.Conn) *client {
	if conn, ok := nc.(*eventloop.Conn); ok {
		return conn.Owner.(*client) //nolint:forcetypeassert // add's
	}
	cl, _ := c.open.Load(nc)
	return cl.(*client) //nolint:forcetypeassert // fasthttp serves only what add took in
}

// moved notes that conn has the client of nc, another form of the same connection.
func (c *conns) moved(nc, conn net.Conn) {
	c.mu.Lock() // drain and cut find the client under one of the two
	defer c.mu.Unlock()
	c.open.Store(conn, c.client(nc))
	c.open.Delete(nc)
}

// begin notes that a request is being answered. last = the reply must be the last of cl's connection.
func (c *conns) begin(cl *client) (last bool) {
	if cl.state.Swap(answering) != leaving {
		return c.draining.Load()
	}
	c.mu.Lock()
	cl.stayed()
	c.mu.Unlock()
	return true
}

// changed is the hook of fasthttp and of the event loops: a client becomes idle when all of a reply has been sent.
func (c *conns) changed(nc net.Conn, state fasthttp.ConnState) {
	if state != fasthttp.StateIdle {
		return
	}
	cl := c.client(nc)
	cl.whole.ended(nil)
	now := c.now()
	if cl.state.CompareAndSwap(answering, now) {
		return
	}
	c.mu.Lock() // the client is apart
	cl.state.Store(now)
	cl.enter(now)
	c.mu.Unlock()
}

// drain ends every connection between two of its requests, by shutReading, and closes the returned
// channel when no connection is left. An upload under way goes on: its reply is the connection's last.
// The caller stops add before drain.
func (c *conns) drain() <-chan struct{} {
	c.draining.Store(true)
	c.mu.Lock()
	for _, value := range c.open.Range {
		if cl := value.(*client); !cl.sending.Load() { //nolint:forcetypeassert // add's
			cl.shutReading()
		}
	}
	c.mu.Unlock()
	drained := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(drained)
	}()
	return drained
}

// cut closes the open connections and gives their number.
func (c *conns) cut() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, value := range c.open.Range {
		_ = rawConn(value.(*client).nc).Close() //nolint:forcetypeassert // add's
		n++
	}
	return n
}

// accept takes connections from ln, and gives each to the event loops, or to a goroutine of its own. accept returns nil
// when ln has been closed, else the error that broke ln. accept waits out temporary errors, such as
// a lack of file descriptors, until ctx ends.
func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	const maxPause = time.Second
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			// net.Error's Temporary tells an error of one connection from an error of the
			// listener, as in net/http.
			var temporary interface{ Temporary() bool }
			if !errors.As(err, &temporary) || !temporary.Temporary() {
				if !s.serving.Load() || errors.Is(err, net.ErrClosed) {
					return nil
				}
				return fmt.Errorf("client listener: %w", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), maxPause)
			s.log.Error("cannot accept connections", "error", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		pause = 0
		tcp, plain := nc.(*net.TCPConn)
		switch {
		case s.opts.TLSConfig != nil:
			nc = tls.Server(nc, s.opts.TLSConfig)
		case plain && s.loops != nil:
			nc = eventloop.NewConn(tcp)
		}
		if !s.admit(nc) {
			continue
		}
		if c, ok := nc.(*eventloop.Conn); ok {
			if err := s.loops.Add(c); err != nil { // as a lack of descriptors
				s.log.Debug("the event loops do not take a connection", "remote", nc.RemoteAddr(), "error", err)
				go s.resume(c, tcp, nil, false)
			}
			continue
		}
		go s.serveConn(nc)
	}
}

// limitKeys are the settings of the limits, for the log.
var limitKeys = map[string]string{limitTotal: "clients.max_connections", limitAddress: "clients.max_per_address"}

// admit takes nc in, in the place of an idle connection where a limit is full, or refuses nc.
func (s *Server) admit(nc net.Conn) bool {
	limit, ok, told := s.conns.add(nc)
	for _, idle := range told {
		idle.tellToLeave()
		s.metrics.displaced[limit].Inc()
		s.displaced.Do(func() {
			s.log.Info("idle connections make room for new ones", "limit", limit, "key", limitKeys[limit], "remote", idle.nc.RemoteAddr())
		})
	}
	if !ok {
		s.metrics.refused[limit].Inc()
		s.refused.Do(func() {
			s.log.Warn("connections are refused", "limit", limit, "key", limitKeys[limit], "remote", nc.RemoteAddr())
		})
		refuse(nc, limit)
	}
	return ok
}

// tooMany are the whole replies to a connection over a limit.
var tooMany = map[string][]byte{
	limitTotal:   refusal("too many connections are open"),
	limitAddress: refusal("too many connections from your address are open"),
}

func refusal(message string) []byte {
	body := (&apiError{status: 503, code: meaning.Unavailable, message: message}).body()
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nRetry-After: %d\r\nConnection: close\r\n\r\n%s",
		len(body), retryAfter/time.Second, body)
}

// refuse answers and closes a connection over a limit, without a wait. A TLS client gets no reply:
// a reply would wait for the client's handshake.
func refuse(nc net.Conn, limit string) {
	if _, encrypted := nc.(*tls.Conn); !encrypted {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Millisecond))
		_, _ = nc.Write(tooMany[limit])
	}
	_ = rawConn(nc).Close()
}

// rawConn is the connection under TLS, or nc itself.
func rawConn(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}

// remoteIP is a TCP address without its port; other addresses give the zero Addr. IPv6 addresses
// count one by one: in a data centre all nodes of a network share their /64.
func remoteIP(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
