package proxy

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// sendBuffer is what the kernel may hold of a connection's bytes on their way.
func sendBuffer(t *testing.T, nc net.Conn) (size int) {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// A large file goes to a near client through a small buffer, which the kernel no longer enlarges; other
// replies leave the buffer to the kernel.
func TestNearClientsHaveSmallBuffers(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/core/wmem_max")
	if err != nil {
		t.Skip(err)
	}
	most, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	content := noise(3 * step)
	f, g := withStore(t, content, "")
	g.pass(len(content))
	f.start()
	for _, test := range []struct {
		header string
		near   bool
	}{{"Range: bytes=0-9999", false}, {"Accept: */*", true}} {
		c := f.dial()
		if r := f.exchange(c, bufio.NewReader(c), "GET", filePath, test.header); len(r.body) == 0 {
			t.Fatalf("status %d", r.status)
		}
		var server net.Conn
		for nc := range f.server.conns.open.Range {
			if nc.(net.Conn).RemoteAddr().String() == c.LocalAddr().String() {
				server = nc.(net.Conn)
			}
		}
		if got := sendBuffer(t, server); (got == 2*min(nearBuffer, most)) != test.near {
			t.Errorf("%s: the buffer has %d bytes", test.header, got)
		}
		c.Close()
	}
}

// A round trip of 0 is none that was measured: a far client keeps its send buffer.
func TestIsNear(t *testing.T) {
	for rtt, want := range map[uint32]bool{0: false, 1: true, nearTime: true, nearTime + 1: false, ^uint32(0): false} {
		if got := isNear(&unix.TCPInfo{Min_rtt: rtt}); got != want {
			t.Errorf("a round trip of %d µs is near: %v", rtt, got)
		}
	}
}
