// Package meaning is the one table from errors of the mirror's parts to the status and the code of
// replies. The parts know nothing of HTTP; the client listener and the API speak by this table.
package meaning

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// The codes of error replies (spec 2.8) that have a row in the table, or that both listeners give.
const (
	BadRequest       = "BadRequestError"
	Internal         = "InternalError"
	InvalidParameter = "InvalidParameter"
	NotFound         = "ResourceNotFound"
	RemoteSource     = "RemoteSourceError"
	StorageIsDown    = "StorageIsDown"
	TooMany          = "TooManyRequestsError"
	Unauthorized     = "UnauthorizedError"
	Unavailable      = "ServiceUnavailableError"
)

// Meaning is what an error means to whoever asked.
type Meaning struct {
	is     error
	Status int
	Code   string
	// Message is what clients are told, "" for the text of the one who was asked; operators
	// are told the text of the error.
	Message string
	// Unreachable tells that the sources cannot be asked (cache.on_unreachable).
	Unreachable bool
	// Retry is when the asker may ask again with better luck; 0 = not known.
	Retry time.Duration
}

// retry is long enough for the questions of one address that wait for a source.
const retry = 2 * time.Second

// table is in order of weight: an error may well join "no answer from this source" with "not
// there" from another source, and then what is there is not known.
var table = []Meaning{
	{cache.ErrClosed, 503, Unavailable, "the server is shutting down", false, 0},
	{context.Canceled, 503, Unavailable, "the server is shutting down", false, 0},
	{cache.ErrNoSpace, 503, StorageIsDown, "there is no space to store the file", false, 0},
	{cache.ErrDisk, 503, StorageIsDown, "the mirror's disk cannot be read or written", false, 0},
	{verify.ErrMismatch, 503, RemoteSource, "what the image's sources sent is not what its manifest says", false, 0},
	{cache.ErrUnverified, 503, RemoteSource, cache.ErrUnverified.Error(), false, 0},
	{cache.ErrRefused, 503, RemoteSource, "the image's sources refuse to give it", true, 0},
	{catalog.ErrThrottled, 429, TooMany, "too many questions from this address wait for the image's sources", true, retry},
	{catalog.ErrBusy, 503, RemoteSource, "too many questions wait for the image's sources", true, retry},
	{verify.ErrUnavailable, 503, RemoteSource, "the image's sources cannot be reached", true, 0},
	{context.DeadlineExceeded, 503, RemoteSource, "the image's sources did not answer in time", true, 0},
	{fs.ErrNotExist, 404, NotFound, "", false, 0},
	{manifest.ErrInvalid, 422, InvalidParameter, "a parameter is invalid", false, 0},
}

// Of gives the first row that err matches; 500 Internal if no row does.
func Of(err error) Meaning {
	for _, m := range table {
		if errors.Is(err, m.is) {
			return m
		}
	}
	return Meaning{Status: 500, Code: Internal, Message: "internal error"}
}
