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
	list, err := s.list(req)
	if err != nil {
		return err
	}
	view, _, err := channelOf(list, params)
	if err != nil {
		return err
	}
	images, err := query.Select(view.Images(), lookupIn(list))
	if err != nil {
		return s.explain(err, "not found")
	}
	return s.document(req, buildDatasets(images, s.selfURL(req), namedChannel(list, params)))
}

// listStatic answers GET /: the array that a static ("poor man's") image server has at its root
// (spec 4.1). The array has every image of the query's channel that DSAPI shows.
func (s *Server) listStatic(req *request) error {
	params := parseParams(req.query)
	list, err := s.list(req)
	if err != nil {
		return err
	}
	view, _, err := channelOf(list, params)
	if err != nil {
		return err
	}
	form, base := s.datasets.get(list, view, namedChannel(list, params)), s.selfURL(req)
	etag := form.etag(base)
	if done, err := req.condition(validators{etag: etag}); done {
		return err
	}
	s.sendForm(req, form, base, etag)
	return nil
}

// getDataset answers GET /datasets/:uuid, /:urn and /:name with one object.
func (s *Server) getDataset(req *request) error {
	params := parseParams(req.query)
	m, err := s.dataset(req, params)
	if err != nil {
		return err
	}
	return s.document(req, m.V1(s.selfURL(req), namedChannel(s.catalog.Current(), params)))
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
	named := manifest.Manifest{} // the newest with the name
	for _, m := range slices.Backward(visibleDatasets(view)) {
		switch {
		case len(parts) == 4 && m.URN() == ref:
			return m, nil
		case named.UUID == uuid.Nil && m.Name == name && (version == "" || m.Version == version):
			named = m
		}
	}
	if named.UUID == uuid.Nil {
		return manifest.Manifest{}, notFound("dataset %s not found", ref)
	}
	return named, nil
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

// visibleDatasets are the images of a view that DSAPI shows, in the view's order.
func visibleDatasets(view *catalog.View) []manifest.Manifest {
	all := view.Images()
	images := make([]manifest.Manifest, 0, len(all))
	for i := range all {
		if all[i].DSAPIVisible() {
			images = append(images, all[i])
		}
	}
	return images
}

// buildDatasets joins the v1 forms to an array without spare capacity, so that a cache may keep it.
func buildDatasets(images []manifest.Manifest, base, channel string) []byte {
	forms := make([][]byte, len(images))
	size := len("[]")
	for i := range images {
		forms[i] = images[i].V1(base, channel)
		size += len(forms[i]) + len(",\n")
	}
	b := append(make([]byte, 0, size), '[')
	for i, form := range forms {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = append(b, form...)
	}
	return append(b, ']')
}

// sameImages tells whether two lists share one slice of images. Lists that differ only in their
// images by uuid share the slice.
func sameImages(a, b []manifest.Manifest) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
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
