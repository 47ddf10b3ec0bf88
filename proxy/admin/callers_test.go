package admin

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp/fasthttputil"
)

// At the bound the caller that has waited longest without a request makes room; with a request in
// every connection the newcomer is refused.
func TestCallersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		c := watchCallers(&http.Server{}, 2, m) //nolint:gosec // serves nothing
		dial := func() (server, client net.Conn) {
			server, client = net.Pipe()
			time.Sleep(time.Second) // of the bubble
			c.note(server, http.StateNew)
			return server, client
		}
		ended := func(client net.Conn) bool {
			client.SetReadDeadline(time.Now().Add(time.Second)) //nolint:errcheck // a pipe
			_, err := client.Read(make([]byte, 1))
			return err == io.EOF
		}
		want := func(open, refused float64) {
			t.Helper()
			if n, r := testutil.ToFloat64(m.callers), testutil.ToFloat64(m.callersRefused); n != open || r != refused {
				t.Errorf("%v connections, %v refused; want %v, %v", n, r, open, refused)
			}
		}
		s1, c1 := dial()
		s2, c2 := dial()
		time.Sleep(time.Second) // of the bubble
		c.note(s1, http.StateActive)
		c.note(s1, http.StateIdle) // so s2 has waited longer
		s3, c3 := dial()
		if ended(c1) || !ended(c2) || ended(c3) {
			t.Error("another one than the one that has waited longest made room")
		}
		c.note(s2, http.StateClosed)
		want(2, 0)
		c.note(s1, http.StateActive)
		c.note(s3, http.StateActive)
		s4, c4 := dial()
		if ended(c1) || ended(c3) || !ended(c4) {
			t.Error("a newcomer came before a request")
		}
		c.note(s4, http.StateClosed)
		want(2, 1)
		c.note(s1, http.StateClosed)
		if s5, c5 := dial(); ended(c5) {
			t.Error("a free place was not given")
		} else {
			c.note(s5, http.StateClosed)
		}
		c.note(s3, http.StateClosed)
		want(0, 1)
		if n := len(c.open) + len(c.waiting) + len(c.silent); n != 0 {
			t.Errorf("%d connections are left behind", n)
		}
	})
}

// A caller that takes nothing of /metrics is let go, and such callers do not gather side by side.
func TestMetricsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		gathering, most := make(chan struct{}, 10), 0
		help := strings.Repeat("x", 1<<20) // more than the buffers
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "imgmirror_test", Help: help}, func() float64 {
			gathering <- struct{}{}
			most = max(most, len(gathering))
			time.Sleep(time.Second) // of the bubble
			<-gathering
			return 1
		}))
		s := New(Options{Gatherer: registry})
		ln := fasthttputil.NewInmemoryListener()
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context(), ln, nil) }()
		var conns []net.Conn
		for range 3 {
			conn, err := ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		time.Sleep(soonTimeout + 5*time.Second) // of the bubble
		synctest.Wait()
		if n := testutil.ToFloat64(s.metrics.callers); n != 0 || most != 1 {
			t.Errorf("%v of %d callers are left; %d gathered at the same time", n, len(conns), most)
		}
		ln.Close()
		<-done
	})
}
