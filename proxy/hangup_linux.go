package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// hungUp tells what the kernel knows of a connection's other side: silent = the other side sends no
// more, gone = the connection is broken or closed. Bytes that have arrived and are unread hide
// nothing.
func hungUp(raw syscall.RawConn) (silent, gone bool) {
	fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)    //nolint:gosec // descriptors are small
		_, _ = unix.Poll(fds, 0) // an interrupted call finds nothing, and the next call follows soon
	})
	found := fds[0].Revents
	return found&unix.POLLRDHUP != 0, err != nil || found&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
