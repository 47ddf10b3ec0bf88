// Package page is the web page of the mirror: what the mirror does, has and saves, in a browser. The
// page is a client of the admin API, as the verbs are: each fact comes from an admin.Client, and each
// action is an operation of the API. The package owns templates, sessions of operators, and the rule
// of what clients may see (public.go).
//
// There are two sides. Operators is for the admin listener: a login with the token, then all pages with
// their actions. Clients is for the clients' listener: the same pages without actions, without private
// images, and without addresses of nodes.
//
// # A new page
//
// A page is a Go file, a template, and a row of the table in routes.go:
//
//   - images.go has load, which makes the value that the template gets, and act, which does what a form
//     asks for. Both get a *visit. v.api() is the client of the API, v.operator() tells the side, and
//     v.say leaves a line that the next page shows once. load must leave out what clients may not see:
//     public.go has the functions for this.
//   - templates/images.html defines "main", with load's value as .Data. Forms post to the page's own
//     path, and have {{template "csrf" .}} inside. render.go has the functions for sizes, times and
//     badges; page.css has the classes. Templates need no thought for hostile text: render.go shows
//     control characters and marks of direction as text.
//   - A part that changes by itself is <section id="x" data-live>, with a template and a row in the
//     table of live.go.
package page

import (
	"context"
	"html/template"
	"log/slog"
	"mime/multipart"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/proxy/admin"
)

// Options of New. Required: API.
type Options struct {
	API     *admin.Client
	Version string // of the mirror, for the foot of each page
	// Token lets operators in; "" = no one.
	Token string
	// PublicURL is what clients call the mirror; "" = the host of each request, with ClientPort.
	PublicURL string
	// Client gives scheme and port of the clients' listener; nil = those of the request.
	Client func() (scheme, port string)
	// Public tells whether clients may see the page at the moment; nil = they may not.
	Public func() bool
	Logger *slog.Logger // nil = discard

	Registerer prometheus.Registerer // nil = unregistered metrics
}

// Page makes the replies of both sides. The methods may be called concurrently.
type Page struct {
	o         Options
	log       *slog.Logger
	templates map[string]*template.Template // by the name of the file, without its ending
	parts     []part
	sessions  sessions
	tries     *admin.Tries
	verdicts  verdicts
	metrics   *metrics
	operators http.Handler
	clients   *Clients

	operatorHub, clientHub *hub
}

// New builds the page; it starts nothing. A template with a fault is an error.
func New(o Options) (*Page, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Public == nil {
		o.Public = func() bool { return false }
	}
	p := &Page{o: o, log: o.Logger.With("component", "page"), parts: parts}
	p.tries = admin.NewTries()
	p.metrics = newMetrics(o.Registerer, p)
	p.operatorHub, p.clientHub = newHub(p, true), newHub(p, false)
	var err error
	if p.templates, err = parseTemplates(); err != nil {
		return nil, err
	}
	p.operators = p.operatorRoutes()
	p.clients = &Clients{page: p, routes: p.clientRoutes()}
	return p, nil
}

// Operators is the side of operators: everything below /ui/.
func (p *Page) Operators() http.Handler { return p.operators }

// Clients is the side of clients.
func (p *Page) Clients() *Clients { return p.clients }

// Clients answers requests of clients. Replies are short enough to be made whole.
type Clients struct {
	page   *Page
	routes http.Handler
}

// Open tells whether clients may see the page at the moment.
func (c *Clients) Open() bool { return c.page.o.Public() }

// ServeHTTP answers GET and HEAD below /ui/.
func (c *Clients) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.routes.ServeHTTP(w, r) }

// visit is one request for a page.
type visit struct {
	*http.Request
	page    *Page
	route   route             // zero: there is no such page
	session *session          // nil on the side of clients
	parts   *multipart.Reader // what follows the token in a form with files; nil for other forms
}

// operator tells that the visitor has signed in, and may see and do everything.
func (v *visit) operator() bool { return v.session != nil }

// api is the client of the API.
func (v *visit) api() *admin.Client { return v.page.o.API }

// look is a look at the mirror for the visitor's side.
func (v *visit) look() *look {
	return &look{Context: v.Context(), page: v.page, operator: v.operator()}
}

// say leaves a line that the next page of the session shows once.
func (v *visit) say(text string) {
	if v.session != nil {
		v.session.notice.Store(&text)
	}
}

// loadTimeout bounds the making of a reply.
const loadTimeout = 30 * time.Second

// serve answers with the page of rt.
func (p *Page) serve(w http.ResponseWriter, r *http.Request, rt route, s *session) {
	v := &visit{Request: r, page: p, route: rt, session: s}
	if r.Method == http.MethodPost {
		p.act(w, v, rt)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), loadTimeout)
	defer cancel()
	v.Request = r.WithContext(ctx)
	if rt.load == nil {
		p.fail(w, v, notFound)
		return
	}
	data, err := rt.load(p, v)
	if err != nil {
		p.fail(w, v, err)
		return
	}
	name := rt.template
	if t, ok := data.(templated); ok {
		name = t.template()
	}
	p.show(w, v, http.StatusOK, name, rt.title, data)
}

// templated is a load's value that has a template of its own.
type templated interface{ template() string }

// act does what a form of the page of rt asks for, and leads to the page that shows the outcome.
func (p *Page) act(w http.ResponseWriter, v *visit, rt route) {
	if rt.act == nil {
		w.Header().Set("Allow", "GET, HEAD")
		p.fail(w, v, &fault{http.StatusMethodNotAllowed, "Nothing to do here", "This page has no forms."})
		return
	}
	if err := v.admit(w); err != nil {
		p.fail(w, v, err)
		return
	}
	p.log.Info("operator's form", "path", v.URL.Path, "do", v.PostForm.Get("do"), "remote", v.RemoteAddr)
	to, err := rt.act(p, v)
	if err != nil {
		p.fail(w, v, err)
		return
	}
	http.Redirect(w, v.Request, to, http.StatusSeeOther)
}
