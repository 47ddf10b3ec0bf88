package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"imgmirror/proxy/meaning"
)

// realm is the challenge of a refusal for want of the token.
const realm = `Bearer realm="imgmirror"`

// guard lets only operators through to next. The check precedes the routing, and the first byte of a
// body. A short token has Tries: a caller without tries gets in with no token. A caller with a
// token that cannot be guessed is never shut out.
func (s *Server) guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.o.Token))
	short := len(s.o.Token) < minToken // a token that can be guessed at the rate of the network
	deny := func(w http.ResponseWriter, r *http.Request, message string) {
		w.Header().Set("WWW-Authenticate", realm)
		s.refuse(w, r, refuse(http.StatusUnauthorized, meaning.Unauthorized, "%s", message))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := s.crossSite(r); fault != "" {
			s.refuse(w, r, refuse(http.StatusForbidden, codeForbidden, "%s", fault))
			return
		}
		if short && !s.tries.Left(r.RemoteAddr) {
			deny(w, r, "too many tries with a wrong token: wait some seconds")
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		// Digests have one length: the time taken tells nothing of the token.
		same := subtle.ConstantTimeCompare(got[:], want[:]) == 1
		if !same || s.o.Token == "" || !strings.EqualFold(scheme, "Bearer") {
			if token != "" {
				s.tries.Spend(r.RemoteAddr)
			}
			deny(w, r, "the token is missing or wrong: imgmirror token on the mirror's machine prints the token "+
				"(header Authorization: Bearer TOKEN; a verb: --token-file FILE)")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// crossSite says what is wrong with a request that a browser makes for a page of another site; "" =
// nothing. Browsers tell the site by Sec-Fetch-Site and Origin, which no page can take away. Neither
// header shows that a foreign name resolves to this machine, so a browser may call the mirror by
// addresses, localhost and Options.Hosts only.
func (s *Server) crossSite(r *http.Request) string {
	origin := r.Header.Get("Origin")
	if r.Header.Get("Sec-Fetch-Site") == "" && origin == "" {
		return "" // no browser, or a page's own picture, which has no token
	}
	write := *r
	write.Method = http.MethodPost // reads are no more open than writes
	err := new(http.CrossOriginProtection).Check(&write)
	from, bad := url.Parse(origin)
	if err != nil || bad != nil || origin != "" && !s.knownHost(from.Host) {
		return "requests from pages of other sites are refused"
	}
	if !s.knownHost(r.Host) {
		return "browsers must call the mirror by an address or a name of its own"
	}
	return ""
}

// knownHost tells whether a Host header is the mirror's own: an address, localhost, or one of
// Options.Hosts. No foreign name service decides on these.
func (s *Server) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	same := func(name string) bool { return name != "" && strings.EqualFold(host, name) }
	return same("localhost") || slices.ContainsFunc(s.o.Hosts, same)
}
