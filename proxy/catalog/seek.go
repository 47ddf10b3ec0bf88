package catalog

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// seeker is a source that may have an image which no list shows: another source gave the image, and
// this one has not been asked. File asks first. A find is noted and saved: the source is a holder
// from then on.
type seeker struct {
	opener
	catalog *Catalog
	source  *source
	want    manifest.Manifest
	giver   *source                            // where want came from
	found   *atomic.Pointer[manifest.Manifest] // what File has found: a download may ask several times
}

// others are the sources beside r's holders that may have r, which no list shows. There are none
// for files without a sha1: their holders are not interchangeable.
func (c *Catalog) others(r record) []Holder {
	if r.listed && !r.retired || !manifest.SameFiles(*r.manifest, *r.manifest) {
		return nil
	}
	var out []Holder
	for _, s := range c.sources {
		if s == r.source || slices.ContainsFunc(r.holders, func(h found) bool { return h.source == s }) {
			continue
		}
		out = append(out, Holder{
			Source:   seeker{opener{s.Source, s.opening}, c, s, *r.manifest, r.source, new(atomic.Pointer[manifest.Manifest])},
			Manifest: *r.manifest,
		})
	}
	return out
}

// File is that of a Source. fs.ErrNotExist also means: the source has other files under the uuid.
func (s seeker) File(ctx context.Context, _ manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	m, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	return s.opener.File(ctx, *m, index, offset)
}

// Part is that of a Source, with the errors of File.
func (s seeker) Part(ctx context.Context, _ manifest.Manifest, index int, offset, length int64) (*verify.Stream, error) {
	m, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	return s.opener.Part(ctx, *m, index, offset, length)
}

// find gives what seek has found, now or before.
func (s seeker) find(ctx context.Context) (*manifest.Manifest, error) {
	if m := s.found.Load(); m != nil {
		return m, nil
	}
	found, err := s.seek(ctx)
	if err != nil {
		return nil, err
	}
	s.found.Store(&found)
	return &found, nil
}

// seek asks the source for the image by uuid, in the turn of the client of ctx; without a client the
// question is the catalogue's own.
func (s seeker) seek(ctx context.Context) (manifest.Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	if _, ok := Client(ctx); ok {
		ctx = askedBy(ctx, newAsker(accountOf(ctx)))
	}
	c, id := s.catalog, s.want.UUID
	a := c.ask(ctx, s.source, id)
	switch {
	case a.err != nil:
		return manifest.Manifest{}, a.err
	case !c.gives(a):
		return manifest.Manifest{}, fmt.Errorf("source %s: image %s: left out: %w", s.source.name, id, fs.ErrNotExist)
	}
	same := manifest.SameFiles(s.want, a.manifest)
	// Other files of an earlier source would win the uuid: what clients have begun to use stays.
	if same || slices.Index(c.sources, s.source) > slices.Index(c.sources, s.giver) {
		c.spawn(func(context.Context) {
			news := c.note([]answer{a})
			c.rebuild()
			c.saveUnlisted(news)
		})
	}
	if !same {
		return manifest.Manifest{}, fmt.Errorf("source %s: image %s: it has other files under this uuid: %w", s.source.name, id, fs.ErrNotExist)
	}
	return a.manifest, nil
}

// gives tells whether clients may have a source's answer: the source's filters and channel let it
// pass, or a stored image is built on it.
func (c *Catalog) gives(a answer) bool {
	return a.source.takes(a.manifest) && !a.outside || c.Current().isOrigin(a.id)
}

// entry is the public view of r.
func (c *Catalog) entry(r record) Entry {
	e := Entry{Manifest: *r.manifest, Source: r.source.name, Listed: r.listed, Retired: r.retired}
	if c.opts.Offline {
		return e
	}
	holders := r.holders
	if holders == nil {
		holders = []found{{r.source, *r.manifest}}
	}
	e.Holders = make([]Holder, len(holders))
	for i, h := range holders {
		e.Holders[i] = Holder{opener{h.source.Source, h.source.opening}, h.manifest}
	}
	e.Others = c.others(r)
	return e
}
