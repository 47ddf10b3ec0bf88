package main

import (
	"context"
	"time"

	"imgmirror/cache"
	"imgmirror/proxy"
)

// resumeEvery is how often downloads that broke off for good are tried again
// although the catalogue has not changed: their source may be back with the
// list that it had.
const resumeEvery = 5 * time.Minute

// resumePartials goes on with the downloads that an earlier process left
// unfinished, and those that failed since: once the catalogue is there, again
// whenever it changes, and now and then. Nobody waits for them: they take the room
// that is free and evict nothing.
func (m *mirror) resumePartials(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.catalog.Ready():
	case <-m.late:
	}
	again := time.NewTicker(resumeEvery)
	defer again.Stop()
	for {
		if !m.cfg.Load().Offline {
			for _, p := range m.store.Partials() {
				if !p.Dropped { // an operator did not want it any more
					m.resumePartial(ctx, p)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.resume:
		case <-again.C:
		}
	}
}

func (m *mirror) resumePartial(ctx context.Context, p cache.Partial) {
	entry, index, ok := m.catalog.Current().BySum(p.Sum, p.Size)
	if !ok {
		return
	}
	blob, sources := proxy.BlobOf(entry, index)
	blob.Why = cache.Ahead
	reader, err := m.store.File(ctx, blob, sources)
	if err != nil {
		m.log.Warn("an unfinished download cannot go on yet",
			"uuid", entry.Manifest.UUID, "sum", p.Sum, "have", p.Have, "error", err)
		return
	}
	m.log.Info("an unfinished download goes on",
		"uuid", entry.Manifest.UUID, "sum", p.Sum, "have", p.Have, "size", reader.Size())
	reader.Close() //nolint:errcheck // nothing was read
}
