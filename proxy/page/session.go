package page

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of sessions.
const (
	maxSessions = 64
	sessionIdle = time.Hour      // without a request
	sessionLife = 12 * time.Hour // in all
)

// cookieName is the cookie with a session's id.
const cookieName = "imgmirror_session"

// session is one operator's browser that has shown the token.
type session struct {
	csrf   string        // what each form of the session must have
	begun  time.Time     // of the login
	ended  chan struct{} // closed at the end; event streams end with it
	used   time.Time     // guarded by sessions.mu
	notice atomic.Pointer[string]
}

// over tells that the session has ended by its age. sessions.mu is held.
func (s *session) over(now time.Time) bool {
	return now.Sub(s.begun) >= sessionLife || now.Sub(s.used) >= sessionIdle
}

// sessions are the sessions of all operators, in memory only. At the bound a new session ends the one
// that has been idle longest. The ids are kept as digests: the look-up takes no time that tells of an id.
type sessions struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]*session
}

// secret is 256 random bits.
func secret() string {
	b := make([]byte, 32)
	rand.Read(b) //nolint:errcheck // never fails
	return hex.EncodeToString(b)
}

// begin makes a session and its id.
func (ss *sessions) begin() (id string, s *session) {
	now := time.Now()
	id, s = secret(), &session{csrf: secret(), begun: now, used: now, ended: make(chan struct{})}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.sweep(now)
	if ss.all == nil {
		ss.all = make(map[[sha256.Size]byte]*session)
	}
	for len(ss.all) >= maxSessions {
		var oldest [sha256.Size]byte
		var longest *session
		for key, other := range ss.all {
			if longest == nil || other.used.Before(longest.used) {
				oldest, longest = key, other
			}
		}
		ss.remove(oldest)
	}
	ss.all[sha256.Sum256([]byte(id))] = s
	return id, s
}

// find gives the session of a request; nil without one. A request is a use, an event stream is not.
func (ss *sessions) find(r *http.Request, use bool) *session {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	now := time.Now()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.sweep(now)
	s := ss.all[sha256.Sum256([]byte(cookie.Value))]
	if s != nil && use {
		s.used = now
	}
	return s
}

// count is the number of sessions.
func (ss *sessions) count() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.sweep(time.Now())
	return len(ss.all)
}

// end ends the session of a request.
func (ss *sessions) end(r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		ss.mu.Lock()
		defer ss.mu.Unlock()
		ss.remove(sha256.Sum256([]byte(cookie.Value)))
	}
}

// sweep ends the sessions that are over by their age. mu is held.
func (ss *sessions) sweep(now time.Time) {
	for key, s := range ss.all {
		if s.over(now) {
			ss.remove(key)
		}
	}
}

// remove ends one session. mu is held.
func (ss *sessions) remove(key [sha256.Size]byte) {
	if s := ss.all[key]; s != nil {
		delete(ss.all, key)
		close(s.ended)
	}
}

// signedIn lets requests with a session through to h. Other requests are sent to the login.
func (p *Page) signedIn(h func(http.ResponseWriter, *http.Request, *session)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s := p.sessions.find(r, true); s != nil {
			h(w, r, s)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			p.showLogin(w, r, http.StatusUnauthorized, "", "Your session has ended, and nothing was done. Sign in, and try again.")
			return
		}
		to := root + "login"
		if r.URL.Path != root {
			to += "?" + url.Values{"to": {r.URL.RequestURI()}}.Encode()
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
}
