package page

import "net/http"

// root is where the page is, on both listeners.
const root = "/ui/"

// route is one page.
type route struct {
	path     string // below root; {name} is read by visit.PathValue
	template string // the file in templates, without its ending
	title    string // of the page; load's value may have a better one, see titled
	nav      string // the text in the navigation; "" = the page is not there
	section  string // of a page that is not in the navigation: the path of the page that is marked
	private  bool   // operators only
	load     func(*Page, *visit) (any, error)
	act      func(*Page, *visit) (to string, err error) // does what a form asks for; nil = there is none
}

// routes is every page, in the order of the navigation.
var routes = []route{
	{path: "", template: "overview", title: "Overview", nav: "Overview", load: (*Page).overview},
	{path: "images", template: "images", title: "Images", nav: "Images", load: (*Page).images},
	{path: "images/{uuid}", template: "image", title: "Image", section: "images", load: (*Page).image, act: (*Page).actImage},
	{path: "images/{uuid}/delete", template: "image-confirm", title: "Delete", section: "images", private: true, load: (*Page).confirmDelete},
	{path: "images/{uuid}/unpublish", template: "image-confirm", title: "Unpublish", section: "images", private: true, load: (*Page).confirmUnpublish},
	{path: "publish", template: "publish", title: "Publish an image", section: "images", private: true, load: (*Page).publishForm, act: (*Page).actPublish},
	{path: "nodes", template: "nodes", title: "Nodes", nav: "Nodes", private: true, load: (*Page).nodes, act: (*Page).actNodes},
	{path: "nodes/forget", template: "nodes-forget", title: "Delete the journal", section: "nodes", private: true, load: (*Page).forgetNodes},
	{path: "nodes/{address}", template: "node", title: "Node", section: "nodes", private: true, load: (*Page).node, act: (*Page).actNode},
	{path: "nodes/{address}/forget", template: "node-forget", title: "Delete a node", section: "nodes", private: true, load: (*Page).forgetNode},
	{path: "sources", template: "sources", title: "Sources", nav: "Sources", load: (*Page).sources, act: (*Page).actSources},
	{path: "jobs", template: "jobs", title: "Jobs", nav: "Jobs", load: (*Page).jobs, act: (*Page).actJobs},
	{path: "jobs/{id}", template: "job", title: "Job", section: "jobs", load: (*Page).job, act: (*Page).actJob},
	{path: "connect", template: "connect", title: "Connect a node", nav: "Connect a node", load: (*Page).connect},
}

// operatorRoutes is the side of operators.
func (p *Page) operatorRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+root+"static/{file}", http.HandlerFunc(serveAsset))
	mux.HandleFunc("GET "+root+"login", p.login)
	mux.HandleFunc("POST "+root+"login", p.login)
	mux.HandleFunc("GET "+root+"live", p.live)
	mux.Handle("POST "+root+"logout", p.signedIn(p.logout))
	for _, rt := range routes {
		h := p.signedIn(func(w http.ResponseWriter, r *http.Request, s *session) { p.serve(w, r, rt, s) })
		mux.Handle("GET "+root+rt.pattern(), h)
		mux.Handle("POST "+root+rt.pattern(), h)
	}
	mux.Handle(root, p.signedIn(func(w http.ResponseWriter, r *http.Request, s *session) {
		p.fail(w, &visit{Request: r, page: p, session: s}, notFound)
	}))
	return guarded(mux)
}

// clientRoutes is the side of clients: no forms, no sessions.
func (p *Page) clientRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+root+"static/{file}", http.HandlerFunc(serveAsset))
	for _, rt := range routes {
		if rt.private {
			continue
		}
		mux.HandleFunc("GET "+root+rt.pattern(), func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, rt, nil) })
	}
	mux.HandleFunc(root, func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, &visit{Request: r, page: p}, notFound)
	})
	return guarded(mux)
}

// pattern is the path for a ServeMux: the root's own matches no more than itself.
func (rt route) pattern() string {
	if rt.path == "" {
		return "{$}"
	}
	return rt.path
}

// policy is what a browser may do for the page: nothing from elsewhere, and no script or style in a
// page's own text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guarded is h with the headers that each reply has.
func guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		// no-referrer would make the Origin of forms "null".
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}
