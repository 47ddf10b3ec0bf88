package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Run refreshes each source on its own interval, side by side, until ctx ends; then it returns nil, after
// its own goroutines and those of lookups have ended. A source that fails keeps its last good list and is
// tried again after 10 s, then after twice that and so on up to its interval. Call it once.
//
// OnChange is called with the list that is current at the start and after swaps, always from the goroutine
// of Run; swaps in quick succession are reported as one.
func (c *Catalog) Run(ctx context.Context) error {
	c.giveBack()
	var loops sync.WaitGroup
	if !c.offline {
		for _, s := range c.sources {
			loops.Go(func() { c.keepFresh(ctx, s) })
		}
	} else {
		loops.Go(func() { c.completeFiles(ctx) }) // from what is on disk
	}
	c.announce(ctx)
	loops.Wait()
	c.stop()
	return nil
}

// announce calls OnChange until ctx ends.
func (c *Catalog) announce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
			c.shareTexts()
			if c.onChange != nil {
				c.onChange(c.Current())
			}
		}
	}
}

// keepFresh refreshes s again and again until ctx ends.
func (c *Catalog) keepFresh(ctx context.Context, s *source) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last, next := time.Time{}, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.remote.Suspect():
			if soon := last.Add(firstRetry); soon.Before(next) {
				next = soon
				timer.Reset(time.Until(next))
			}
			continue
		case <-timer.C:
		}
		last = time.Now()
		if err := c.refresh(ctx, s); err == nil {
			c.complete(ctx)
		}
		c.giveBack()
		pause := c.pause(s)
		next = time.Now().Add(pause)
		timer.Reset(pause)
	}
}

// pause is how long to wait before s is asked again.
func (c *Catalog) pause(s *source) time.Duration {
	c.state.Lock()
	defer c.state.Unlock()
	if s.health.failures == 0 {
		return s.Refresh
	}
	pause := firstRetry
	for i := 1; i < s.health.failures && pause < s.Refresh; i++ {
		pause *= 2
	}
	return min(pause, s.Refresh)
}

// Refresh asks every source once, now, side by side, and swaps the result in; it returns when origins that no
// list shows have been looked for, too. The error joins those of the sources that failed. Offline it does nothing.
func (c *Catalog) Refresh(ctx context.Context) error {
	if c.offline {
		return nil
	}
	err := c.refreshAll(ctx, c.sources)
	c.complete(ctx)
	c.giveBack()
	return err
}

// RefreshDue is Refresh of those sources only whose list is older than their interval, or was another source's under
// the same name; what they said has been saved when it returns. It is for a process that ends soon.
func (c *Catalog) RefreshDue(ctx context.Context) error {
	if c.offline {
		return nil
	}
	var due []*source
	asks := false
	c.state.Lock()
	for _, s := range c.sources { // those of this machine cost nothing
		age := time.Since(s.list.Fetched)
		old := s.list.From != s.from() || age < 0 || age >= s.Refresh || s.list.Kind == kindDirectory
		if old || s.Withdraws {
			due = append(due, s)
		}
		asks = asks || old && !s.Withdraws
	}
	c.state.Unlock()
	err := c.refreshAll(ctx, due)
	if asks {
		c.complete(ctx)
	}
	for _, s := range due {
		c.saveConfirmed(s)
	}
	return err
}

// Check asks the one source of that name for its list, now, and takes over what it says as Run does: it is in the
// list being served and has been saved when Check returns nil. The error is that of the source. ctx bounds the wait
// only: what the source says later is taken over then.
func (c *Catalog) Check(ctx context.Context, name string) error {
	s := c.byName[name]
	switch {
	case s == nil:
		return fmt.Errorf("there is no source %q", name)
	case c.offline && !s.Withdraws:
		return errors.New("the mirror is offline: it asks no source")
	}
	listed, complete := make(chan error, 1), make(chan struct{})
	if !c.spawn(func(ctx context.Context) {
		defer close(complete)
		err := c.refresh(ctx, s)
		if err == nil {
			c.saveConfirmed(s)
		}
		listed <- err
		if err == nil && !c.offline {
			c.complete(ctx)
		}
		c.giveBack()
	}) {
		return errStopped
	}
	select {
	case err := <-listed:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("list of source %s: no answer yet: %w", name, ctx.Err())
	}
	select {
	case <-complete:
	case <-ctx.Done():
	}
	return nil
}

// refreshAll refreshes sources side by side.
func (c *Catalog) refreshAll(ctx context.Context, sources []*source) error {
	errs := make([]error, len(sources))
	var asked sync.WaitGroup
	for i, s := range sources {
		asked.Go(func() { errs[i] = c.refresh(ctx, s) })
	}
	asked.Wait()
	return errors.Join(errs...)
}

// Retake asks the one source of that name for its list, now, offline too: for a source whose list this process
// itself changes. When it returns nil, the list is in the one being served and has been saved.
func (c *Catalog) Retake(ctx context.Context, name string) error {
	s := c.byName[name]
	if s == nil {
		return fmt.Errorf("catalog: there is no source %q", name)
	}
	if err := c.refresh(ctx, s); err != nil {
		return err
	}
	if err := c.trySaveListing(s); err != nil {
		return fmt.Errorf("list of source %s: %w", name, err)
	}
	c.spawn(c.completeFiles)
	return nil
}

// refresh asks s for its list, once, and takes the answer in. One at a time for each source. The error is
// that of the source.
func (c *Catalog) refresh(ctx context.Context, s *source) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()

	prev := c.previous(s)
	listCtx, cancel := context.WithTimeout(ctx, listDeadline)
	got, err := s.Source.List(listCtx, prev)
	cancel()
	now := time.Now()
	switch {
	case err == nil:
		got.Images = c.keepDates(s, got.Images)
		got.Images = c.channels.placeAll(got.Images, s.AsChannels)
		c.accept(s, prev.Images, got, now)
	case c.notModified != nil && errors.Is(err, c.notModified) && !prev.Fetched.IsZero():
		got = prev
		got.ETag, got.LastModified = c.validators(s)
		got.Fetched = now
		c.accept(s, prev.Images, got, now)
	case c.itself != nil && errors.Is(err, c.itself):
		// What it lists is what we list: nothing of its own, whatever was saved of it.
		if !c.hasAnswered(s) || len(prev.Images) > 0 {
			c.accept(s, prev.Images, manifest.Listing{Kind: prev.Kind}, now)
		}
		err = fmt.Errorf("list of source %s: %w", s.name, err)
		c.fail(s, err, now)
		return err
	case ctx.Err() != nil:
		return ctx.Err() // we are stopping; nothing was learned of the source
	default:
		err = fmt.Errorf("list of source %s: %w", s.name, err)
		c.fail(s, err, now)
		return err
	}
	return nil
}

// previous is what s last said, for it to tell whether that has changed. The first time in this process it is
// without validators: the saved list may have been asked for under another configuration.
func (c *Catalog) previous(s *source) manifest.Listing {
	c.state.Lock()
	defer c.state.Unlock()
	prev := s.list
	if !s.fresh {
		prev.ETag, prev.LastModified = "", ""
	}
	if prev.From != s.from() {
		prev.Kind = ""
	}
	return prev
}

func (c *Catalog) validators(s *source) (etag, lastModified string) {
	c.state.Lock()
	defer c.state.Unlock()
	return s.list.ETag, s.list.LastModified
}

// accept takes in a good answer of s. When the images are those it had before, the list being served stays.
func (c *Catalog) accept(s *source, had []manifest.Manifest, got manifest.Listing, now time.Time) {
	got.Source, got.From = s.name, s.from()
	got.Unlisted, got.Retired, got.Details = nil, nil, nil
	if got.Fetched.IsZero() {
		got.Fetched = now
	}
	same := sameImages(had, got.Images)
	var retired, kept []manifest.Manifest
	if !same {
		told := c.told(s)
		retired = c.retire(s, told, got.Images)
		kept = c.ancestorsLeft(s, told, got.Images, retired)
	}
	evicted := c.evicted(s)

	c.state.Lock()
	if same {
		got.Images = s.list.Images // which is what had is, in other memory perhaps
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
			s.unlisted[m.UUID] = unlisted{manifest: m}
		}
		for _, m := range retired {
			s.retired[m.UUID] = unlisted{manifest: m}
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
	c.rebuild()
	c.settle(s, true)

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
		log.Info("list has changed", "kind", got.Kind, "images", len(got.Images), "before", len(had))
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
	images := len(s.list.Images)
	c.state.Unlock()
	c.settle(s, false)

	c.metrics.refreshes.WithLabelValues(s.name, resultFailed).Inc()
	if was != stateDown {
		c.log.Warn("source failed; its last good list is kept", "source", s.name, "images", images, "error", err)
	}
}

// settle notes that s has had its say, with an answer or without, and that the list being served holds it.
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
