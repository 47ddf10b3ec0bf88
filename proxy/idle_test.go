package proxy

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp"

	"imgmirror/proxy/mirror"
)

// dialFrom opens a connection from an address of this machine.
func (f *fixture) dialFrom(ip string) net.Conn {
	f.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", f.addr)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		f.Fatal(err)
	}
	return c
}

// atRest waits until n connections are open and no request is being answered.
func (f *fixture) atRest(n int) {
	f.Helper()
	waitFor(f.TB, "connections at rest", func() bool {
		idle := 0
		for _, c := range f.server.conns.open.Range {
			if c.(*client).state.Load() > 0 {
				idle++
			}
		}
		return idle == n && testutil.ToFloat64(f.server.metrics.connections) == float64(n)
	})
}

// ended reads c to the end of the stream.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n > 0 {
		t.Errorf("%d bytes before the end of the stream, %v", n, err)
	}
}

func limits(max int) map[string]func(*Options) {
	return map[string]func(*Options){
		limitTotal:   func(o *Options) { o.MaxConnections = max },
		limitAddress: func(o *Options) { o.MaxPerAddress = max },
	}
}

// At a limit the connection that has been idle longest makes room.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	for limit, set := range limits(3) {
		t.Run(limit, func(t *testing.T) {
			f := newFixture(t)
			set(&f.options)
			f.start()
			var open []net.Conn
			ping := func(c net.Conn, n int) {
				t.Helper()
				if r := f.exchange(c, bufio.NewReader(c), "GET", "/ping"); r.status != 200 {
					t.Errorf("%d", r.status)
				}
				f.atRest(n)
			}
			for i := range 3 {
				open = append(open, f.dial())
				ping(open[i], i+1)
			}
			ping(open[0], 3) // now 1 is idle longest, then 2
			for i := range 2 {
				open = append(open, f.dial())
				ping(open[3+i], 3)
				ended(t, open[1+i])
			}
			for _, i := range []int{3, 4, 0} {
				ping(open[i], 3)
			}
			m := f.server.metrics
			if displaced, refused := testutil.ToFloat64(m.displaced[limit]), testutil.ToFloat64(m.refused[limit]); displaced != 2 || refused != 0 {
				t.Errorf("%v displaced, %v refused", displaced, refused)
			}
		})
	}
}

// Connections that send no request, or never the end of a header, make room like idle ones. Those
// of one address keep out no client, of their own address or of another one.
func TestSlowHeadersKeepNoClientOut(t *testing.T) {
	for limit, set := range limits(8) {
		t.Run(limit, func(t *testing.T) {
			f := newFixture(t)
			set(&f.options)
			f.start()
			var slow []net.Conn
			for i := range 8 {
				c := f.dial()
				if i%2 == 0 {
					if _, err := io.WriteString(c, "GET /ping HTTP/1.1\r\nHost: m"); err != nil {
						t.Fatal(err)
					}
				}
				slow = append(slow, c)
				f.atRest(i + 1)
			}
			for i, ip := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1"} {
				c := f.dialFrom(ip)
				if r := f.exchange(c, bufio.NewReader(c), "GET", "/ping", "Connection: close"); r.status != 200 {
					t.Errorf("client %d: %d", i, r.status)
				}
				c.Close()
			}
			ended(t, slow[0]) // without a 400: the reply would wait for a client that reads nothing
		})
	}
}

// A limit whose connections all have requests refuses newcomers, and those of an address no others.
func TestConnectionLimits(t *testing.T) {
	for limit, set := range limits(2) {
		t.Run(limit, func(t *testing.T) {
			f := newFixture(t, image{uuid: id(1), content: noise(1000)}.v2())
			asked := make(chan struct{})
			f.options.Files = mirror.Files{Store: stuckFiles{asked}}
			set(&f.options)
			f.start()
			var busy []net.Conn
			for range 2 {
				c := f.dial()
				if _, err := io.WriteString(c, "GET "+filePath+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				<-asked
				busy = append(busy, c)
			}
			for range 2 {
				r := f.read(bufio.NewReader(f.dial()), "GET")
				if code, _, _ := r.errorBody(t); r.status != 503 || code != "ServiceUnavailableError" || r.header.Get("Retry-After") != "5" || r.err != nil {
					t.Errorf("%d %s %v", r.status, code, r.err)
				}
			}
			m := f.server.metrics
			if got := testutil.ToFloat64(m.refused[limit]); got != 2 {
				t.Errorf("%v were counted", got)
			}
			if limit == limitAddress {
				c := f.dialFrom("127.0.0.2")
				if r := f.exchange(c, bufio.NewReader(c), "GET", "/ping"); r.status != 200 {
					t.Errorf("another address: %d", r.status)
				}
			}
			busy[0].Close()
			waitFor(t, "a free place", func() bool { return testutil.ToFloat64(m.left) == 1 })
			waitFor(t, "a reply", func() bool {
				resp, err := http.Get("http://" + f.addr + "/ping")
				if err != nil {
					return false
				}
				resp.Body.Close()
				return resp.StatusCode == 200
			})
			http.DefaultClient.CloseIdleConnections()
			f.server.cut() // ends the wait of the one who stayed
		})
	}
}

// fakeConn is a connection of an address.
type fakeConn struct {
	net.Conn
	addr net.Addr
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.addr }

func connOf(host byte) *fakeConn {
	return &fakeConn{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 1))}
}

// newConns are conns with limits.
func newConns(total, perAddr int) *conns {
	c := new(conns)
	c.limit(total, perAddr, newMetrics(nil))
	return c
}

// A request that arrives in the moment of its client's displacement is answered; the client counts
// until its end, and then the limit holds again.
func TestDisplacedInTheMomentOfARequest(t *testing.T) {
	c := newConns(2, 0)
	var open []*fakeConn
	for i := range byte(2) {
		open = append(open, connOf(i))
		if _, ok, told := c.add(open[i]); !ok || told != nil {
			t.Fatal(ok, told)
		}
	}
	third := connOf(3)
	if limit, ok, told := c.add(third); !ok || limit != limitTotal || len(told) != 1 || told[0].nc != open[0] {
		t.Fatal(limit, ok, told)
	}
	if c.all.leaving != 1 {
		t.Error(c.all.leaving)
	}
	if !c.begin(c.client(open[0])) {
		t.Error("the reply is not the last one")
	}
	if c.all.leaving != 0 || c.all.n != 3 {
		t.Error(c.all.leaving, c.all.n)
	}
	fourth := connOf(4) // two make room, since one connection is over the limit
	if _, ok, told := c.add(fourth); !ok || len(told) != 2 || told[0].nc != open[1] || told[1].nc != third {
		t.Fatal(ok, told)
	}
	c.remove(open[1], nil)
	c.remove(third, nil)
	c.changed(open[0], fasthttp.StateIdle)
	c.remove(open[0], nil)
	if c.begin(c.client(fourth)) {
		t.Error("the reply is the last one")
	}
	c.remove(fourth, nil)
	if c.all.n != 0 || c.all.leaving != 0 || len(c.all.idle.clients) != 0 {
		t.Errorf("%+v", c.all)
	}
}

// Clients that leave slowly let a bounded number of newcomers in.
func TestLeavingClientsAreBounded(t *testing.T) {
	c := newConns(1000, 100)
	told := 0
	in := 0
	for range 1000 {
		_, ok, victims := c.add(connOf(1))
		told += len(victims)
		if ok {
			in++
		}
	}
	if in != 100+spareConns || told != spareConns {
		t.Errorf("%d came in, %d were told to leave", in, told)
	}
}

// The order of idleness holds whatever requests come, with few steps for each newcomer.
func TestOrderOfIdleness(t *testing.T) {
	const size = 50
	r := rand.New(rand.NewPCG(1, 2))
	c := newConns(size, size/5)
	type state struct {
		since int64 // 0 = answering
		host  byte
	}
	open := make(map[net.Conn]*state)
	some := func() net.Conn {
		for nc := range open {
			return nc
		}
		return nil
	}
	for step := range 20_000 {
		nc := some()
		switch r.IntN(3) {
		case 0:
			host := byte(r.IntN(8))
			n, of := 0, func(s *state) bool { return s.host == host }
			for _, s := range open {
				if of(s) {
					n++
				}
			}
			limit := limitAddress
			if n < size/5 {
				limit, of = limitTotal, func(*state) bool { return true }
			}
			var want net.Conn
			full := limit == limitAddress || len(open) == size
			for nc, s := range open {
				if full && of(s) && s.since > 0 && (want == nil || s.since < open[want].since) {
					want = nc
				}
			}
			newcomer := connOf(host)
			got, ok, told := c.add(newcomer)
			if ok != (!full || want != nil) || got != limit || len(told) > 1 || (len(told) == 1) != (want != nil) {
				t.Fatalf("step %d: %s %v %v, want %s %v", step, got, ok, told, limit, want)
			}
			if want != nil {
				if told[0].nc != want {
					t.Fatalf("step %d: not the one that is idle longest", step)
				}
				c.remove(want, nil)
				delete(open, want)
			}
			if ok {
				open[newcomer] = &state{since: c.client(newcomer).state.Load(), host: host}
			}
		case 1:
			if nc == nil {
				continue
			}
			if s := open[nc]; s.since > 0 {
				c.begin(c.client(nc))
				s.since = 0
			} else {
				c.changed(nc, fasthttp.StateIdle)
				s.since = c.client(nc).state.Load()
			}
		case 2:
			if nc != nil && r.IntN(10) == 0 {
				c.remove(nc, nil)
				delete(open, nc)
			}
		}
	}
	for nc := range open {
		c.remove(nc, nil)
	}
	if c.all.n != 0 || len(c.hosts) != 0 || len(c.all.idle.clients) != 0 {
		t.Errorf("left behind: %+v, %d hosts", c.all, len(c.hosts))
	}
}
