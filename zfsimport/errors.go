package zfsimport

import "errors"

// What a caller may want to tell apart. All but ErrPlatform mean that the image is
// not installed; whatever the error, the pool is as it was.
var (
	ErrNoZFS       = errors.New("no zfs on this machine")
	ErrNoPool      = errors.New("no such pool")
	ErrNoRoom      = errors.New("no room")
	ErrNoOrigin    = errors.New("origin missing") // not in the pool, or not the snapshot that the stream was made from
	ErrType        = errors.New("image type can not be installed")
	ErrPlatform    = errors.New("image can not run on this machine")
	ErrCompression = errors.New("compression is not what the manifest says")
	ErrDecompress  = errors.New("file can not be decompressed")
	ErrNotZFS      = errors.New("not a ZFS stream")
	ErrSnapshots   = errors.New("unexpected number of snapshots")
	ErrProperty    = errors.New("stream sets a property that can not be taken back")
	ErrReceive     = errors.New("receive refused")
	ErrNotImage    = errors.New("a dataset of that name is no image") // ours to leave alone
	ErrLocked      = errors.New("another process is importing the image")
)
