package zfsimport

import (
	"errors"
	"io/fs"
)

// Error is what a caller may want to tell apart, with its code for programs, which is imgadm's own
// where imgadm has one.
type Error struct{ Code, text string }

func (e *Error) Error() string { return e.text }

// All but ErrPlatform mean that the image is not installed; whatever the error, the pool is as it was.
var (
	ErrNoZFS       = &Error{"NoZFS", "no zfs on this machine"}
	ErrNoPool      = &Error{"NoPool", "no such pool"}
	ErrNoRoom      = &Error{"NoRoom", "no room"}
	ErrNoOrigin    = &Error{"OriginNotInstalled", "origin missing"} // not in the pool, or not the snapshot that the stream was made from
	ErrType        = &Error{"UnsupportedImageType", "image type can not be installed"}
	ErrPlatform    = &Error{"PlatformMismatch", "image can not run on this machine"}
	ErrCompression = &Error{"WrongCompression", "compression is not what the manifest says"}
	ErrDecompress  = &Error{"DecompressFailed", "file can not be decompressed"}
	ErrNotZFS      = &Error{"NotAZFSStream", "not a ZFS stream"}
	ErrSnapshots   = &Error{"UnexpectedNumberOfSnapshots", "unexpected number of snapshots"}
	ErrProperty    = &Error{"PropertyRefused", "stream sets a property that can not be taken back"}
	ErrReceive     = &Error{"ReceiveFailed", "receive refused"}
	ErrNotImage    = &Error{"NotAnImage", "a dataset of that name is no image"} // ours to leave alone
	ErrLocked      = &Error{"ImageLocked", "another process is importing the image"}
)

// CodeOf gives the code of what this package refuses, "" for other errors: those of the file that was
// read, among others.
func CodeOf(err error) string {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, fs.ErrPermission):
		return "NotAllowed"
	}
	return ""
}
