package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// SocketName is the name of the socket in a data folder.
const SocketName = "admin.sock"

// ListenSocket listens on a Unix socket at path, to which from the first moment only the owner can
// connect. A former socket at path is replaced: the caller knows that no process listens there. Close
// removes the file of the socket.
func ListenSocket(path string) (*Socket, error) {
	ln, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	return &Socket{path: path, ln: ln}, nil
}

func listenUnix(path string) (*net.UnixListener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("admin socket: %s is in the way, and is no socket", path)
	}
	// The socket is made in a folder of the owner alone, and moved when its permissions are right.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the folder is empty
	name := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(name), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(name, 0o600), os.Rename(name, path)); err != nil {
		ln.Close() //nolint:errcheck // no client knows of the socket
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return ln, nil
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

// Socket is a listener on a Unix socket that lasts although its file is removed.
type Socket struct {
	path string

	mu     sync.Mutex // guards what follows
	ln     *net.UnixListener
	closed bool
}

func (s *Socket) current() *net.UnixListener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ln
}

// Accept implements net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		ln := s.current()
		c, err := ln.Accept()
		if err != nil && s.current() != ln { // another has taken its place
			continue
		}
		return c, err
	}
}

// Addr implements net.Listener.
func (s *Socket) Addr() net.Addr { return s.current().Addr() }

// Close ends the listener and removes its file.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	err := s.ln.Close()
	if lost := os.Remove(s.path); err == nil && !errors.Is(lost, fs.ErrNotExist) {
		err = lost
	}
	return err
}

// Renew listens anew if the socket's file is gone, and tells whether it was.
// Connections that are open stay.
func (s *Socket) Renew() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Lstat(s.path); s.closed || !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	ln, err := listenUnix(s.path)
	if err != nil {
		return false, err
	}
	before := s.ln
	s.ln = ln
	return true, before.Close()
}

// socketEvery is the time between two looks at the socket's file.
const socketEvery = 5 * time.Second

// keep makes the socket's file anew whenever the file has been removed, until ctx ends: without the file the
// verbs on this machine cannot reach the mirror.
func (s *Socket) keep(ctx context.Context, log *slog.Logger) {
	t := time.NewTicker(socketEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		renewed, err := s.Renew()
		switch {
		case err != nil:
			log.Warn("the admin socket is gone, and cannot be made anew", "error", err)
		case renewed:
			log.Warn("the admin socket was gone, and is made anew")
		}
	}
}
