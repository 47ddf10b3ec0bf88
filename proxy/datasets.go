package proxy

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// listDatasets answers GET /datasets (spec 3.2).
func (s *Server) listDatasets(req *request) error {
	params := parseParams(req.query)
	query, err := manifest.ParseDatasetsQuery(params)
	if err != nil {
		return err
	}
	if query.IsDefault() {
		return s.listStatic(req)
	}
	view, reply, err := s.datasets(req, params)
	if err != nil {
		return err
	}
	// The marker that lookup would find is no parameter of DSAPI.
	picked, err := query.Select(view.Images(), nil)
	if err != nil {
		return s.explain(err, "not found")
	}
	return s.sendList(req, reply.only(picked))
}

// listStatic answers GET / of all clients but browsers: the array that a static ("poor man's") image
// server has at its root (spec 4.1). The array has every image of the query's channel that DSAPI shows.
func (s *Server) listStatic(req *request) error {
	_, reply, err := s.datasets(req, parseParams(req.query))
	if err != nil {
		return err
	}
	return s.sendList(req, reply)
}

// datasets is the DSAPI form of the channel that a query names, and the channel's view. Clients
// choose the base of the form's URLs by their Host header; all bases share one form. The error is
// ready for the client.
func (s *Server) datasets(req *request, params [][2]string) (*catalog.View, listReply, error) {
	list, err := s.list(req)
	if err != nil {
		return nil, listReply{}, err
	}
	view, channel, err := channelOf(list, params)
	if err != nil {
		return nil, listReply{}, err
	}
	kind := textKind{form: formDatasets, channel: channel, named: namedChannel(list, params) != ""}
	return view, listOf(kind, view.Datasets(kind.named)).withBase(s.selfURL(req)), nil
}

// getDataset answers GET /datasets/:uuid, /:urn and /:name with one object.
func (s *Server) getDataset(req *request) error {
	params := parseParams(req.query)
	m, err := s.dataset(req, params)
	if err != nil {
		return err
	}
	list := s.catalog.Current()
	base, channel := s.selfURL(req), namedChannel(list, params)
	if 2*len(m.V2()) <= smallBody {
		return s.sendDocument(req, list.Dataset(m, base, channel))
	}
	return s.document(req, len(m.V2()), func() []byte { return m.V1(base, channel) })
}

// dataset finds the image that the path names: by a uuid, by a urn of two to four parts, or by a
// name. A name, or a urn without a version, means the newest image of the name.
func (s *Server) dataset(req *request, params [][2]string) (manifest.Manifest, error) {
	ref := req.segs[1]
	if id, ok := manifest.ParseUUID(ref); ok {
		e, err := s.datasetEntry(req, id, params)
		if err == nil {
			err = s.obtain(req, e)
		}
		return e.Manifest, err
	}
	list, err := s.list(req)
	if err != nil {
		return manifest.Manifest{}, err
	}
	view, _, err := channelOf(list, params)
	if err != nil {
		return manifest.Manifest{}, err
	}
	name, version := ref, ""
	parts := strings.Split(ref, ":")
	switch len(parts) {
	case 1:
	case 2:
		name, version = parts[0], parts[1]
	case 3:
		name = parts[2]
	case 4:
		name, version = parts[2], parts[3]
	default:
		return manifest.Manifest{}, notFound("dataset %s not found", ref)
	}
	images := view.Images()
	var named *manifest.Manifest // the newest with the name
	for i := range slices.Backward(images) {
		m := &images[i]
		switch {
		case !m.DSAPIVisible():
		case len(parts) == 4 && m.URN() == ref:
			return *m, nil
		case named == nil && m.Name == name && (version == "" || m.Version == version):
			named = m
		}
	}
	if named == nil {
		return manifest.Manifest{}, notFound("dataset %s not found", ref)
	}
	return *named, nil
}

// datasetEntry finds an image by uuid for DSAPI: an image of DSAPI's list, or an ancestor of a
// listed image in any state (spec G1; DSAPI manifests omit the state). An image outside of the
// query's channel is hidden, as from IMGAPI's clients. The error is ready for the client.
func (s *Server) datasetEntry(req *request, id uuid.UUID, params [][2]string) (catalog.Entry, error) {
	e, err := s.image(req, id, params)
	if err != nil {
		return catalog.Entry{}, err
	}
	m := e.Manifest
	if m.DSAPIVisible() || m.Servable() && len(m.Files) > 0 && s.catalog.Current().IsAncestor(id) {
		return e, nil
	}
	return catalog.Entry{}, imageNotFound(id)
}

// selfURL is the base of URLs that lead back to this server (spec 2.7).
func (s *Server) selfURL(req *request) string {
	if s.opts.PublicURL != "" {
		return s.opts.PublicURL
	}
	scheme := "http"
	if req.ctx.IsTLS() {
		scheme = "https"
	}
	// The Host header counts. fasthttp's host comes from an absolute-form target, whose authority
	// means nothing here (spec 6.3).
	host := string(req.ctx.Request.Header.Host())
	if !saneHost(host) {
		host = req.ctx.LocalAddr().String()
		if fixed, changed := bracketed([]byte(host), portOf(req.ctx.LocalAddr())); changed { // a zone
			host = fixed
		}
	}
	return scheme + "://" + host
}

// saneHost tells whether a Host header has only the characters of a name, an address and a port,
// so that a URL with the host keeps its meaning.
func saneHost(host string) bool {
	return host != "" && len(host) <= 255 && strings.Trim(host, letters+"0123456789.-_:[]") == ""
}
