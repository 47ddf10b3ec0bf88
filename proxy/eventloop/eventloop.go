// Package eventloop has connections between their requests, and answers at once what can be answered without a wait:
// a few loops around epoll(7) instead of a goroutine for each connection. A small answer costs two system calls on the
// thread of the loop. With a goroutine the answer costs as many, and the way from thread to thread and back.
//
// A loop never waits for one client. A connection leaves the loops when its next request is not answered at once, and
// when its client takes the replies too slowly.
package eventloop

import (
	"errors"
	"net"
	"time"
)

// ErrUnsupported is matched by the error of New on systems without epoll(7).
var ErrUnsupported = errors.ErrUnsupported

// Then is what follows the replies of Answer.
type Then int

// The values of Then.
const (
	// Wait waits for the connection's next request: all of in has been read.
	Wait Then = iota
	// Close closes the connection after the replies.
	Close
	// Leave has the connection leave the loops, with what was not read of in.
	Leave
)

// Answer reads requests from the begin of in, and gives the number of bytes that it has read and the whole replies. An
// Answer waits for nothing. in and replies are valid until the next call. Each loop has an Answer of its own, and one
// goroutine that calls it.
type Answer func(c *Conn, in []byte) (read int, replies []byte, then Then)

// Options of New. All but Yield are required.
type Options struct {
	Loops     int
	NewAnswer func() Answer

	// Yield has a loop let others run after each round of events. A loop with work keeps its processor for 10 ms else,
	// which is too long where the processor is Go's only one. Elsewhere Go wakes a thread for each round that yields.
	Yield bool

	// First and Idle are how long a connection stays open without a whole request: from Add on, and after a reply.
	First, Idle time.Duration

	// Answered is called when the kernel has taken the replies of an Answer, unless c is to be closed.
	Answered func(c *Conn)
	// Ended is called once c is closed. err is nil when the client has left, or stayed without a request for too long.
	Ended func(c *Conn, err error)
	// Left is called on a goroutine of its own for a connection that has left the loops. conn, a *net.TCPConn or a
	// *Resumed, is its connection now, and belongs to Left. unsent are the replies that the kernel has not taken; last
	// tells that the connection ends after these.
	Left func(c *Conn, conn net.Conn, unsent []byte, last bool)
}
