// Package bundle is the archive that carries images over an air gap: a plain
// tar, or the same tree in a folder, with an index, the manifests as imgadm takes them
// and the files. docs/bundle.md is its format, field by field.
//
// Every byte of a bundle follows from its index, its signature and the content that these name by
// sha256: Write makes them from any offset on, Read takes no others. The package knows what right
// bytes are; it stores nothing, trusts no sender, and knows nothing of HTTP.
package bundle

import (
	"errors"
	"fmt"
)

// Names in a bundle, besides UUID/manifest.json and the images' files.
const (
	IndexName     = "imgmirror-bundle.json"
	SignatureName = IndexName + ".minisig"
	WebName       = "index.html" // the manifests as one list, for a plain web server (spec 4.1); the first behind the head
	manifestName  = "manifest.json"
)

// Limits of what is read. They bound what a hostile bundle can cost: Read holds
// the index, the manifests one at a time, and no file.
const (
	// MaxImages is the most images of a bundle.
	MaxImages = 10_000

	maxIndex      = 32 << 20
	maxFiles      = 100 // of one image
	maxManifest   = 1 << 20
	maxManifests  = 64 << 20 // all of them
	maxFile       = 20 << 30 // spec 0
	maxVolumes    = 999
	maxNameLength = 80 // of an image's file: with its folder it fits a plain tar header
	maxText       = 16 << 10
	maxSignature  = 4 << 10
)

// ErrInvalid is matched by the refusal of what is no bundle, a broken one, or one that was made to
// do harm. It is not about a file's bytes: where these are wrong, errors match verify.ErrMismatch.
var ErrInvalid = errors.New("not a valid bundle")

// ErrSignature is matched when no trusted key has signed the index.
var ErrSignature = errors.New("signature is not good")

// ErrVolumeSize is matched when a bundle cannot be cut into volumes of that size.
var ErrVolumeSize = errors.New("volume size")

// invalid is an error that matches ErrInvalid, about what lies at name.
func invalid(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, quoteName(name), fmt.Sprintf(format, args...))
}

// quoteName shows a name from a stranger: quoted where it holds anything odd, cut where it is long.
func quoteName(name string) string {
	if len(name) > 200 {
		return fmt.Sprintf("%q…", name[:200])
	}
	for _, r := range name {
		if r < '!' || r > '~' || r == '"' {
			return fmt.Sprintf("%q", name)
		}
	}
	return name
}
