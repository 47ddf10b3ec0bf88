package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"unicode/utf8"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/imported"
	"imgmirror/proxy/published"
	"imgmirror/verify"
)

// The codes of error replies.
const (
	codeBadRequest       = "BadRequestError"
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
	codeInternal         = "InternalError"
	codeInvalidParameter = "InvalidParameter"
	codeMethodNotAllowed = "MethodNotAllowedError"
	codeNotFound         = "ResourceNotFound"
	codeOriginMissing    = "OriginDoesNotExist"
	codeOriginNotInPool  = "OriginNotInstalled"
	codeRemoteSource     = "RemoteSourceError"
	codeStorageIsDown    = "StorageIsDown"
	codeTooLarge         = "RequestEntityTooLargeError"
	codeTooManyJobs      = "TooManyJobs"
	codeUnauthorized     = "UnauthorizedError"
	codeUnavailable      = "ServiceUnavailableError"
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

// table gives errors from below their status, as the one of the client listener
// does; but operators are told all that is known. The first row that matches
// counts.
var table = []struct {
	is     error
	status int
	code   string
}{
	{cache.ErrClosed, http.StatusServiceUnavailable, codeUnavailable},
	{imported.ErrRecord, http.StatusServiceUnavailable, codeStorageIsDown},
	{cache.ErrNoSpace, http.StatusServiceUnavailable, codeStorageIsDown},
	{cache.ErrDisk, http.StatusServiceUnavailable, codeStorageIsDown},
	{bundle.ErrSignature, http.StatusUnprocessableEntity, codeBundleTrust},
	{bundle.ErrInvalid, http.StatusUnprocessableEntity, codeBundle},
	{cache.ErrUnverified, http.StatusServiceUnavailable, codeRemoteSource},
	{verify.ErrMismatch, http.StatusServiceUnavailable, codeRemoteSource},
	{verify.ErrUnavailable, http.StatusServiceUnavailable, codeRemoteSource},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, codeRemoteSource},
	{context.Canceled, http.StatusServiceUnavailable, codeUnavailable},
	{fs.ErrNotExist, http.StatusNotFound, codeNotFound},
	{cache.ErrPinned, http.StatusConflict, codeImagePinned},
	{published.ErrExists, http.StatusConflict, codeImageExists},
	{published.ErrDependent, http.StatusConflict, codeDependent},
	{published.ErrOrigin, http.StatusUnprocessableEntity, codeOriginMissing},
	{manifest.ErrInvalid, http.StatusUnprocessableEntity, codeInvalidParameter},
} // none matches: 500 InternalError

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
	return http.StatusInternalServerError, &Error{codeInternal, err.Error()}
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
	cut := most
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
