package proxy

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/via"
)

// listImages answers GET /images (spec 2.4).
func (s *Server) listImages(req *request) error {
	list, err := s.list(req)
	if err != nil {
		return err
	}
	var params [][2]string
	if req.query != "" {
		params = parseParams(req.query)
	}
	view, channel, err := channelOf(list, params)
	if err != nil {
		return err
	}
	if params == nil {
		return s.sendWholeList(req, view, channel)
	}
	query, err := manifest.ParseQuery(params)
	if err != nil {
		return err
	}
	if query.IsDefault() {
		return s.sendWholeList(req, view, channel)
	}
	picked, err := query.Select(view.Images(), lookupIn(list))
	if err != nil {
		return s.explain(err, "the marker image was not found")
	}
	s.varies(req, nil)
	kind := textKind{form: formImages, channel: channel, named: req.named}
	return s.sendList(req, listOf(kind, view.Text(req.named)).only(picked))
}

// list is the catalogue's list for a reply with images. An empty list counts once every source has
// answered; before, the reply is a 503.
func (s *Server) list(req *request) (*catalog.List, error) {
	w := s.wait(via.With(s.base, req.via), req, listTimeout)
	defer req.endWait(w)
	list, err := s.catalog.Known(w)
	if err != nil {
		return nil, &apiError{status: 503, code: meaning.RemoteSource, message: "there is no list yet: the sources have not answered", cause: err}
	}
	return list, nil
}

// sendWholeList sends all of a channel, or of the mirror: the list that nearly all clients ask for,
// made once per change. No other reply is compressed.
func (s *Server) sendWholeList(req *request, view *catalog.View, channel string) error {
	encoding := acceptedEncoding(req.ctx.Request.Header.Peek("Accept-Encoding"))
	s.varies(req, valueEncoding)
	if done, err := req.condition(validators{etag: view.ETag(req.named, encoding)}); done {
		return err
	}
	return s.transmit(req, wholeList(req, view.Reply(req.named, encoding), channel, encoding))
}

// imagesKind is the text with all of a channel.
func (req *request) imagesKind(channel string, encoding catalog.Encoding) textKind {
	return textKind{form: formImages, channel: channel, named: req.named, encoding: encoding}
}

// wholeList is the reply with all of a channel. The reply's Content-Encoding is set.
func wholeList(req *request, reply *catalog.Reply, channel string, encoding catalog.Encoding) listReply {
	req.setEncoding(encoding)
	return listReply{kind: req.imagesKind(channel, encoding), whole: reply.Body, shared: sharedOf(reply.Account, len(reply.Body)), etag: reply.ETag}
}

// lookupIn finds marker images among all images of list, the unlisted ones included.
func lookupIn(list *catalog.List) func(uuid.UUID) (manifest.Manifest, bool) {
	return func(id uuid.UUID) (manifest.Manifest, bool) {
		e, ok := list.Entry(id)
		return e.Manifest, ok
	}
}

// getImage answers GET /images/:uuid.
func (s *Server) getImage(req *request) error {
	e, err := s.visibleImage(req)
	if err == nil {
		err = s.obtain(req, e)
	}
	if err != nil {
		return err
	}
	s.varies(req, nil)
	return s.document(req, len(e.Manifest.V2()), func() []byte { return req.v2(e.Manifest) })
}

// visibleImage finds the image of /images/:uuid…, with the checks of spec 2.5 in their order. An
// image outside of every list counts, also a disabled one: clients ask for origins so. The error is
// ready for the client.
func (s *Server) visibleImage(req *request) (catalog.Entry, error) {
	id, ok := manifest.ParseUUID(req.segs[1])
	if !ok {
		return catalog.Entry{}, notFound("%s does not exist", req.target)
	}
	var params [][2]string
	if req.query != "" {
		params = parseParams(req.query)
	}
	e, err := s.image(req, id, params)
	if err != nil {
		return catalog.Entry{}, err
	}
	if account, _ := param(params, "account"); account != "" {
		if _, ok := manifest.ParseUUID(account); !ok {
			return catalog.Entry{}, invalidParameter("account", "account is not a UUID")
		}
		if !accessible(e.Manifest, account) {
			return catalog.Entry{}, imageNotFound(id)
		}
	}
	if admin, ok := param(params, "inclAdminFields"); ok {
		switch admin {
		case "true":
			return catalog.Entry{}, unauthorized("inclAdminFields needs an operator's credentials")
		case "false":
		default:
			return catalog.Entry{}, invalidParameter("inclAdminFields", "inclAdminFields is neither true nor false")
		}
	}
	return e, nil
}

// accessible tells whether an account may have the image m: an image of its own, or an activated
// image that is public or shared with the account.
func accessible(m manifest.Manifest, account string) bool {
	if m.Owner == account {
		return true
	}
	activated := m.State == "active" || m.State == "disabled"
	return activated && (m.Public || slices.Contains(m.ACL, account))
}

// image asks the catalogue for one image in the channel that the query asks for (spec 2.5). The
// error is ready for the client.
func (s *Server) image(req *request, id uuid.UUID, params [][2]string) (catalog.Entry, error) {
	_, channel, err := channelOf(s.catalog.Current(), params)
	if err != nil {
		return catalog.Entry{}, err
	}
	w := s.wait(via.With(s.forClient(req), req.via), req, lookupTimeout)
	defer req.endWait(w)
	e, err := s.catalog.Get(w, id)
	switch {
	case err != nil:
		return catalog.Entry{}, s.explain(err, imageNotFound(id).message)
	case !s.catalog.Current().Reaches(channel, e.Manifest):
		return catalog.Entry{}, notFound("image not found")
	}
	return e, nil
}

// forClient gives the server's context for questions that req's client causes.
func (s *Server) forClient(req *request) context.Context {
	return catalog.ForClient(s.base, remoteIP(req.record.remote))
}

func imageNotFound(id uuid.UUID) *apiError { return notFound("image %s not found", id) }

// tagOf is a strong validator of a body.
func tagOf(body []byte) string {
	sum := sha1.Sum(body)
	return hex.EncodeToString(sum[:])
}
