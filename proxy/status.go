package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// The codes of error bodies (spec 2.8) that are used in more than one place.
const (
	codeBadRequest       = "BadRequestError"
	codeInternal         = "InternalError"
	codeInvalidParameter = "InvalidParameter"
	codeNotFound         = "ResourceNotFound"
	codeRemoteSource     = "RemoteSourceError"
	codeStorageIsDown    = "StorageIsDown"
	codeUnauthorized     = "UnauthorizedError"
	codeUnavailable      = "ServiceUnavailableError"
	codeValidationFailed = "ValidationFailed"
)

// table gives errors from below their status. The first row that matches
// counts: an error may well join "no answer from this source" with "not there"
// from another, and then what is there is not known.
var table = []struct {
	is      error
	status  int
	code    string
	message string
	cannot  bool // the sources cannot be asked: subject to Options.OnUnreachable
}{
	{errCut, 503, codeUnavailable, "the server is shutting down", false},
	{cache.ErrClosed, 503, codeUnavailable, "the server is shutting down", false},
	{context.Canceled, 503, codeUnavailable, "the server is shutting down", false},
	{cache.ErrNoSpace, 503, codeStorageIsDown, "there is no space to store the file", false},
	{cache.ErrDisk, 503, codeStorageIsDown, "the mirror's disk cannot be read or written", false},
	{verify.ErrMismatch, 503, codeRemoteSource, "what the image's sources sent is not what its manifest says", false},
	{cache.ErrUnverified, 503, codeRemoteSource, cache.ErrUnverified.Error(), false},
	{cache.ErrRefused, 503, codeRemoteSource, "the image's sources refuse to give it", true},
	{verify.ErrUnavailable, 503, codeRemoteSource, "the image's sources cannot be reached", true},
	{context.DeadlineExceeded, 503, codeRemoteSource, "the image's sources did not answer in time", true},
	{fs.ErrNotExist, 404, codeNotFound, "", false},
	{manifest.ErrInvalid, 422, codeInvalidParameter, "a parameter is invalid", false},
} // none matches: 500 InternalError

// apiError is an error reply: a status and the body of spec 2.8.
type apiError struct {
	status  int
	code    string
	message string
	fields  []fieldError // ValidationFailed and InvalidParameter only; there, never nil
	allow   *string      // the Allow header of a 405
	cause   error        // for the log, not for the client
}

// fieldError is one member of "errors".
type fieldError struct {
	Field   string `json:"field"`
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

func (e *apiError) Error() string {
	if e.cause != nil {
		return e.cause.Error()
	}
	return e.code + ": " + e.message
}

func (e *apiError) Unwrap() error { return e.cause }

// body is the JSON that clients get.
func (e *apiError) body() []byte {
	v := struct {
		Code    string        `json:"code"`
		Message string        `json:"message"`
		Errors  *[]fieldError `json:"errors,omitempty"`
	}{Code: e.code, Message: e.message}
	if e.fields != nil {
		v.Errors = &e.fields
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and slices of strings always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// notFound is a 404 with its message.
func notFound(format string, args ...any) *apiError {
	return &apiError{status: 404, code: codeNotFound, message: fmt.Sprintf(format, args...)}
}

// invalidParameter is a 422 about one query parameter.
func invalidParameter(field, message string) *apiError {
	return &apiError{
		status: 422, code: codeInvalidParameter, message: message,
		fields: []fieldError{{Field: field, Code: "Invalid", Message: message}},
	}
}

// unauthorized is the 401 of what only an operator of the reference server may.
func unauthorized(message string) *apiError {
	return &apiError{status: 401, code: codeUnauthorized, message: message}
}

// explain turns any error into the reply to make of it. absent is what to say
// when it means that a thing is not there.
func (s *Server) explain(err error, absent string) *apiError {
	var api *apiError
	if errors.As(err, &api) {
		return api
	}
	var query *manifest.QueryError
	if errors.As(err, &query) {
		return queryFault(query)
	}
	var wrong *cache.WrongBytesError
	if errors.As(err, &wrong) {
		return &apiError{
			status: 503, code: codeRemoteSource, cause: err,
			message: "wrong bytes from " + strings.Join(wrong.Sources, ", ") + ": what was sent is not what the image's manifest says",
		}
	}
	for _, row := range table {
		if !errors.Is(err, row.is) {
			continue
		}
		if row.status == 404 {
			return &apiError{status: 404, code: codeNotFound, message: absent, cause: err}
		}
		if row.cannot && s.unreachable == UnreachableNotFound {
			return &apiError{status: 404, code: codeNotFound, message: "image not found: " + row.message, cause: err}
		}
		e := &apiError{status: row.status, code: row.code, message: row.message, cause: err}
		if row.code == codeInvalidParameter {
			e.fields = []fieldError{}
		}
		return e
	}
	return &apiError{status: 500, code: codeInternal, message: "internal error", cause: err}
}

// queryFault is the reply to a query that cannot be understood.
func queryFault(q *manifest.QueryError) *apiError {
	if q.Outer == codeUnauthorized {
		return unauthorized(q.Message)
	}
	code := q.Outer
	if code == "" {
		code = codeInvalidParameter
	}
	return &apiError{
		status: 422, code: code, message: q.Message,
		fields: []fieldError{{Field: q.Field, Code: q.Code, Message: q.Message}},
	}
}
