package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy"
	"imgmirror/proxy/catalog"
)

const (
	// prefetchRetry is how soon what could not be brought is tried again when
	// the catalogue does not change before.
	prefetchRetry = 10 * time.Minute
	// maxChain is the depth of an origin chain at most (spec 0).
	maxChain = 100
)

// prefetchRule is one entry of the configuration's prefetch.
type prefetchRule struct {
	match  []manifest.Filter
	newest int // 0 = all that match
}

func prefetchRules(cfg *config.Config) ([]prefetchRule, error) {
	var rules []prefetchRule
	for _, p := range cfg.Prefetch {
		match, err := filters(p.Match)
		if err != nil {
			return nil, err
		}
		rules = append(rules, prefetchRule{match: match, newest: p.Newest})
	}
	return rules, nil
}

// prefetchable is the part of catalog.List that prefetchWanted reads.
type prefetchable interface {
	Images() []manifest.Manifest
	Entry(id uuid.UUID) (catalog.Entry, bool)
}

// prefetchWanted lists the images that the rules ask for, rule by rule, of each
// the newest first, every one after its origins and none twice. An origin that
// the catalogue does not have is left out.
func prefetchWanted(list prefetchable, rules []prefetchRule) []catalog.Entry {
	var wanted []catalog.Entry
	seen := make(map[uuid.UUID]bool)
	images := list.Images()
	for _, rule := range rules {
		left := rule.newest
		for _, image := range slices.Backward(images) { // they are in order of their age
			if !matches(image, rule.match) {
				continue
			}
			wanted = appendChain(wanted, seen, list, image.UUID)
			if left--; left == 0 {
				break
			}
		}
	}
	return wanted
}

// appendChain appends an image behind its origins, but for those that were seen.
func appendChain(wanted []catalog.Entry, seen map[uuid.UUID]bool, list prefetchable, id uuid.UUID) []catalog.Entry {
	var chain []catalog.Entry
	for range maxChain {
		entry, ok := list.Entry(id)
		if !ok || seen[id] {
			break
		}
		seen[id] = true
		chain = append(chain, entry)
		id = entry.Manifest.Origin
	}
	slices.Reverse(chain)
	return append(wanted, chain...)
}

func matches(image manifest.Manifest, filters []manifest.Filter) bool {
	for _, f := range filters {
		if !f.Match(image) {
			return false
		}
	}
	return true
}

// prefetch brings what the rules ask for: once the catalogue is there, and
// again whenever it, or the rules, have changed. It brings one file at a time,
// behind all that clients wait for, and as much as there is free room for. What
// it has brought and is gone since, because eviction or an operator took it, it
// does not bring again.
func (m *mirror) prefetch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.catalog.Ready():
	case <-m.late:
	}
	p := newPrefetched()
	for {
		var retry <-chan time.Time
		if !m.prefetchAll(ctx, p) {
			retry = time.After(prefetchRetry)
		}
		select {
		case <-ctx.Done():
			return nil
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
func (m *mirror) prefetchAll(ctx context.Context, p *prefetched) bool {
	cfg := m.cfg.Load()
	rules, err := prefetchRules(cfg)
	if err != nil || cfg.Offline {
		return true // an error was told when the configuration was read
	}
	all := true
	for _, entry := range prefetchWanted(m.catalog.Current(), rules) {
		for i := range entry.Manifest.Files {
			id := manifest.FileID{Image: entry.Manifest.UUID, Index: i}
			if p.brought[id] || ctx.Err() != nil {
				continue
			}
			err := m.prefetchFile(ctx, entry, i)
			switch {
			case err == nil:
				p.brought[id] = true
			case ctx.Err() != nil:
			case errors.Is(err, cache.ErrNoSpace):
				if !p.full {
					m.log.Warn("prefetch waits for free room: it evicts nothing", "uuid", id.Image, "error", err)
				}
				p.full = true
				return false
			default:
				m.log.Warn("an image cannot be prefetched", "uuid", id.Image, "error", err)
				all = false
			}
		}
	}
	if p.full && ctx.Err() == nil {
		m.log.Info("prefetch has had room for all", "images", len(p.brought))
		p.full = false
	}
	return all
}

// prefetchFile brings one file unless it is on disk.
func (m *mirror) prefetchFile(ctx context.Context, entry catalog.Entry, index int) error {
	blob, sources := proxy.BlobOf(entry, index)
	blob.Why = cache.Ahead
	if _, ok := m.store.Peek(blob); ok {
		return nil
	}
	began := time.Now()
	r, err := m.store.File(ctx, blob, sources)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	if err := r.Stored(ctx); err != nil {
		return err
	}
	m.log.Info("image prefetched", "uuid", blob.Image, "name", entry.Manifest.Name, "version", entry.Manifest.Version,
		"size", r.Size(), "took", time.Since(began).Round(time.Millisecond))
	return nil
}
