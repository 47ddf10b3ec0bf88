package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
)

// codeValidationFailed is the code of replies about more than one field.
const codeValidationFailed = "ValidationFailed"

// apiError is an error reply: a status and the body of spec 2.8.
type apiError struct {
	status  int
	code    string
	message string
	fields  []fieldError  // non-nil for ValidationFailed and InvalidParameter only
	allow   *string       // the Allow header of a 405
	retry   time.Duration // the Retry-After header; 0 = none
	cause   error         // for the log, hidden from the client
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

// body is the JSON of the error reply.
func (e *apiError) body() []byte {
	v := struct {
		Code    string        `json:"code"`
		Message string        `json:"message"`
		Errors  *[]fieldError `json:"errors,omitempty"`
	}{Code: e.code, Message: shortened(e.message)}
	if e.fields != nil {
		v.Errors = &e.fields
	}
	return encode(v)
}

// maxMessage bounds the message of an error reply, in bytes: some messages repeat the request's
// path, of which each byte may become six in JSON.
const maxMessage = 1 << 10

func shortened(message string) string {
	if len(message) > maxMessage {
		return strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return message
}

// encode is the JSON text of v, a value of this package; a value without JSON panics.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// notFound is a 404 with its message.
func notFound(format string, args ...any) *apiError {
	return &apiError{status: 404, code: meaning.NotFound, message: fmt.Sprintf(format, args...)}
}

// invalidParameter is a 422 about one query parameter.
func invalidParameter(field, message string) *apiError {
	return &apiError{
		status: 422, code: meaning.InvalidParameter, message: message,
		fields: []fieldError{{Field: field, Code: "Invalid", Message: message}},
	}
}

// unauthorized is the 401 of an operation for operators of the reference server only.
func unauthorized(message string) *apiError {
	return &apiError{status: 401, code: meaning.Unauthorized, message: message}
}

// explain turns any error into its reply. absent is the message for an error that means a missing
// thing.
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
			status: 503, code: meaning.RemoteSource, cause: err,
			message: "wrong bytes from " + strings.Join(wrong.Sources, ", ") + ": what was sent is not what the image's manifest says",
		}
	}
	m := meaning.Of(err)
	switch {
	case m.Status == 404:
		return &apiError{status: 404, code: m.Code, message: absent, cause: err}
	case m.Unreachable && s.opts.OnUnreachable == UnreachableNotFound:
		return &apiError{status: 404, code: meaning.NotFound, message: "image not found: " + m.Message, cause: err}
	}
	e := &apiError{status: m.Status, code: m.Code, message: m.Message, retry: m.Retry, cause: err}
	if m.Code == meaning.InvalidParameter {
		e.fields = []fieldError{}
	}
	return e
}

// queryFault is the reply to a malformed query.
func queryFault(q *manifest.QueryError) *apiError {
	if q.Outer == meaning.Unauthorized {
		return unauthorized(q.Message)
	}
	code := q.Outer
	if code == "" {
		code = meaning.InvalidParameter
	}
	return &apiError{
		status: 422, code: code, message: q.Message,
		fields: []fieldError{{Field: q.Field, Code: q.Code, Message: q.Message}},
	}
}
