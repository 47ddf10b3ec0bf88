package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
)

// Writes takes the images that clients bring; *mirror.Mirror is one. The methods may be called
// concurrently, and have their contracts there.
type Writes interface {
	Import(ctx context.Context, by mirror.Writer, id uuid.UUID, text []byte) (manifest.Unactivated, error)
	AwaitsFile(by mirror.Writer, id uuid.UUID, u mirror.Upload) error
	AddFile(ctx context.Context, by mirror.Writer, id uuid.UUID, u mirror.Upload) (manifest.Unactivated, error)
	Activate(ctx context.Context, by mirror.Writer, id uuid.UUID) (manifest.Manifest, error)
	Drop(ctx context.Context, by mirror.Writer, id uuid.UUID) error
}

// WriteRules say who may write images. The zero value: no client may, and the listener has no writes.
type WriteRules struct {
	Enabled bool
	// Allow are the addresses that need no token.
	Allow []netip.Prefix
	// Token is the bearer token of writers with another address, and of those who take published
	// images back; "" = there is none.
	Token string
}

// writeRules are WriteRules in force.
type writeRules struct {
	allow []netip.Prefix
	token *[sha256.Size]byte // nil: there is none
}

// SetWriteRules puts other rules in force, for requests whose header arrives from now on.
func (s *Server) SetWriteRules(r WriteRules) {
	if !r.Enabled || s.opts.Writes == nil {
		s.writers.Store(nil)
		return
	}
	rules := &writeRules{allow: slices.Clone(r.Allow)}
	if r.Token != "" {
		sum := sha256.Sum256([]byte(r.Token))
		rules.token = &sum
	}
	s.writers.Store(rules)
}

// writer tells who writes, or refuses the request. The address is the one of the connection.
func (r *writeRules) writer(req *request) (by mirror.Writer, err error) {
	// A browser may be at an allowed address and show a page of another site; no program that writes
	// images sends these headers.
	if req.header("Origin") != "" || req.header("Sec-Fetch-Site") != "" {
		return by, operatorOnly("pages in browsers do not write images")
	}
	by.Address = remoteIP(req.record.remote).WithZone("")
	scheme, token, _ := strings.Cut(req.header("Authorization"), " ")
	bearer := strings.EqualFold(scheme, "Bearer")
	if bearer && r.token != nil {
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		by.Trusted = subtle.ConstantTimeCompare(got[:], r.token[:]) == 1
	}
	allowed := slices.ContainsFunc(r.allow, func(p netip.Prefix) bool { return p.Contains(by.Address) })
	switch {
	case by.Trusted || allowed:
		return by, nil
	case bearer:
		return by, unauthorized("the token is not the one of this server's writers")
	}
	return by, operatorOnly("this address may not write images: writes.allow of this server does not have " + by.Address.String())
}

// operatorOnly is the 403 of a client that may not do this.
func operatorOnly(message string) *apiError {
	return &apiError{status: 403, code: "OperatorOnly", message: message}
}

// write is one kind of request that changes images.
type write struct {
	name  string // the metric label
	serve func(*Server, *request, mirror.Writer) error
}

// The writes.
var (
	writeCreate   = &write{"create", (*Server).createImage}
	writeImport   = &write{"import", (*Server).importImage}
	writeFile     = &write{"file", (*Server).addFile}
	writeActivate = &write{"activate", (*Server).activate}
	writeDelete   = &write{"delete", (*Server).deleteImage}
	writeOther    = &write{"other", (*Server).notWritten}
)

var allWrites = []*write{writeCreate, writeImport, writeFile, writeActivate, writeDelete, writeOther}

// writeOf is the write that a request asks for; nil: none, or there are no writes.
func (s *Server) writeOf(rt *route, req *request) *write {
	if s.writers.Load() == nil {
		return nil
	}
	switch method := req.record.method; {
	case rt == routeImages && method == fasthttp.MethodPost:
		if _, named := param(parseParams(req.query), "action"); !named {
			return writeCreate
		}
		return writeOther
	case rt == routeImage && method == fasthttp.MethodPost:
		switch action, _ := param(parseParams(req.query), "action"); action {
		case "import":
			return writeImport
		case "activate":
			return writeActivate
		}
		return writeOther
	case rt == routeImage && method == fasthttp.MethodDelete:
		return writeDelete
	case rt == routeFile && method == fasthttp.MethodPut:
		return writeFile
	case rt == routeIcon && (method == fasthttp.MethodPut || method == fasthttp.MethodDelete):
		return writeOther
	}
	return nil
}

// change serves a write. After an error the rest of the request's body is not read as a request.
func (s *Server) change(req *request, w *write) error {
	err := error(unauthorized("writes have just been turned off"))
	if rules := s.writers.Load(); rules != nil {
		var by mirror.Writer
		if by, err = rules.writer(req); err == nil {
			err = w.serve(s, req, by)
		}
	}
	if err == nil {
		if !req.headOnly {
			s.metrics.wrote(w, nil)
		}
		return nil
	}
	refusal := s.explainWrite(req, err)
	s.metrics.wrote(w, refusal)
	if length := req.ctx.Request.Header.ContentLength(); length != 0 && length != noLength {
		req.unread, req.last = true, true
	}
	return refusal
}

// noLength is what fasthttp tells of a request with neither Content-Length nor chunks.
const noLength = -2

// idOf reads the uuid of /images/UUID….
func idOf(req *request) (uuid.UUID, error) {
	id, ok := manifest.ParseUUID(req.segs[1])
	if !ok {
		return id, notFound("%s does not exist", req.target)
	}
	return id, nil
}

// activate answers POST /images/UUID?action=activate.
func (s *Server) activate(req *request, by mirror.Writer) error {
	id, err := idOf(req)
	if err != nil || req.headOnly {
		return err
	}
	w := s.wait(s.forClient(req), req, writeTimeout)
	defer req.endWait(w)
	m, err := s.opts.Writes.Activate(w, by, id)
	if err != nil {
		return err
	}
	if e, err := s.catalog.Get(w, id); err == nil { // with its channels
		m = e.Manifest
	}
	s.json(req, req.v2(m))
	return nil
}

// deleteImage answers DELETE /images/UUID.
func (s *Server) deleteImage(req *request, by mirror.Writer) error {
	id, err := idOf(req)
	if err != nil || req.headOnly {
		return err
	}
	w := s.wait(s.forClient(req), req, writeTimeout)
	defer req.endWait(w)
	if err := s.opts.Writes.Drop(w, by, id); err != nil {
		return err
	}
	req.ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}

// notWritten refuses what image servers can do beside, and this server does not do.
func (s *Server) notWritten(req *request, _ mirror.Writer) error {
	action, named := param(parseParams(req.query), "action")
	switch {
	case req.record.route == routeIcon:
		return notImplemented("images that are published here have no icons")
	case req.record.route == routeImages:
		return notImplemented("action " + action + " is not supported: import the image by POST /images/UUID?action=import, add its file, and activate the image")
	case !named:
		return invalidParameter("action", "action is missing: import or activate")
	case slices.Contains(otherActions, action):
		return notImplemented("action " + action + " is not supported")
	}
	return invalidParameter("action", "there is no action "+action)
}

// otherActions are those of an image server that manages images.
var otherActions = []string{
	"update", "enable", "disable", "channel-add", "change-stor", "export", "import-remote",
	"import-from-datacenter", "import-docker-image", "import-lxd-image",
}

// notImplemented is the error reply to a write that image servers know and this server does not.
func notImplemented(message string) *apiError {
	return &apiError{status: 400, code: "NotImplemented", message: message}
}
