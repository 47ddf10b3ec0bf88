package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// errOutOfReach is matched by what is said of a file that is not on disk while
// the sources that hold it do not answer.
var errOutOfReach = fmt.Errorf("the sources that hold it do not answer: %w", verify.ErrUnavailable)

// obtain refuses the manifest of an image that could not be installed now, under
// UnreachableNotFound: its file, or that of an image which it is built on, is
// neither on disk nor at a source that answers. imgadm goes on to its next source
// when the manifest is not found; later it would give up.
func (s *Server) obtain(e catalog.Entry) error {
	if s.opts.OnUnreachable != UnreachableNotFound {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.base, lookupTimeout)
	defer cancel()
	check := func(e catalog.Entry) error {
		if len(e.Manifest.Files) == 0 {
			return nil
		}
		// Clients of imgadm's kind want one file of an image.
		if _, stored := s.files.Stored(e, 0); stored || s.catalog.Reachable(ctx, e) {
			return nil
		}
		return fmt.Errorf("image %s: %w", e.Manifest.UUID, errOutOfReach)
	}
	err := check(e)
	if err == nil {
		_, err = manifest.Chain(e, func(e catalog.Entry) manifest.Manifest { return e.Manifest }, func(origin uuid.UUID) (catalog.Entry, error) {
			e, err := s.catalog.Get(ctx, origin)
			if err == nil {
				err = check(e)
			}
			return e, err
		})
	}
	if errors.Is(err, verify.ErrUnavailable) {
		return s.explain(err, "")
	}
	return nil // no other answer makes a broken chain whole
}
