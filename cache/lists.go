package cache

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache/index"
	"imgmirror/manifest"
)

// Lists are the saved lists of sources, and what was learned of files: catalog's Index. They are valid
// as long as their Store, also while that is closing: OnPublish may need them then.
type Lists struct{ s *Store }

// Lists gives the saved lists.
func (s *Store) Lists() Lists { return Lists{s} }

// Listings gives the saved lists of all sources as index.Index does. An image that has a file on disk, and a copy of
// its manifest from a source, and that is in no list of that source, is given as Retired: it may have left the list,
// or the list be older than the image. A list that was rebuilt from DATA/manifests after a loss of the index has no
// Kind, validators or Fetched.
func (l Lists) Listings() ([]manifest.Listing, error) {
	if err := l.s.enterIndex(); err != nil {
		return nil, err
	}
	defer l.s.calls.Done()
	all, err := l.s.index.Listings()
	if err != nil {
		return nil, err
	}
	return l.withStored(all), nil
}

// Listing gives the saved list of one source.
func (l Lists) Listing(source string) (manifest.Listing, error) { return l.s.index.Listing(source) }

// SaveListing replaces the saved list of its source.
func (l Lists) SaveListing(list manifest.Listing) error { return l.s.index.SaveListing(list) }

// SaveUnlisted adds one manifest that source gave by uuid, or replaces it.
func (l Lists) SaveUnlisted(source string, m manifest.Manifest) error {
	return l.s.index.SaveUnlisted(source, m)
}

// Facts gives what was learned of files whose manifests lacked it.
func (l Lists) Facts() (map[manifest.FileID]manifest.Facts, error) { return l.s.index.Facts() }

// SaveFacts adds, or replaces, what was learned of one file, also in the copy of its image's manifest.
func (l Lists) SaveFacts(id manifest.FileID, f manifest.Facts) error {
	if err := l.s.enterIndex(); err != nil {
		return err
	}
	defer l.s.calls.Done()
	if err := l.s.index.Write(index.PutFacts(id, f)); err != nil {
		return fmt.Errorf("save facts of %s: %w", id.Image, err)
	}
	l.s.copies.addFacts(id, f)
	return nil
}

// withStored adds to lists, as Retired, the images with a file on disk that are in no list of the
// source that their manifest is from. A saved list may have lost them, by a power failure or a
// damage; the files, and the copies of the manifests, were there before the list was saved.
func (l Lists) withStored(lists []manifest.Listing) []manifest.Listing {
	s := l.s
	s.mu.RLock()
	stored := make(map[string]map[uuid.UUID]struct{})
	for id, im := range s.images.known {
		if im.Source != "" && s.copies.has(id) {
			if stored[im.Source] == nil {
				stored[im.Source] = make(map[uuid.UUID]struct{})
			}
			stored[im.Source][id] = struct{}{}
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
		for _, images := range [][]manifest.Manifest{l.Images, l.Unlisted, l.Retired} {
			for i := range images {
				delete(ids, images[i].UUID)
			}
		}
		for id := range ids {
			_, m, err := s.copies.read(id)
			if err != nil {
				s.log.Warn("the copy of a manifest cannot be read", "uuid", id, "error", err)
				continue
			}
			l.Retired = append(l.Retired, m)
		}
		if n := len(l.Retired) - had; n > 0 {
			s.log.Info("images on disk that no saved list has are taken for retired", "source", source, "images", n)
			slices.SortFunc(l.Retired, func(a, b manifest.Manifest) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
		}
	}
	slices.SortFunc(lists, func(a, b manifest.Listing) int { return strings.Compare(a.Source, b.Source) })
	return lists
}
