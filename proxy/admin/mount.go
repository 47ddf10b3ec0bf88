package admin

import "net/http"

// pagePath is where the web page of operators is.
const pagePath = "/ui/"

// Mount serves page below /ui/ on Handler, and sends callers of / there. The page decides for itself
// who may see what; requests that a browser makes for another site's page, or under a name that is not
// the mirror's own, do not reach the page. Call Mount before Run.
func (s *Server) Mount(page http.Handler) { s.page = page }

// servePage is the part of Handler that Mount fills.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	if s.page == nil {
		http.NotFound(w, r)
		return
	}
	if fault := s.foreign(r); fault != "" {
		say(w, http.StatusForbidden, fault+"\n")
		return
	}
	if r.URL.Path == "/" {
		http.Redirect(w, r, pagePath, http.StatusFound)
		return
	}
	s.page.ServeHTTP(w, r)
}

// foreign is crossSite for the page, which a link of another site may lead to. The host counts for
// each caller: browsers tell nothing of themselves in a request for a page.
func (s *Server) foreign(r *http.Request) string {
	if !s.knownHost(r.Host) {
		return "call the mirror by an address, by localhost, by the name of its machine, or by the host of public_url"
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if mode := r.Header.Get("Sec-Fetch-Mode"); mode == "" || mode == "navigate" {
			return ""
		}
	}
	return s.crossSite(r)
}
