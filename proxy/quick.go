package proxy

import (
	"github.com/valyala/fasthttp"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// The paths that quick knows.
const (
	pathPing   = "/ping"
	pathImages = "/images"
	pathImage  = "/images/" // and a UUID
)

// quick answers what nearly all clients ask for, again and again: GET and HEAD of /ping, of the list and of a
// manifest, without a query. The replies are prepared, so that quick needs no allocation, no lock and no
// context. quick is false, and has done nothing, for a request that is anything more than that; then dispatch
// answers. Where both can answer, both give the same bytes (TestQuick). For an event loop (request.atOnce) a large body is
// more than that, too, and so is a form that has to be made; the reply may have headers then, and is thrown away.
func (s *Server) quick(req *request, found *head) bool {
	if found.odd || req.headOnly || !req.ctx.IsGet() && !req.ctx.IsHead() {
		return false
	}
	list := s.catalog.Current()
	major := satisfiedByUsual(found.version)
	if major == 0 {
		return false
	}
	channels := len(list.Channels()) > 0
	req.named = major >= 2 && channels
	switch uri := req.ctx.Request.Header.RequestURI(); string(uri) {
	case pathPing:
		s.begin(req, routePing, pathPing)
		s.json(req, s.pong)
		return true
	case pathImages:
		view, ok := list.View(list.DefaultChannel())
		if !ok || len(list.Images()) == 0 {
			return false // there may be a list soon
		}
		encoding := acceptedEncoding(found.encoding)
		s.begin(req, routeImages, pathImages)
		s.varies(req, valueEncoding)
		if req.unchanged(found, view.ETag(req.named, encoding)) {
			return true
		}
		if req.atOnce && !view.Made(req.named, encoding) {
			return false
		}
		reply := view.Reply(req.named, encoding)
		switch {
		case len(reply.Body) <= smallBody || req.ctx.IsHead():
			req.setEncoding(encoding)
			s.sendSmall(req, reply.Body, reply.ETag)
		case req.atOnce:
			return false
		default:
			s.sendWhole(req, wholeList(req, reply, list.DefaultChannel(), encoding))
		}
		return true
	default:
		if len(uri) != len(pathImage)+36 || string(uri[:len(pathImage)]) != pathImage || s.opts.OnUnreachable == UnreachableNotFound {
			return false
		}
		id, ok := manifest.ReadUUID(uri[len(pathImage):])
		if !ok {
			return false
		}
		d := list.Document(id, req.named)
		if d == nil || len(d.Body) > smallBody {
			return false
		}
		s.begin(req, routeImage, d.Path)
		s.varies(req, nil)
		if !req.unchanged(found, d.ETag) {
			s.sendSmall(req, d.Body, d.ETag)
		}
		return true
	}
}

// begin sets the route, and the headers that all replies of the route have. The route is versioned, and open.
func (s *Server) begin(req *request, rt *route, path string) {
	req.record.route, req.record.path = rt, path
	req.path, req.target = path, path
	req.setKey(hdrAllowOrigin, valueAny)
	req.setKey(hdrExpose, valueExposed)
	req.setKey(hdrAPIVersion, valueAPIVersion)
}

// unchanged makes the reply a 304 if the client has what etag tells; see precondition. found is not odd, and
// the reply has no date.
func (req *request) unchanged(found *head, etag string) bool {
	if len(found.match) == 0 || !matchTags(found.match, etag) {
		return false
	}
	req.ctx.SetStatusCode(fasthttp.StatusNotModified)
	req.setETag(etag)
	return true
}

// sendDocument sends a prepared reply, or 304 or 412 by the request's conditions.
func (s *Server) sendDocument(req *request, d *catalog.Document) error {
	if done, err := req.condition(validators{etag: d.ETag}); done {
		return err
	}
	if len(d.Body) > smallBody {
		return s.document(req, len(d.Body), func() []byte { return d.Body })
	}
	s.sendSmall(req, d.Body, d.ETag)
	return nil
}

// sendSmall sends a prepared body as a copy in the connection's memory; only HEAD may have a large body.
func (s *Server) sendSmall(req *request, body []byte, etag string) {
	req.setKey(hdrContentType, typeJSON)
	req.setETag(etag)
	if req.ctx.IsHead() {
		req.ctx.Response.Header.SetContentLength(len(body))
		return
	}
	req.ctx.Response.AppendBody(body)
}
