package proxy

import (
	"errors"
	"fmt"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// errOutOfReach is the error of a file that is missing on disk while the sources that hold the
// file are out of reach.
var errOutOfReach = fmt.Errorf("the sources that hold it do not answer: %w", verify.ErrUnavailable)

// obtain refuses, under UnreachableNotFound, the manifest of an image that a client cannot install
// now: the file of the image or of one of its origins is out of reach, away from the disk and from
// every source that answers. imgadm goes on to its next source after a missing manifest, and gives
// up after a missing file. The error is ready for the client.
func (s *Server) obtain(req *request, e catalog.Entry) error {
	if s.opts.OnUnreachable != UnreachableNotFound {
		return nil
	}
	w := s.wait(s.forClient(req), req, lookupTimeout)
	defer req.endWait(w)
	check := func(e catalog.Entry) error {
		if len(e.Manifest.Files) == 0 {
			return nil
		}
		// imgadm and clients like it want the first file alone.
		if _, stored := s.files.Stored(e, 0); stored || s.catalog.Reachable(w, e) {
			return nil
		}
		return fmt.Errorf("image %s: %w", e.Manifest.UUID, errOutOfReach)
	}
	err := check(e)
	if err == nil {
		_, err = manifest.Chain(e, func(e catalog.Entry) manifest.Manifest { return e.Manifest }, func(origin uuid.UUID) (catalog.Entry, error) {
			e, err := s.catalog.Get(w, origin)
			if err == nil {
				err = check(e)
			}
			return e, err
		})
	}
	if errors.Is(err, verify.ErrUnavailable) {
		return s.explain(err, "")
	}
	return nil // any other error is no matter of reach
}
