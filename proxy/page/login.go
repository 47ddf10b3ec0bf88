package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The bounds of a login, beside those of admin.Tries.
const (
	shortToken = 16 // characters, below which a token can be guessed
	retryLogin = 5 * time.Second
)

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
	if !(right && len(p.o.Token) >= shortToken) && !p.tries.Spend(r.RemoteAddr) {
		p.metrics.logins[loginLimited].Inc()
		w.Header().Set("Retry-After", strconv.Itoa(int(retryLogin/time.Second)))
		p.showLogin(w, r, http.StatusTooManyRequests, to, "Too many tries. Wait some seconds, and try again.")
		return
	}
	if !right {
		p.metrics.logins[loginWrong].Inc()
		p.log.Warn("a login was refused: the token is wrong", "remote", r.RemoteAddr)
		p.tries.Pause(r)
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
