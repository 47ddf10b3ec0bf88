package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// tcpEstablished is TCP_ESTABLISHED, the state of a connection that neither side has ended.
const tcpEstablished = 1

// hungUp tells what the kernel knows of a connection's other side: silent = the other side sends no
// more, gone = the connection is broken or closed. Bytes that have arrived and are unread hide
// nothing. shut = this side reads no more: poll(2) reports that like a silence of the other side, and the
// state of the connection tells the two apart.
func hungUp(raw syscall.RawConn, shut bool) (silent, gone bool) {
	fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err := raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)    //nolint:gosec // descriptors are small
		_, _ = unix.Poll(fds, 0) // an interrupted call finds nothing, and the next call follows soon
		silent = fds[0].Revents&unix.POLLRDHUP != 0
		if silent && shut {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			silent = err == nil && info.State != tcpEstablished
		}
	})
	return silent, err != nil || fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
