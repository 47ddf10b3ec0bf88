package proxy

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errGone is why a reply that had to wait for bytes was given up.
var errGone = errors.New("it has hung up")

// gone tells that the other side of conn has hung up, as far as the kernel
// knows. Nobody may be reading from conn, and nothing is taken from it.
func gone(conn net.Conn) bool {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = outer.NetConn()
	}
	inner, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := inner.SyscallConn()
	if err != nil {
		return false
	}
	over := false
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK) // does not wait: Go's sockets never do
		over = n == 0 && err == nil || errors.Is(err, unix.ECONNRESET)
	})
	return over || errors.Is(err, net.ErrClosed)
}
