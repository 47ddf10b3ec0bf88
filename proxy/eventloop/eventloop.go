// Package eventloop has connections between their requests, and answers at once what can be answered without a wait:
// a few loops around epoll(7) instead of a goroutine for each connection. A small answer costs two system calls on the
// thread of the loop. With a goroutine the answer costs as many, and the way from thread to thread and back.
//
// A loop never waits for one client. A connection leaves the loops when its next request is not answered at once, and
// when its client takes small replies too slowly. A larger reply comes out of a file, which takes the place of the bytes
// that wait for a slow client: the connection stays.
package eventloop

import (
	"errors"
	"net"
	"os"
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

// Answer reads requests from the begin of in, and gives the replies. An Answer waits for no client, source or disk.
// in and the replies are valid until the next call. Each loop has an Answer of its own, and one goroutine that calls
// it.
type Answer func(c *Conn, in []byte) Replies

// Replies are the replies to some requests of a connection.
type Replies struct {
	Read  int    // bytes of in that were read
	Bytes []byte // whole replies, but for File
	File  File   // the rest of the last reply; all of in has been read then
	Then  Then   // after a File, Wait or Close
}

// File is the body of a reply. The zero File is none.
type File struct {
	*os.File               // has Size bytes or more, in memory
	Size     int64         // bytes to send, from the begin of the file
	Time     time.Duration // within which the client has to take all
}

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
	// Ended is called once c is closed. err is nil when c was to be closed, when the client has left between two
	// requests, and when the client stayed without a request for too long. The error of a client that has not taken a
	// File in time matches os.ErrDeadlineExceeded.
	Ended func(c *Conn, err error)
	// Left is called on a goroutine of its own for a connection that has left the loops. conn, a *net.TCPConn or a
	// *Resumed, is its connection now, and belongs to Left. unsent are the replies that the kernel has not taken; last
	// tells that the connection ends after these.
	Left func(c *Conn, conn net.Conn, unsent []byte, last bool)
}
