package catalog

import (
	"bytes"
	"time"

	"imgmirror/manifest"
)

// saveListing hands what s said to the index.
func (c *Catalog) saveListing(s *source) {
	if err := c.trySaveListing(s); err != nil {
		c.log.Error("list could not be saved", "source", s.name, "error", err)
	}
}

// saveConfirmed saves the list of s if the source has confirmed the list since the last save.
func (c *Catalog) saveConfirmed(s *source) {
	c.state.Lock()
	newer := s.list.Fetched.After(s.saved)
	s.saved = s.list.Fetched
	c.state.Unlock()
	if newer {
		c.saveListing(s)
	}
}

// trySaveListing is saveListing for those who must know whether it worked.
func (c *Catalog) trySaveListing(s *source) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.state.Lock()
	l := s.list
	l.Unlisted, l.Retired, l.Details = manifests(s.unlisted), manifests(s.retired), manifests(s.details)
	s.unsaved = false
	c.state.Unlock()
	err := c.opts.Index.SaveListing(l)
	if err != nil { // the next answer of s is saved whatever it is
		c.state.Lock()
		s.saved, s.unsaved = time.Time{}, len(s.details) > 0
		c.state.Unlock()
	}
	return err
}

// saveUnlisted hands manifests by uuid to the index, but for those that are listed or changed
// meanwhile.
func (c *Catalog) saveUnlisted(all []found) {
	c.saving.Lock()
	defer c.saving.Unlock()
	for _, f := range all {
		c.state.Lock()
		u, ok := f.source.unlisted[f.manifest.UUID]
		c.state.Unlock()
		if !ok || !bytes.Equal(u.manifest.Raw(), f.manifest.Raw()) {
			continue
		}
		if err := c.opts.Index.SaveUnlisted(f.source.name, f.manifest); err != nil {
			c.log.Error("manifest could not be saved", "source", f.source.name, "uuid", f.manifest.UUID, "error", err)
		}
	}
}

// noIndex forgets.
type noIndex struct{}

func (noIndex) Listings() ([]manifest.Listing, error)              { return nil, nil }
func (noIndex) SaveListing(manifest.Listing) error                 { return nil }
func (noIndex) SaveUnlisted(string, manifest.Manifest) error       { return nil }
func (noIndex) Facts() (map[manifest.FileID]manifest.Facts, error) { return nil, nil }
func (noIndex) SaveFacts(manifest.FileID, manifest.Facts) error    { return nil }
