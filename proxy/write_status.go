package proxy

import (
	"errors"
	"fmt"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

// The codes of replies to writes (spec 2.8).
const (
	codeExists    = "ImageUuidAlreadyExists"
	codeUpload    = "Upload"
	codeTooLarge  = "RequestEntityTooLargeError"
	codeTooBig    = "ImageFileTooBig"
	codeNoFile    = "NoActivationNoFile"
	codeImmutable = "ImageFilesImmutable"
)

// writeTable has the meanings of errors that only writes have, before those of package meaning. The
// first row that matches counts. The client is told the text of the error.
var writeTable = []struct {
	is     error
	status int
	code   string
	result string // the metric label
}{
	{mirror.ErrWriter, 403, "OperatorOnly", "denied"},
	{mirror.ErrExists, 409, codeExists, "exists"},
	{mirror.ErrDraftBusy, 409, "ConflictError", "busy"},
	{mirror.ErrManyDrafts, 429, meaning.TooMany, "busy"},
	{mirror.ErrActivated, 422, "ImageAlreadyActivated", "state"},
	{mirror.ErrNoFile, 422, codeNoFile, "state"},
	{mirror.ErrOrigin, 422, "OriginDoesNotExist", "origin"},
	{mirror.ErrDependent, 422, "ImageHasDependentImages", "state"},
	{errSlowBody, 408, "RequestTimeoutError", "broke"},
	{mirror.ErrBroke, 400, codeUpload, "broke"},
	{verify.ErrMismatch, 400, codeUpload, "wrong"},
}

// draftsRetry is when a client may try again that has met a bound of drafts or uploads.
const draftsRetry = 30 * time.Second

// explainWrite turns the error of a write into its reply.
func (s *Server) explainWrite(req *request, err error) *apiError {
	var api *apiError
	if errors.As(err, &api) {
		return api
	}
	if field, ok := errors.AsType[*manifest.ParseError](err); ok {
		name := field.Field
		if name == "" {
			name = "manifest"
		}
		return &apiError{status: 422, code: meaning.InvalidParameter, message: field.Error(), cause: err,
			fields: []fieldError{{Field: name, Code: "Invalid", Message: field.Reason}}}
	}
	if s.conns.draining.Load() && errors.Is(err, mirror.ErrBroke) {
		err = fmt.Errorf("%w: %w", errCut, err)
		return s.explain(err, "")
	}
	for _, row := range writeTable {
		if !errors.Is(err, row.is) {
			continue
		}
		e := &apiError{status: row.status, code: row.code, message: err.Error(), cause: err}
		if errors.Is(row.is, mirror.ErrManyDrafts) {
			e.retry = draftsRetry
		}
		if errors.Is(row.is, mirror.ErrActivated) && req.record.route == routeFile {
			e.code = codeImmutable
		}
		return e
	}
	absent := "image not found"
	if len(req.segs) > 1 {
		absent = "image " + req.segs[1] + " waits for nothing here: import it first"
	}
	return s.explain(err, absent)
}

// results are the values of the label "result" of writes.
var results = []string{"accepted", "denied", "invalid", "missing", "exists", "busy", "state", "origin", "wrong", "broke", "full", "failed"}

// resultOf is the label of a write that was refused with e; nil: accepted.
func resultOf(e *apiError) string {
	if e == nil {
		return "accepted"
	}
	for _, row := range writeTable {
		if e.cause != nil && errors.Is(e.cause, row.is) {
			return row.result
		}
	}
	switch {
	case e.status == 401, e.status == 403:
		return "denied"
	case e.status == 404:
		return "missing"
	case e.status == 429:
		return "busy"
	case e.code == meaning.StorageIsDown:
		return "full"
	case e.status < 500:
		return "invalid"
	}
	return "failed"
}
