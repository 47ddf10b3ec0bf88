package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
)

// The codes of error replies that package meaning lacks.
const (
	codeBundle           = "InvalidBundle"
	codeBundleBase       = "BundleBaseMissing"
	codeBundleTrust      = "BundleNotTrusted"
	codeChecksum         = "ChecksumError"
	codeForbidden        = "ForbiddenError"
	codeImagePinned      = "ImagePinned"
	codeIncomplete       = "NotComplete"
	codeImagePublished   = "ImagePublished"
	codeImageExists      = "ImageUuidAlreadyExists"
	codeDependent        = "ImageHasDependentImages"
	codeMethodNotAllowed = "MethodNotAllowedError"
	codeOriginMissing    = "OriginDoesNotExist"
	codeOriginNotInPool  = "OriginNotInstalled"
	codeTooLarge         = "RequestEntityTooLargeError"
	codeTooManyJobs      = "TooManyJobs"
	codeTooManyStreams   = "TooManyStreams"
	codeWrongListener    = "WrongListener"
	codeUnsupportedType  = "UnsupportedMediaTypeError"
)

// refusal is an error with the status that it is answered with.
type refusal struct {
	status int
	told   Error
}

// refuse makes an error that is answered with status.
func refuse(status int, code, format string, args ...any) error {
	return &refusal{status: status, told: Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

func (r *refusal) Error() string { return r.told.Message }

// table has the meanings that the client listener has not, before those of package meaning. The first
// row that matches counts. Operators are told all that is known.
var table = []struct {
	is     error
	status int
	code   string
}{
	{bundle.ErrSignature, http.StatusUnprocessableEntity, codeBundleTrust},
	{bundle.ErrInvalid, http.StatusUnprocessableEntity, codeBundle},
	{cache.ErrPinned, http.StatusConflict, codeImagePinned},
	{mirror.ErrExists, http.StatusConflict, codeImageExists},
	{mirror.ErrDependent, http.StatusConflict, codeDependent},
	{mirror.ErrDamaged, http.StatusUnprocessableEntity, codeChecksum},
	{mirror.ErrBundleBase, http.StatusConflict, codeBundleBase},
	{mirror.ErrIncomplete, http.StatusConflict, codeIncomplete},
	{mirror.ErrManyImports, http.StatusTooManyRequests, codeTooManyJobs},
	{mirror.ErrOffset, http.StatusUnprocessableEntity, meaning.InvalidParameter},
	{mirror.ErrBroke, http.StatusBadRequest, meaning.BadRequest},
	{mirror.ErrPublished, http.StatusConflict, codeImagePublished},
	{manifest.ErrChain, http.StatusNotFound, codeOriginMissing},
	{mirror.ErrOrigin, http.StatusUnprocessableEntity, codeOriginMissing},
}

// judge gives an error its status and what is told of it.
func judge(err error) (int, *Error) {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.status, &refused.told
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return http.StatusRequestEntityTooLarge, &Error{codeTooLarge, fmt.Sprintf("the body has more than %d bytes", large.Limit)}
	}
	var fault *Error
	if errors.As(err, &fault) {
		return http.StatusUnprocessableEntity, fault
	}
	for _, row := range table {
		if errors.Is(err, row.is) {
			return row.status, &Error{row.code, err.Error()}
		}
	}
	m := meaning.Of(err)
	return m.Status, &Error{m.Code, err.Error()}
}

// explain is what is told of an error.
func explain(err error) *Error {
	_, told := judge(err)
	return told
}

// shorten makes text of strangers fit for a message.
func shorten(text string) string {
	const most = 64
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
