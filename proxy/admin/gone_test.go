package admin

import (
	"context"
	"errors"
	"imgmirror/proxy/mirror"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"
)

// overPipe is a server's own time, in which dial connects to its listener.
func overPipe(t *testing.T, do func(t *testing.T, s *Server, dial func(request string) net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Mirror: &mirror.Mirror{}})
		ln := fasthttputil.NewInmemoryListener()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, nil, ln) }()
		do(t, s, func(request string) net.Conn {
			t.Helper()
			conn, err := ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return conn
		})
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Who follows events leaves nothing behind, whether it closes its connection, takes nothing more, or has seen the end of
// the job that it followed.
func TestFollowersLeaveNothing(t *testing.T) {
	overPipe(t, func(t *testing.T, s *Server, dial func(string) net.Conn) {
		release := make(chan struct{})
		job, err := s.jobs.start("refresh", []Item{}, func(context.Context, *job) error {
			<-release
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		running := func() (watchers, goroutines int) {
			synctest.Wait()
			s.jobs.mu.Lock()
			defer s.jobs.mu.Unlock()
			stacks := make([]byte, 1<<20)
			return len(s.jobs.watchers), strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "created by imgmirror/proxy/admin.(*Server).beginStream")
		}
		follow := func(path string) net.Conn {
			return dial("GET /api/v1/events" + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		followers := func(n int) (all []net.Conn) {
			for range n {
				conn := follow("")
				go io.Copy(io.Discard, conn) //nolint:errcheck // until it is closed
				all = append(all, conn)
			}
			return all
		}
		want := func(what string, n int) {
			t.Helper()
			if watchers, goroutines := running(); watchers != n || goroutines != n {
				t.Errorf("%s: %d subscriptions, %d goroutines, want %d", what, watchers, goroutines, n)
			}
		}
		want("before", 0)
		all := followers(5)
		want("five follow", 5)
		for _, conn := range all {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second) // the pause between two looks
		want("five are gone", 0)

		deaf := follow("")
		want("one takes nothing", 1)
		time.Sleep(10*keepAlive + eventTimeout) // the connection takes some events in advance
		want("one took nothing", 0)

		one := follow("?job=" + job.state.ID)
		go io.Copy(io.Discard, one) //nolint:errcheck // until it is closed
		want("one follows a job", 1)
		close(release)
		time.Sleep(time.Second)
		want("the job is over", 0)
		if err := errors.Join(deaf.Close(), one.Close()); err != nil {
			t.Error(err)
		}
	})
}

// halfBody is the rest of a request that announces more than comes.
func halfBody(kind, comes string) string {
	return " HTTP/1.1\r\nHost: x\r\nContent-Type: " + kind + "\r\nContent-Length: 100\r\n\r\n" + comes
}

// Connections that nothing comes from end: those at rest, those with half a head and those with half a body, whatever
// was answered to that.
func TestListenerTimeouts(t *testing.T) {
	for _, test := range []struct {
		name, sent     string
		soonest, after time.Duration
	}{
		{"at rest", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", time.Minute, 3 * time.Minute},
		{"half a head", "GET /healthz HTTP/1.1\r\nHo", 5 * time.Second, 30 * time.Second},
		{"half a body", "POST /api/v1/pin" + halfBody("application/json", "{"), 10 * time.Second, time.Minute},
		{"half a body, wrong", "POST /api/v1/pin" + halfBody("application/json", "{]"), 0, time.Minute},
		{"half a body, refused", "POST /api/v1/pin" + halfBody("text/plain", "{"), 0, time.Minute},
		{"half a body to nowhere", "POST /api/v1/nowhere" + halfBody("text/plain", ""), 0, time.Minute},
		{"half a body, not asked for", "GET /healthz" + halfBody("text/plain", ""), 0, time.Minute},
	} {
		overPipe(t, func(t *testing.T, _ *Server, dial func(string) net.Conn) {
			conn := dial(test.sent)
			defer conn.Close()
			began := time.Now()
			if err := conn.SetReadDeadline(began.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			_, err := io.Copy(io.Discard, conn)
			if took := time.Since(began); err != nil || took < test.soonest || took > test.after {
				t.Errorf("%s: closed after %s (%v), want %s to %s", test.name, took, err, test.soonest, test.after)
			}
		})
	}
}
