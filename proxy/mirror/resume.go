package mirror

import (
	"context"
	"time"

	"imgmirror/cache"
)

// resumeEvery is the time between tries of downloads that broke off for good, while the catalogue
// does not change: their source may be back with the list that it had.
const resumeEvery = 5 * time.Minute

// resume goes on with the downloads that an earlier process left unfinished, and with failed
// downloads: once the catalogue is there, again whenever the catalogue changes, and now and then.
// Such downloads take the room that is free and evict nothing.
func (m *Mirror) resume(ctx context.Context) {
	if !m.awaitStart(ctx) {
		return
	}
	again := time.NewTicker(resumeEvery)
	defer again.Stop()
	for {
		if !m.offline.Load() {
			for _, p := range m.store.Partials() {
				if !p.Dropped { // an operator did not want it any more
					m.resumePartial(ctx, p)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.resumeDue:
		case <-again.C:
		}
	}
}

func (m *Mirror) resumePartial(ctx context.Context, p cache.Partial) {
	entry, index, ok := m.Current().BySum(p.Sum, p.Size)
	if !ok {
		return
	}
	log := m.log.With("uuid", entry.Manifest.UUID, "sum", p.Sum, "have", p.Have)
	if err := m.begin(ctx, entry, index); err != nil {
		log.Warn("an unfinished download cannot go on yet", "error", err)
		return
	}
	log.Info("an unfinished download goes on", "size", p.Size)
}
