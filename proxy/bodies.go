package proxy

import (
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"imgmirror/proxy/sender"
)

// maxLoops bounds the sender's loops. Each loop has a thread of the operating system.
const maxLoops = 8

// bodies are the bodies of files that are being sent, with the sender for several bodies at once.
type bodies struct {
	stall time.Duration
	log   *slog.Logger

	n      atomic.Int32
	begin  sync.Once
	sender *sender.Sender // valid once begun; nil = there is none
}

// loops is what sends to conn, for one of several bodies; nil = each body is sent by its own goroutine, as
// always under TLS.
func (b *bodies) loops(conn net.Conn) (*sender.Sender, syscall.RawConn) {
	c, ok := conn.(syscall.Conn)
	if !ok || b.n.Load() < 2 {
		return nil, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, nil
	}
	b.begin.Do(b.start)
	return b.sender, raw
}

// start starts a loop for each of Go's processors but one, which is left to everything else.
func (b *bodies) start() {
	loops := min(max(1, runtime.GOMAXPROCS(0)-1), maxLoops)
	var err error
	b.sender, err = sender.New(sender.Options{Loops: loops, Step: step, Stall: b.stall})
	if err != nil && !errors.Is(err, sender.ErrUnsupported) {
		b.log.Warn("several files at once go out more slowly until a restart", "error", err)
	}
}

// close ends the loops. No body may be left, and none may follow.
func (b *bodies) close() {
	if b.sender != nil {
		b.sender.Close()
	}
}
