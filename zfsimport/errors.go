package zfsimport

import (
	"errors"
	"io/fs"
)

// Error is a refusal that a caller may want to tell from others. Code is for programs, and is
// imgadm's own where imgadm has one.
type Error struct{ Code, text string }

func (e *Error) Error() string { return e.text }

// After all errors but ErrPlatform the image is not installed. The pool is always as before.
var (
	ErrNoZFS       = &Error{"NoZFS", "no zfs on this machine"}
	ErrNoPool      = &Error{"NoPool", "no such pool"}
	ErrNoRoom      = &Error{"NoRoom", "no room"}
	ErrNoOrigin    = &Error{"OriginNotInstalled", "origin missing"} // not in the pool, or another snapshot than the stream's
	ErrType        = &Error{"UnsupportedImageType", "image type can not be installed"}
	ErrPlatform    = &Error{"PlatformMismatch", "image can not run on this machine"}
	ErrCompression = &Error{"WrongCompression", "compression is not what the manifest says"}
	ErrDecompress  = &Error{"DecompressFailed", "file can not be decompressed"}
	ErrNotZFS      = &Error{"NotAZFSStream", "not a ZFS stream"}
	ErrSnapshots   = &Error{"UnexpectedNumberOfSnapshots", "unexpected number of snapshots"}
	ErrProperty    = &Error{"PropertyRefused", "stream sets a property that can not be taken back"}
	ErrReceive     = &Error{"ReceiveFailed", "receive refused"}
	ErrNotImage    = &Error{"NotAnImage", "a dataset of that name is no image"} // left alone
	ErrLocked      = &Error{"ImageLocked", "another process is importing the image"}
)

// CodeOf gives the code of a refusal by this package, and "" for other errors, such as the errors of
// an image's file.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if errors.Is(err, fs.ErrPermission) {
		return "NotAllowed"
	}
	return ""
}
