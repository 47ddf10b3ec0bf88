package zfsimport

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"imgmirror/verify"
)

// What the package refuses has a code of its own; an error of the file has none.
func TestCodeOf(t *testing.T) {
	seen := make(map[string]bool)
	for _, e := range []*Error{
		ErrNoZFS, ErrNoPool, ErrNoRoom, ErrNoOrigin, ErrType, ErrPlatform, ErrCompression, ErrDecompress,
		ErrNotZFS, ErrSnapshots, ErrProperty, ErrReceive, ErrNotImage, ErrLocked,
	} {
		code := CodeOf(fmt.Errorf("install: %w: more", e))
		if code == "" || seen[code] || e.Error() == "" {
			t.Errorf("%v: code %q, seen before: %t", e, code, seen[code])
		}
		seen[code] = true
	}
	if got := CodeOf(fmt.Errorf("zfs: %w", fs.ErrPermission)); got != "NotAllowed" || seen[got] {
		t.Errorf("of a permission that is missing: %q", got)
	}
	for _, err := range []error{nil, verify.ErrMismatch, errors.New("other")} {
		if got := CodeOf(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
}
