package admin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"imgmirror/cache/bundle"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

// beginImport is POST /bundle.
func (s *Server) beginImport(w http.ResponseWriter, r *http.Request) error {
	told, err := s.judgeHead(r)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, told) // a slow client's reply holds no head
}

// judgeHead reads the head of a bundle, and has the mirror decide whether the bundle is taken.
func (s *Server) judgeHead(r *http.Request) (told BundleImport, err error) {
	head, give, err := s.takeHead(r)
	if err != nil {
		return told, err
	}
	defer give()
	index, err := bundle.ParseIndex(head.Index)
	if err != nil {
		return told, err
	}
	b := mirror.Bundle{Index: index, Sig: head.Signature, Volume: head.Volume, Manifests: head.Manifests}
	in, err := s.mirror.BeginImport(r.Context(), b, head.DryRun)
	if errors.Is(err, mirror.ErrManyImports) {
		s.metrics.refused[refusedImports].Inc()
	}
	if err != nil {
		return told, err
	}
	return importOf(in.Report(), nil), nil
}

// takeFile is PUT /bundle/{id}/files/{sha1}?offset=N: bytes of a file from the offset on.
func (s *Server) takeFile(w http.ResponseWriter, r *http.Request) error {
	sum, err := verify.ParseSum(r.PathValue("sha1"))
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%v", err)
	}
	text := cmp.Or(r.URL.Query().Get("offset"), "0")
	offset, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "offset %q: must be a number", shorten(text))
	}
	if r.ContentLength < 0 {
		return refuse(http.StatusBadRequest, meaning.BadRequest, "the request must tell the length of its body")
	}
	in, err := s.mirror.Importing(r.PathValue("id"))
	if err != nil {
		return err
	}
	// A client that leaves ends the body. What came is then put away before the file is done with.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(s.jobs.life, cancel)() // a mirror that stops does not wait for the file
	body := &arriving{ReadCloser: r.Body, conn: http.NewResponseController(w), within: uploadStall, life: ctx}
	defer context.AfterFunc(ctx, body.cut)()
	have, err := in.Take(ctx, sum, offset, r.ContentLength, body)
	if err != nil {
		// The rest of the body is read before the answer: else the client, which is still sending,
		// meets the end of the connection first.
		if body.begun && !errors.Is(err, mirror.ErrBroke) {
			_, _ = io.Copy(io.Discard, body)
		}
		return err
	}
	return reply(w, http.StatusOK, ImportedFile{SHA1: sum.String(), Have: have})
}

// importing is GET /bundle/{id}, which is a sign of life of the client, too.
func (s *Server) importing(r *http.Request) (any, error) {
	in, err := s.mirror.Importing(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return importOf(in.Report(), nil), nil
}

// endImport is DELETE /bundle/{id}.
func (s *Server) endImport(w http.ResponseWriter, r *http.Request) error {
	in, err := s.mirror.Importing(r.PathValue("id"))
	if err != nil {
		return err
	}
	report, err := in.End(r.Context())
	if err != nil && report.ID == "" { // another request has ended it
		return err
	}
	return reply(w, http.StatusOK, importOf(report, err))
}

// importOf is a report as the API tells it; err is why it is not the whole truth.
func importOf(r mirror.ImportReport, err error) BundleImport {
	x := r.Index
	b := BundleImport{
		ID: r.ID, Bundle: x.ID.String(), Created: x.Created, Mirror: x.Mirror.Name + " " + x.Mirror.Version, Key: r.Key,
		Volume: r.Volume, Volumes: x.Volumes, Images: make([]ImportedImage, len(x.Images)),
	}
	for i, m := range x.Images {
		row := r.Images[i]
		b.Images[i] = ImportedImage{UUID: m.UUID.String(), Name: m.Name, Version: m.Version, State: row.State, Have: row.Have}
		for _, file := range m.Files {
			b.Images[i].Size += file.Size
		}
		if row.Err != nil {
			b.Images[i].Error = explain(row.Err)
		}
	}
	if err != nil {
		b.Error = explain(err)
	}
	return b
}
