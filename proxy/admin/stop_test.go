package admin

import (
	"context"
	"errors"
	"imgmirror/proxy/mirror"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"
)

// A stop waits neither for connections that ask nothing, nor for those that
// follow events and take none.
func TestStopIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Mirror: &mirror.Mirror{}})
		ln := fasthttputil.NewInmemoryListener()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, nil, ln) }()
		dial := func() net.Conn {
			conn, err := ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		silent, follower := dial(), dial()
		if _, err := io.WriteString(follower, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stopped := time.Now()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(stopped); took > 2*lastTimeout { // Shutdown looks now and then
			t.Errorf("the stop took %s", took)
		}
		if err := errors.Join(silent.Close(), follower.Close()); err != nil {
			t.Error(err)
		}
	})
}
