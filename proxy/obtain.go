package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

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
	if s.unreachable != UnreachableNotFound {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.base, lookupTimeout)
	defer cancel()
	seen := make(map[uuid.UUID]bool)
	for {
		id := e.Manifest.UUID
		seen[id] = true
		if !s.stored(e) && !s.catalog.Reachable(ctx, e) {
			return s.explain(fmt.Errorf("image %s: %w", id, errOutOfReach), "")
		}
		origin := e.Manifest.Origin
		if origin == uuid.Nil || seen[origin] {
			return nil
		}
		var err error
		if e, err = s.catalog.Get(ctx, origin); errors.Is(err, verify.ErrUnavailable) {
			return s.explain(err, "")
		} else if err != nil {
			return nil // an origin that no source has: no other answer makes the chain whole
		}
	}
}

// stored tells that clients of imgadm's kind, which want one file of an image,
// can have it from disk.
func (s *Server) stored(e catalog.Entry) bool {
	if len(e.Manifest.Files) == 0 {
		return true
	}
	blob, _ := BlobOf(e, 0)
	_, ok := s.files.Peek(blob)
	return ok
}
