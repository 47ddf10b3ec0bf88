package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"imgmirror/proxy/meaning"
)

// conns are the open client connections. conns keeps their limits, in all and per address, and
// ends the connections. fasthttp's own limits stay unused: fasthttp's limit per address wraps the
// connection, which loses sendfile.
type conns struct {
	max, perAddr int
	metrics      *metrics

	wg sync.WaitGroup // one per connection; only accept adds

	// draining makes every reply the last of its connection.
	draining atomic.Bool

	mu    sync.Mutex
	open  map[net.Conn]netip.Addr
	addrs map[netip.Addr]int // kept only when perAddr > 0
}

func (c *conns) limit(total, perAddr int, m *metrics) {
	c.max, c.perAddr, c.metrics = total, perAddr, m
	c.open = make(map[net.Conn]netip.Addr)
	c.addrs = make(map[netip.Addr]int)
}

// add takes nc in and gives "", or gives the limit that refuses nc: "total" or "address".
func (c *conns) add(nc net.Conn) (refused string) {
	addr := remoteIP(nc.RemoteAddr())
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.max {
		return "total"
	}
	if c.perAddr > 0 {
		if c.addrs[addr] >= c.perAddr {
			return "address"
		}
		c.addrs[addr]++
	}
	c.open[nc] = addr
	c.metrics.connections.Inc()
	c.wg.Add(1)
	return ""
}

// remove forgets nc, a closed connection that add took in.
func (c *conns) remove(nc net.Conn) {
	c.mu.Lock()
	addr := c.open[nc]
	delete(c.open, nc)
	if c.perAddr > 0 {
		if c.addrs[addr]--; c.addrs[addr] <= 0 {
			delete(c.addrs, addr)
		}
	}
	c.mu.Unlock()
	c.metrics.connections.Dec()
	c.wg.Done()
}

// drain ends every connection between two of its requests, and closes the returned channel when no
// connection is left. The caller stops add before drain.
//
// drain shuts the reading side, which is free of races: the server still reads and answers the
// requests that have arrived, and then reads the end of the stream.
func (c *conns) drain() <-chan struct{} {
	c.draining.Store(true)
	c.mu.Lock()
	for nc := range c.open {
		if half, ok := rawConn(nc).(interface{ CloseRead() error }); ok {
			_ = half.CloseRead() // fails only on a dead connection
		} else {
			_ = nc.Close()
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
func (c *conns) cut() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for nc := range c.open {
		_ = rawConn(nc).Close()
	}
	return len(c.open)
}

// accept takes connections from ln and serves each on a goroutine of its own. accept returns nil
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
		if s.opts.TLSConfig != nil {
			nc = tls.Server(nc, s.opts.TLSConfig)
		}
		if refused := s.conns.add(nc); refused != "" {
			s.metrics.refused[refused].Inc()
			s.refusals.Do(func() {
				s.log.Warn("connections are refused", "limit", refused, "remote", nc.RemoteAddr())
			})
			refuse(nc)
			continue
		}
		go func() {
			defer s.conns.remove(nc)
			// ServeConn closes nc. ServeConn's error is of the last request, which has its line in
			// the access log, or of a client that sent no request.
			if err := s.http.ServeConn(nc); err != nil {
				s.log.Debug("connection ended", "remote", nc.RemoteAddr(), "error", err)
			}
		}()
	}
}

// tooMany is the whole reply to a connection over a limit.
var tooMany = func() []byte {
	body := (&apiError{status: 503, code: meaning.Unavailable, message: "too many connections are open"}).body()
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}()

// refuse answers and closes a connection over a limit, without a wait. A TLS client gets no reply:
// a reply would wait for the client's handshake.
func refuse(nc net.Conn) {
	if _, encrypted := nc.(*tls.Conn); !encrypted {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Millisecond))
		_, _ = nc.Write(tooMany)
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

// remoteIP is a TCP address without its port; other addresses give the zero Addr.
func remoteIP(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
