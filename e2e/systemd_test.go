package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager plays systemd for a service of Type=notify: it takes what the service tells.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

// newManager listens at path.
func newManager(t *testing.T, path string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := os.Chmod(path, 0o777); err != nil { // the service is another user
		t.Fatal(err)
	}
	return &manager{t, conn}
}

// await returns once the service has told state; before that the service may tell the states of others.
func (m *manager) await(state string, others ...string) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	for buf := make([]byte, 4096); ; {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", state, err)
		}
		told := string(buf[:n])
		if told == state {
			return
		}
		if !strings.Contains(strings.Join(others, "\n"), told) {
			m.t.Fatalf("the service told %q, waiting for %s", told, state)
		}
	}
}

// A service of systemd tells that it is ready, healthy, and stopping. Failures that another start would meet again
// have exit codes of their own.
func TestNotify(t *testing.T) {
	t.Parallel()
	m := newMirror(t, nil)
	socket := filepath.Join(t.TempDir(), "notify")
	systemd := newManager(t, socket)
	m.env = append(cleanEnv(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=150000")
	m.launch()
	systemd.await("READY=1")
	systemd.await("WATCHDOG=1")
	systemd.await("WATCHDOG=1")
	m.stop()
	systemd.await("STOPPING=1", "WATCHDOG=1")

	m.env = append(cleanEnv(), "NOTIFY_SOCKET="+socket)
	m.set(settings{"log.level": "loud"})
	m.launch()
	if code := m.awaitExit(20 * time.Second); code != 96 {
		t.Errorf("wrong settings: exit %d, want 96", code)
	}
}
