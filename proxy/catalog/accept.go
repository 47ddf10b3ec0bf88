package catalog

import (
	"bytes"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// accept takes in a good answer of s. The list being served stays if the images are the same as
// before.
func (c *Catalog) accept(s *source, had []manifest.Manifest, got manifest.Listing, now time.Time) {
	got.Source, got.From = s.name, s.from()
	got.Unlisted, got.Retired, got.Details = nil, nil, nil
	if got.Fetched.IsZero() {
		got.Fetched = now
	}
	same := sameImages(had, got.Images)
	var retired, kept []manifest.Manifest
	if !same {
		c.state.Lock()
		told := s.told()
		c.state.Unlock()
		retired = c.retire(s, told, got.Images)
		kept = c.ancestorsLeft(s, told, got.Images, retired)
	}
	evicted := c.evicted(s)

	c.state.Lock()
	if same {
		got.Images, got.Text = s.list.Images, s.list.Text // which is what had is, in other memory perhaps
	}
	first := s.list.Fetched.IsZero()
	save := !same || len(evicted) > 0 || first || got.ETag != s.list.ETag || got.LastModified != s.list.LastModified || got.Kind != s.list.Kind ||
		got.From != s.list.From || !got.Refusals.Equal(s.list.Refusals) || got.Fetched.Sub(s.saved) >= time.Hour
	if save {
		s.saved = got.Fetched
	}
	if !sameWays(got, s.list) {
		c.stale = true
	}
	s.list = got
	s.fresh = true
	if !same {
		for i := range got.Images {
			delete(s.unlisted, got.Images[i].UUID)
			delete(s.retired, got.Images[i].UUID)
			if s.mayServe(got.Images[i]) {
				delete(s.absent, got.Images[i].UUID)
			}
		}
		s.keepDetails()
		for _, m := range kept {
			s.unlisted[m.UUID] = given{manifest: m}
		}
		for _, m := range retired {
			s.retired[m.UUID] = given{manifest: m}
		}
		c.stale = true
	}
	for id, isOrigin := range evicted {
		if u, ok := s.retired[id]; ok && isOrigin {
			s.unlisted[id] = u
		}
		delete(s.retired, id)
		c.stale = true
	}
	was := s.health
	s.health = health{state: stateUp, lastTry: now, lastSuccess: got.Fetched, lastError: got.Trouble}
	c.state.Unlock()
	if !same {
		sweep(len(got.Images))
	}
	c.rebuild()
	c.settle(s, true)
	images, before := len(got.Images), len(had)
	if !same {
		got.Images, had = nil, nil // what the source's texts take goes before more is made of them
		c.giveBack()
	}

	c.metrics.lastSuccess.WithLabelValues(s.name).Set(unixSeconds(got.Fetched))
	result := resultChanged
	if same {
		result = resultUnchanged
	}
	c.metrics.refreshes.WithLabelValues(s.name, result).Inc()
	log := c.log.With("source", s.name)
	if was.state == stateDown {
		log.Info("source answers again")
	}
	switch {
	case got.Trouble != "" && got.Trouble != was.lastError:
		log.Warn("source cannot read all it has; images that are there stay as they were", "error", got.Trouble)
	case got.Trouble == "" && was.state == stateUp && was.lastError != "":
		log.Info("source can read all it has again")
	}
	if !same || first {
		log.Info("list has changed", "kind", got.Kind, "images", images, "before", before)
	}

	if save {
		c.saveListing(s)
	}
}

// fail notes that s gave no list; the one it has stays. Logged when the state changes.
func (c *Catalog) fail(s *source, err error, now time.Time) {
	c.state.Lock()
	was := s.health.state
	s.health.state = stateDown
	s.health.failures++
	s.health.lastTry = now
	s.health.lastError = err.Error()
	images, had := len(s.list.Images), !s.health.lastSuccess.IsZero()
	c.state.Unlock()
	c.settle(s, false)

	c.metrics.refreshes.WithLabelValues(s.name, resultFailed).Inc()
	if was != stateDown {
		text := "source failed; its last good list is kept"
		if !had {
			text = "source failed; the source has never given a list"
		}
		c.log.Warn(text, "source", s.name, "images", images, "error", err)
	}
}

// settle notes that s has answered or failed. The list being served holds the answer.
func (c *Catalog) settle(s *source, answered bool) {
	c.state.Lock()
	defer c.state.Unlock()
	s.answered = s.answered || answered
	if s.settled {
		return
	}
	s.settled = true
	if c.unsettled--; c.unsettled == 0 {
		close(c.ready)
	}
}

// sameImages tells whether two lists hold the same manifests, byte for byte, in any order.
func sameImages(a, b []manifest.Manifest) bool {
	if len(a) != len(b) {
		return false
	}
	same := func(x, y *manifest.Manifest) bool { return x.UUID == y.UUID && bytes.Equal(x.Raw(), y.Raw()) }
	i := 0
	for i < len(a) && same(&a[i], &b[i]) {
		i++
	}
	if i == len(a) {
		return true
	}
	// Some servers list in random order.
	at := make(map[uuid.UUID]int, len(a)-i)
	for j := i; j < len(a); j++ {
		at[a[j].UUID] = j
	}
	for j := i; j < len(b); j++ {
		k, ok := at[b[j].UUID]
		if !ok || !same(&a[k], &b[j]) {
			return false
		}
		delete(at, b[j].UUID) // a second one of that uuid does not count
	}
	return true
}
