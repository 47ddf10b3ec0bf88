package mirror

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// prefetchRetry is the time until a failed prefetch is tried again, while the catalogue stays the same.
const prefetchRetry = 10 * time.Minute

// wishes lists the images that standing wishes ask for, wish by wish, of each the newest first. A wish
// that names an image which cannot be found is told to failed.
func (m *Mirror) wishes(ctx context.Context, all []Wanted, failed func(id uuid.UUID, err error)) []catalog.Entry {
	var images []catalog.Entry
	for _, wish := range all {
		selected, err := m.Select(ctx, wish)
		if err != nil && !errors.Is(err, ErrNoMatch) {
			failed(wish.UUIDs[0], err) // filters do not fail otherwise
		}
		slices.Reverse(selected) // the list is in order of age
		images = append(images, selected...)
	}
	return images
}

// prefetch brings what the rules ask for: once the catalogue is there, and again whenever the
// catalogue or the rules have changed. Prefetch brings one file at a time, behind all that clients
// wait for, and as much as there is free room for. A file that was brought once and evicted or
// deleted since is not brought again.
func (m *Mirror) prefetch(ctx context.Context) {
	if !m.awaitStart(ctx) {
		return
	}
	p := newPrefetched()
	for {
		var retry <-chan time.Time
		if !m.prefetchAll(ctx, p) {
			retry = time.After(prefetchRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.prefetchDue:
		case <-retry:
		}
	}
}

// prefetched is what prefetching has come to in this process.
type prefetched struct {
	brought map[manifest.FileID]bool
	full    bool // there was no room for the rest, and that has been told
}

func newPrefetched() *prefetched { return &prefetched{brought: make(map[manifest.FileID]bool)} }

// prefetchAll brings what is missing. False: not all of it could be had.
func (m *Mirror) prefetchAll(ctx context.Context, p *prefetched) bool {
	if m.offline.Load() {
		return true
	}
	all := true
	failed := func(id uuid.UUID, err error) {
		if ctx.Err() == nil {
			m.log.Warn("an image cannot be prefetched", "uuid", id, "error", err)
			all = false
		}
	}
	wanted := manifest.Chains(m.wishes(ctx, m.rules.Load().Prefetch, failed), manifestOf, m.finder(ctx),
		func(e catalog.Entry, err error) bool {
			failed(e.Manifest.UUID, err)
			return false
		})
	for _, entry := range wanted {
		for i := range entry.Manifest.Files {
			id := manifest.FileID{Image: entry.Manifest.UUID, Index: i}
			if p.brought[id] || ctx.Err() != nil {
				continue
			}
			err := m.prefetchFile(ctx, entry, i)
			switch {
			case err == nil:
				p.brought[id] = true
			case errors.Is(err, cache.ErrNoSpace) && ctx.Err() == nil:
				if !p.full {
					m.log.Warn("prefetch waits for free room: it evicts nothing", "uuid", id.Image, "error", err)
				}
				p.full = true
				return false
			default:
				failed(id.Image, err)
			}
		}
	}
	if p.full && ctx.Err() == nil {
		m.log.Info("prefetch has had room for all", "files", len(p.brought))
		p.full = false
	}
	return all
}

// prefetchFile brings one file unless it is on disk.
func (m *Mirror) prefetchFile(ctx context.Context, e catalog.Entry, index int) error {
	if _, ok := m.Stored(e, index); ok {
		return nil
	}
	began := time.Now()
	size, err := m.bringFile(ctx, e, index, cache.Ahead, cache.ByPrefetch, nil)
	if err != nil {
		return err
	}
	m.log.Info("image prefetched", "uuid", e.Manifest.UUID, "name", e.Manifest.Name, "version", e.Manifest.Version,
		"size", size, "took", time.Since(began).Round(time.Millisecond))
	return nil
}
