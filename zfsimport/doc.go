// Package zfsimport owns which images are in the local zpool, their receive,
// and imgadm's record of them. What it leaves is what imgadm's own import would
// have left: the dataset POOL/UUID with its one snapshot @final, mounted, and the
// record POOL-UUID.json in imgadm's database.
//
// ZFS is the authority: it is asked afresh each time, and nothing is kept here of
// what it said. The steps are in an order that a crash at any moment leaves either
// no image or a whole one: an image is received as POOL/UUID-partial, renamed when
// all of its file was known to be right, and recorded last. All of that happens
// under imgadm's own locks: of all images of a family, see Batch.
//
// The package knows nothing of where image files come from: see Open.
package zfsimport
