package proxy

import (
	"context"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// exhausted is a listener of a process that has no file descriptors left.
type exhausted struct {
	net.Listener
	closed chan struct{}
}

func (l exhausted) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
}

func (l exhausted) Addr() net.Addr { return &net.TCPAddr{} }

func (l exhausted) Close() error {
	close(l.closed)
	return nil
}

// A stop does not wait for the pause of a listener that is short of descriptors.
func TestStopEndsAcceptPause(t *testing.T) {
	o := newFixture(t).options
	synctest.Test(t, func(t *testing.T) {
		o.Registerer = nil
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, exhausted{closed: make(chan struct{})}) }()
		time.Sleep(10*time.Second + time.Millisecond) // the pauses are long by now
		stopped := time.Now()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(stopped); took > 0 {
			t.Errorf("the stop took %s", took)
		}
	})
}
