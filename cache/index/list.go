package index

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// The kinds of saved manifests.
const (
	entryListed   = 'l' // the source's list shows it
	entryUnlisted = 'u' // the source gave it by uuid
	entryRetired  = 'r' // the source listed it once
	entryDetail   = 'd' // the source gave it by uuid, and its list shows less of it
)

// listingMeta is what the index holds of a listing but its manifests.
type listingMeta struct {
	Kind         string    `json:"kind,omitempty"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	Fetched      time.Time `json:"fetched,omitzero"`
	From         string    `json:"from,omitempty"`

	Refusals manifest.Refusals `json:"refusals,omitzero"`
}

func manifestPrefix(source string) string { return keyManifest + source + "\x00" }

// Listings gives the saved lists of all sources, in order of their names. Manifests
// are read as from a source whose private images are not served: parse Raw again where the source is another one.
func (ix *Index) Listings() ([]manifest.Listing, error) {
	ix.lists.Lock()
	defer ix.lists.Unlock()

	var all []manifest.Listing
	err := ix.each(keyListing, func(key, value []byte) error {
		var meta listingMeta
		if err := json.Unmarshal(value, &meta); err != nil { // its manifests may still be good
			ix.log.Warn("what is saved of a list cannot be read", "source", string(key), "error", err)
			meta = listingMeta{}
		}
		all = append(all, manifest.Listing{
			Source: string(key), Kind: meta.Kind,
			ETag: meta.ETag, LastModified: meta.LastModified, Fetched: meta.Fetched, From: meta.From,
			Refusals: meta.Refusals,
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		if err := ix.loadManifests(&all[i]); err != nil {
			return nil, fmt.Errorf("saved list of %s: %w", all[i].Source, err)
		}
	}
	return all, nil
}

// Listing gives the saved list of one source, as Listings does; without one the result
// is empty but for the source's name.
func (ix *Index) Listing(source string) (manifest.Listing, error) {
	l := manifest.Listing{Source: source}
	ix.lists.Lock()
	defer ix.lists.Unlock()
	if err := ix.loadManifests(&l); err != nil {
		return l, fmt.Errorf("saved list of %s: %w", source, err)
	}
	return l, nil
}

// loadManifests fills in l's images from the index. What can be read no more is
// left out: its source will send it again.
func (ix *Index) loadManifests(l *manifest.Listing) error {
	// The singles are what SaveUnlisted added since the list was saved, or all that a version before packs saved.
	singles, known := make(map[byte][]manifest.Manifest), make(map[uuid.UUID]bool)
	var faults []error
	err := ix.each(manifestPrefix(l.Source), func(_, value []byte) error {
		if len(value) < 2 {
			return nil
		}
		m, err := manifest.Parse(bytes.Clone(value[1:]), manifest.ParseOptions{})
		if err != nil {
			faults = append(faults, err)
			return nil
		}
		singles[value[0]] = append(singles[value[0]], m)
		known[m.UUID] = true
		return nil
	})
	if err != nil {
		return err
	}
	packs := make(map[byte][][]byte)
	err = ix.each(packPrefix(l.Source), func(key, value []byte) error {
		if len(key) > 0 {
			packs[key[0]] = append(packs[key[0]], bytes.Clone(value))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for kind, to := range map[byte]struct {
		images *[]manifest.Manifest
		text   *[]byte
	}{entryListed: {&l.Images, &l.Text}, entryUnlisted: {&l.Unlisted, nil}, entryRetired: {&l.Retired, nil}, entryDetail: {&l.Details, nil}} {
		images, text, more := restore(packs[kind], known) // singles are newer
		faults = append(faults, more...)
		if len(singles[kind]) > 0 {
			images, text = distinct(append(images, singles[kind]...)), nil
		}
		*to.images = images
		if to.text != nil {
			*to.text = text
		}
	}
	for _, err := range faults {
		ix.log.Warn("a saved manifest cannot be read", "source", l.Source, "error", err)
	}
	return nil
}

// distinct gives images in order of their uuids, one of each; it works in place.
func distinct(images []manifest.Manifest) []manifest.Manifest {
	order := func(a, b manifest.Manifest) int { return byUUID(&a, &b) }
	if !slices.IsSortedFunc(images, order) {
		slices.SortFunc(images, order)
	}
	return slices.CompactFunc(images, func(a, b manifest.Manifest) bool { return a.UUID == b.UUID })
}

// SaveListing replaces the saved list of l.Source, Unlisted, Retired and Details included, and
// makes that last; only what changed is written, give or take a hundred manifests. A crash in the middle may leave
// a mix of the old list and the new one, with the old validators; what is in both lists is there.
func (ix *Index) SaveListing(l manifest.Listing) error {
	ix.lists.Lock()
	defer ix.lists.Unlock()
	err := ix.savePacks(l)
	if err == nil {
		// Last: validators must not vouch for a list that is not there.
		err = ix.Write(put(keyListing+l.Source, listingMeta{
			Kind: l.Kind, ETag: l.ETag, LastModified: l.LastModified, Fetched: CleanTime(l.Fetched), From: l.From,
			Refusals: l.Refusals,
		}))
	}
	if err == nil {
		err = ix.Sync()
	}
	if err != nil {
		return fmt.Errorf("save the list of %s: %w", l.Source, err)
	}
	return nil
}

// SaveUnlisted adds one manifest that source gave by uuid, or replaces it.
func (ix *Index) SaveUnlisted(source string, m manifest.Manifest) error {
	ix.lists.Lock()
	defer ix.lists.Unlock()
	changes := []Change{{manifestPrefix(source) + string(m.UUID[:]), slices.Concat([]byte{entryUnlisted}, m.Raw())}}
	known, err := ix.has(keyListing + source)
	if err == nil && !known { // without this the manifest would not be found again
		changes = append(changes, Change{keyListing + source, []byte("{}")})
	}
	if err == nil {
		err = ix.Write(changes...)
	}
	if err != nil {
		return fmt.Errorf("save manifest %s of %s: %w", m.UUID, source, err)
	}
	return nil
}
