// Package zfsimport owns the images in the local zpool, their receive, and imgadm's record of them.
// An install leaves what imgadm's own import leaves: the dataset POOL/UUID with its one snapshot
// @final, mounted, and the record POOL-UUID.json in imgadm's database.
//
// ZFS is the authority. The package asks zfs afresh each time and keeps no answer. A crash at any
// moment leaves no image or a whole one: an image is received as POOL/UUID-partial, gets its name
// when its whole file is known to be right, and is recorded last. All steps happen under imgadm's
// own locks of all images of a family, see Batch.
//
// The package does not know where image files come from: see Open.
package zfsimport
