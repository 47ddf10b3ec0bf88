package cache

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// withStored adds to lists, as Retired, the images with a file on disk that are in no list
// of the source that their manifest is from. A saved list may have lost them, by a
// power failure or a damage; the files, and the copies of the manifests, were there before
// anybody was told of them.
func (s *Store) withStored(lists []manifest.Listing) []manifest.Listing {
	s.mu.RLock()
	stored := make(map[string][]uuid.UUID)
	for id, im := range s.images {
		if _, copied := s.copies[id]; copied && im.Source != "" {
			stored[im.Source] = append(stored[im.Source], id)
		}
	}
	s.mu.RUnlock()
	for source, ids := range stored {
		at := slices.IndexFunc(lists, func(l manifest.Listing) bool { return l.Source == source })
		if at < 0 {
			at = len(lists)
			lists = append(lists, manifest.Listing{Source: source})
		}
		l := &lists[at]
		had := len(l.Retired)
		for _, id := range ids {
			if has(l.Images, id) || has(l.Unlisted, id) || has(l.Retired[:had], id) {
				continue
			}
			_, m, err := s.readCopy(id)
			if err != nil {
				s.log.Warn("the copy of a manifest cannot be read", "uuid", id, "error", err)
				continue
			}
			l.Retired = append(l.Retired, m)
		}
		if n := len(l.Retired) - had; n > 0 {
			s.log.Info("images on disk that no saved list has are taken for retired", "source", source, "images", n)
			l.Retired = distinct(l.Retired)
		}
	}
	slices.SortFunc(lists, func(a, b manifest.Listing) int { return strings.Compare(a.Source, b.Source) })
	return lists
}

// has tells whether images, in order of their uuids, have that one.
func has(images []manifest.Manifest, id uuid.UUID) bool {
	_, found := slices.BinarySearchFunc(images, id, func(m manifest.Manifest, id uuid.UUID) int {
		return slices.Compare(m.UUID[:], id[:])
	})
	return found
}
