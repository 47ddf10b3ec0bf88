// Package sender sends files to many connections at once, by a few loops around epoll(7) and sendfile(2). A loop is
// one goroutine, and works for many connections in turn.
//
// With a goroutine for each connection the senders fill the run queues of Go's processors, and Go looks for new
// requests when a processor has nothing to do, else every 10 ms. Beside loops, fewer than the processors, new requests
// are seen at once, and a file costs fewer wake-ups.
//
// A loop does not wait for a disk, as a rule: see [Sender.Send].
package sender

import (
	"errors"
	"time"
)

// ErrUnsupported is matched where loops cannot send: on other systems than Linux, and by Send where the
// kernel does not tell what is in memory (Linux has no RWF_NOWAIT for tmpfs, among others). Another way may work.
var ErrUnsupported = errors.ErrUnsupported

// Options of New.
type Options struct {
	// Loops is how many loops there are; 0 = 1.
	Loops int
	// Step and Stall bound a slow client: each Step bytes must go out within Stall. Required.
	Step  int64
	Stall time.Duration
}
