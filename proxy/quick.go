package proxy

import (
	"os"

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

// quickReply is a prepared reply.
type quickReply struct {
	route     *route
	path      string
	etag      string           // "" = no validator
	headers   *catalog.Account // of preparedHeaders; nil = the reply is sent once
	channels  bool             // the mirror has channels
	unchanged bool             // the client has what etag tells
	body      []byte

	// Of a list:
	list     bool
	channel  string // of the view
	reply    *catalog.Reply
	encoding catalog.Encoding
	file     *os.File // has body, which is large; for an event loop
}

// quick answers what nearly all clients ask for, again and again: see quickReply. quick is false, and has done
// nothing, for any other request; then dispatch answers. Where both can answer, both give the same bytes (TestQuick).
func (s *Server) quick(req *request, found *head) bool {
	q, ok := s.quickReply(req, found)
	if ok {
		s.fill(req, &q)
	}
	return ok
}

// quickReply finds the reply to what nearly all clients ask for, again and again: GET and HEAD of /ping, of the list
// and of a manifest, without a query. The replies are prepared, so that quickReply needs no context, no lock but that
// of a list's file, and no allocation but for manifests that the list does not keep. ok is false for a request that is
// anything more than that. For an event loop (request.atOnce) a large body that no file has is more than that, too, and
// so is a form that has to be made.
func (s *Server) quickReply(req *request, found *head) (q quickReply, ok bool) {
	if found.odd || req.headOnly || !req.ctx.IsGet() && !req.ctx.IsHead() {
		return q, false
	}
	list := s.catalog.Current()
	major := satisfiedByUsual(found.version)
	if major == 0 {
		return q, false
	}
	channels := len(list.Channels()) > 0
	req.named = major >= 2 && channels
	switch uri := req.ctx.Request.Header.RequestURI(); string(uri) {
	case pathPing:
		return quickReply{route: routePing, path: pathPing, body: s.pong, headers: &s.pongHeaders}, true
	case pathImages:
		view, ok := list.View(list.DefaultChannel())
		if !ok || len(list.Images()) == 0 {
			return q, false // there may be a list soon
		}
		encoding := acceptedEncoding(found.encoding)
		q = quickReply{route: routeImages, path: pathImages, channels: channels, list: true, channel: list.DefaultChannel(), encoding: encoding,
			etag: view.ETag(req.named, encoding), headers: view.Headers(req.named, encoding)}
		if q.unchanged = isUnchanged(found, q.etag); q.unchanged {
			return q, true
		}
		if req.atOnce && !view.Made(req.named, encoding) {
			return q, false
		}
		q.reply = view.Reply(req.named, encoding)
		q.body = q.reply.Body
		if !req.atOnce || len(q.body) <= smallBody || req.ctx.IsHead() {
			return q, true
		}
		q.file = s.listFile(sharedOf(q.reply.Account, len(q.body)), q.body)
		return q, q.file != nil
	default:
		if len(uri) != len(pathImage)+36 || string(uri[:len(pathImage)]) != pathImage || s.opts.OnUnreachable == UnreachableNotFound {
			return q, false
		}
		id, ok := manifest.ReadUUID(uri[len(pathImage):])
		if !ok {
			return q, false
		}
		d := list.Document(id, req.named)
		if d == nil || len(d.Body) > smallBody {
			return q, false
		}
		return quickReply{route: routeImage, path: d.Path, channels: channels, etag: d.ETag, headers: d.Headers, body: d.Body, unchanged: isUnchanged(found, d.ETag)}, true
	}
}

// fill makes q the reply.
func (s *Server) fill(req *request, q *quickReply) {
	s.begin(req, q.route, q.path)
	switch {
	case q.etag == "":
		s.json(req, q.body)
		return
	case q.list:
		req.varies(valueEncoding, q.channels)
	default:
		req.varies(nil, q.channels)
	}
	switch {
	case q.unchanged:
		req.ctx.SetStatusCode(fasthttp.StatusNotModified)
		req.setETag(q.etag)
	case len(q.body) <= smallBody || req.ctx.IsHead():
		req.setEncoding(q.encoding)
		s.sendSmall(req, q.body, q.etag)
	case q.file != nil:
		req.setEncoding(q.encoding)
		req.setKey(hdrContentType, typeJSON)
		req.setETag(q.etag)
		req.ctx.Response.Header.SetContentLength(len(q.body))
	default:
		s.sendWhole(req, wholeList(req, q.reply, q.channel, q.encoding))
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

// isUnchanged tells whether the client has what etag tells: see precondition. found is not odd, and the reply has no
// date.
func isUnchanged(found *head, etag string) bool {
	return len(found.match) > 0 && matchTags(found.match, etag)
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
