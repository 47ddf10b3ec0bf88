package admin

import (
	"net"
	"net/http"
	"sync"
)

// silent is the connections of a server that have not asked anything yet, as
// browsers open them to be ready. http.Server.Shutdown would wait for them.
type silent struct {
	mu    sync.Mutex // guards what follows
	ended bool
	conns map[net.Conn]struct{}
}

// watchSilent makes server, which does not serve yet, tell of its connections.
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
		conn.Close() //nolint:errcheck // nobody has said anything
	default:
		s.conns[conn] = struct{}{}
	}
}

// end closes them, and those to come.
func (s *silent) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for conn := range s.conns {
		conn.Close() //nolint:errcheck // nobody has said anything
	}
}
