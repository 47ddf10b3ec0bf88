package main

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy"
	"imgmirror/verify"
)

// keeps tells whether an image's files must never be evicted by rule: nobody
// else has it, or cache.pins names it.
func (m *mirror) keeps(id uuid.UUID) bool {
	if m.own.Keeps(id) || m.keepsImported(id) {
		return true
	}
	pins := m.cfg.Load().Cache.Pins
	if len(pins) == 0 {
		return false
	}
	image, err := m.manifestOf(id)
	if err != nil { // what cannot be told is not given up
		m.log.Debug("an image cannot be held against cache.pins: it is kept", "uuid", id, "error", err)
		return true
	}
	return pinned(image, pins)
}

// pinned tells whether one of the filters names the image.
func pinned(image manifest.Manifest, pins []string) bool {
	for _, text := range pins {
		f, err := manifest.ParseFilter(text)
		if err == nil && f.Match(image) { // they were checked with the configuration
			return true
		}
	}
	return false
}

// manifestOf is the catalogue's manifest of an image, or of one that has left it
// the one kept with its file.
func (m *mirror) manifestOf(id uuid.UUID) (manifest.Manifest, error) {
	if entry, ok := m.catalog.Current().Entry(id); ok {
		return entry.Manifest, nil
	}
	return m.store.Manifest(id)
}

// heal brings the bytes of a lost file anew, from whoever has them.
func (m *mirror) heal(ctx context.Context, sum verify.Sum, size int64) error {
	entry, index, ok := m.catalog.Current().BySum(sum, size)
	if !ok {
		return fmt.Errorf("no image in the catalogue has this file: %w", fs.ErrNotExist)
	}
	blob, sources := proxy.BlobOf(entry, index)
	blob.Why = cache.Job
	r, err := m.store.File(ctx, blob, sources)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	return r.Stored(ctx)
}
