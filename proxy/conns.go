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

// conns are the open client connections: how many there may be, in all and of
// one address, and how they end. fasthttp's own limits are not used: the one
// per address wraps the connection, which loses sendfile.
type conns struct {
	max, perAddr int
	metrics      *metrics

	wg sync.WaitGroup // one a connection; added to by accept only

	// draining tells that every reply should be the last of its connection.
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

// add takes nc in, or says by which limit it is refused: "total" or "address".
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

// remove forgets nc, which has been closed.
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

// drain ends every connection as soon as it is between two requests, and closes
// the returned channel when none is left. Nothing may be added any more.
//
// Shutting the reading side is what makes that free of races: requests that
// have arrived are still read and answered, then comes the end of the stream.
func (c *conns) drain() <-chan struct{} {
	c.draining.Store(true)
	c.mu.Lock()
	for nc := range c.open {
		if half, ok := rawConn(nc).(interface{ CloseRead() error }); ok {
			_ = half.CloseRead() // fails only on a connection that is gone
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

// cut closes what is open and tells how many that were.
func (c *conns) cut() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for nc := range c.open {
		_ = rawConn(nc).Close()
	}
	return len(c.open)
}

// accept takes connections from ln and serves each on a goroutine of its own.
// It returns nil when ln has been closed, else what broke it. Being short of
// file descriptors and the like is waited out, but not once ctx has ended.
func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	const maxPause = time.Second
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			// Timeout and Temporary are what net.Error has to tell "this
			// connection" from "this listener"; net/http goes by it too.
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
			// ServeConn closes nc. Its error is that of the last request, which
			// has its line in the access log, or of a client that said nothing.
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

// refuse answers and closes a connection that is over a limit; it does not
// wait. A TLS client has no reply: it would have to be waited for.
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

// remoteIP is the address without its port; the zero Addr for what is no TCP.
func remoteIP(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
