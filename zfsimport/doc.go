// Package zfsimport will own which images belong in the local zpool, their
// receive, and imgadm's record of them. Nothing of it exists yet; the package
// is here so that the layout is whole.
package zfsimport
