package admin

import (
	"net"
	"net/http"
	"sync"
)

// silent is the connections of a server on which no request has begun; browsers open such connections
// to be ready. http.Server.Shutdown would wait for them.
type silent struct {
	mu    sync.Mutex // guards what follows
	ended bool
	conns map[net.Conn]struct{}
}

// watchSilent makes a server that has not begun to serve tell of its connections.
func watchSilent(server *http.Server) *silent {
	s := &silent{conns: make(map[net.Conn]struct{})}
	server.ConnState = s.note
	return s
}

func (s *silent) note(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.conns, conn)
	case s.ended:
		conn.Close() //nolint:errcheck // no request is lost
	default:
		s.conns[conn] = struct{}{}
	}
}

// end closes the connections of s, and those to come.
func (s *silent) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for conn := range s.conns {
		conn.Close() //nolint:errcheck // no request is lost
	}
}
