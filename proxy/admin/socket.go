package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// SocketName is the name of the socket in a data folder.
const SocketName = "admin.sock"

// ListenSocket listens on a Unix socket at path that its owner alone can
// connect to, from the first moment on. A socket that is there is replaced: the
// caller knows that nobody listens on it. Close removes it.
func ListenSocket(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("admin socket: %s is in the way, and is no socket", path)
	}
	// It is made in a folder that nobody else can enter, and moved when its
	// permissions are right.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is empty
	name := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(name), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(name, 0o600), os.Rename(name, path)); err != nil {
		ln.Close() //nolint:errcheck // nobody knows of it
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return &socket{UnixListener: ln, path: path}, nil
}

// SocketPath is path in the form to listen and to dial with: systems take some
// 100 bytes, so the shorter of absolute and relative to the working folder.
func SocketPath(path string) string {
	best := path
	if abs, err := filepath.Abs(path); err == nil {
		if len(abs) < len(best) {
			best = abs
		}
		if wd, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(wd, abs); err == nil && len(rel) < len(best) {
				best = rel
			}
		}
	}
	return best
}

// socket removes its file when it is closed.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if err == nil {
		err = os.Remove(s.path)
	}
	return err
}
