//go:build !linux

package proxy

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// hungUp tells what the kernel knows of a connection's other side: silent = the other side sends no
// more, gone = the connection is broken or closed. Bytes that have arrived and are unread, such as
// a pipelined request, hide the end of the stream. shut = this side reads no more: the end of the
// stream may be this side's, and silent stays false.
func hungUp(raw syscall.RawConn, shut bool) (silent, gone bool) {
	err := raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK) // a non-blocking socket
		switch {
		case err == nil:
			silent = n == 0 && !shut
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			gone = true
		}
	})
	return silent, gone || err != nil
}
