package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bounds of logins. A token of the mirror's own making cannot be guessed at any rate, so that the
// right one lets in an operator whom the tries of strangers have left none. The bounds are for short
// tokens that operators have made, and for the time that wrong tries take.
const (
	shortToken = 16 // characters, below which a token can be guessed

	triesEvery     = 250 * time.Millisecond // of all callers together, after triesBurst
	triesBurst     = 20
	addressEvery   = 3 * time.Second // of one address, after addressBurst
	addressBurst   = 5
	maxAddresses   = 1024                   // that are remembered
	wrongPause     = 300 * time.Millisecond // before the reply to a wrong token
	retryLogin     = 5 * time.Second
	maxLoginWaiter = 16 // replies that pause at the same time
)

// tries counts the tries of a login.
type tries struct {
	all     *rate.Limiter
	waiting chan struct{}

	mu    sync.Mutex
	known map[netip.Prefix]*rate.Limiter
}

func (t *tries) init() {
	t.all = rate.NewLimiter(rate.Every(triesEvery), triesBurst)
	t.waiting = make(chan struct{}, maxLoginWaiter)
	t.known = make(map[netip.Prefix]*rate.Limiter)
}

// allowed tells whether a caller may try now. An address that has used up its tries costs the other
// addresses nothing.
func (t *tries) allowed(remote string) bool {
	now := time.Now()
	return t.of(network(remote), now).AllowN(now, 1) && t.all.AllowN(now, 1)
}

// of is the limit of one address. Where too many are remembered, those with all their tries are
// forgotten, and then any.
func (t *tries) of(who netip.Prefix, now time.Time) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.known[who]
	if l == nil {
		if len(t.known) >= maxAddresses {
			for other, l := range t.known {
				if l.TokensAt(now) >= addressBurst {
					delete(t.known, other)
				}
			}
		}
		for other := range t.known {
			if len(t.known) < maxAddresses {
				break
			}
			delete(t.known, other)
		}
		l = rate.NewLimiter(rate.Every(addressEvery), addressBurst)
		t.known[who] = l
	}
	return l
}

// network is the address of a caller; of IPv6 its /64, all of which one machine may use.
func network(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // the number of bits fits
	return prefix
}

// pause makes a caller with a wrong token wait, unless many wait already.
func (t *tries) pause(r *http.Request) {
	select {
	case t.waiting <- struct{}{}:
	default:
		return
	}
	defer func() { <-t.waiting }()
	wait := time.NewTimer(wrongPause)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-r.Context().Done():
	}
}

// loginForm is the value of login.html.
type loginForm struct {
	To    string // the page that was asked for
	Fault string
	Off   bool // no token opens the page
}

// login is GET and POST /ui/login.
func (p *Page) login(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		p.showLogin(w, r, http.StatusOK, r.URL.Query().Get("to"), "")
		return
	}
	if err := readForm(w, r); err != nil {
		p.fail(w, &visit{Request: r, page: p}, err)
		return
	}
	to := r.PostForm.Get("to")
	// Digests have one length: the time taken tells nothing of the token.
	got, want := sha256.Sum256([]byte(strings.TrimSpace(r.PostForm.Get("token")))), sha256.Sum256([]byte(p.o.Token))
	right := subtle.ConstantTimeCompare(got[:], want[:]) == 1 && p.o.Token != ""
	if !(right && len(p.o.Token) >= shortToken) && !p.tries.allowed(r.RemoteAddr) {
		p.metrics.logins[loginLimited].Inc()
		w.Header().Set("Retry-After", strconv.Itoa(int(retryLogin/time.Second)))
		p.showLogin(w, r, http.StatusTooManyRequests, to, "Too many tries. Wait some seconds, and try again.")
		return
	}
	if !right {
		p.metrics.logins[loginWrong].Inc()
		p.log.Warn("a login was refused: the token is wrong", "remote", r.RemoteAddr)
		p.tries.pause(r)
		p.showLogin(w, r, http.StatusUnauthorized, to, "This is not the token.")
		return
	}
	p.metrics.logins[loginRight].Inc()
	p.sessions.end(r) // a login ends the browser's last session
	id, _ := p.sessions.begin()
	http.SetCookie(w, cookie(r, id, int(sessionLife/time.Second)))
	p.log.Info("an operator has signed in", "remote", r.RemoteAddr)
	http.Redirect(w, r, local(to), http.StatusSeeOther)
}

// logout is POST /ui/logout.
func (p *Page) logout(w http.ResponseWriter, r *http.Request, s *session) {
	v := &visit{Request: r, page: p, session: s}
	if err := v.admit(w); err != nil {
		p.fail(w, v, err)
		return
	}
	p.sessions.end(r)
	http.SetCookie(w, cookie(r, "", -1))
	p.log.Info("an operator has signed out", "remote", r.RemoteAddr)
	http.Redirect(w, r, root+"login", http.StatusSeeOther)
}

// cookie carries a session's id. No script sees the cookie, and no request that another site begins
// has it.
func cookie(r *http.Request, id string, age int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: id, Path: root, MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	}
}

// local is to, if to is a page of the mirror, else the overview.
func local(to string) string {
	if strings.HasPrefix(to, root) && !strings.ContainsAny(to, "\\\r\n") && !strings.Contains(to, "//") && !strings.Contains(to, "..") {
		return to
	}
	return root
}

// showLogin sends the form for the token.
func (p *Page) showLogin(w http.ResponseWriter, r *http.Request, status int, to, fault string) {
	if to = local(to); to == root {
		to = ""
	}
	p.show(w, &visit{Request: r, page: p}, status, "login", "Sign in", loginForm{To: to, Fault: fault, Off: p.o.Token == ""})
}
