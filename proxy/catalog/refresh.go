package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
)

// Run refreshes each source on its own interval, side by side, until ctx ends; then Run returns
// nil, after its own goroutines and those of lookups. A source that fails keeps its last good list
// and is tried again after 10 s, then after twice that, up to its interval. Call Run once.
//
// OnChange is called with the list at the start and after swaps, always from Run's goroutine; swaps
// in quick succession are reported as one.
func (c *Catalog) Run(ctx context.Context) error {
	c.giveBack()
	var loops sync.WaitGroup
	if !c.opts.Offline {
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
			c.makeReplies()
			c.opts.OnChange(c.Current())
			c.makeTables()
		}
	}
}

// keepFresh refreshes s again and again until ctx ends.
func (c *Catalog) keepFresh(ctx context.Context, s *source) {
	for ctx.Err() == nil {
		began := time.Now()
		if err := c.refresh(ctx, s); err == nil {
			c.complete(ctx)
		}
		c.giveBack()
		c.rest(ctx, s, began.Add(firstRetry))
	}
}

// rest waits for the time at which s is asked again. A suspect source is asked soon: at soon, or at once after soon.
// rest ends with ctx, too.
func (c *Catalog) rest(ctx context.Context, s *source, soon time.Time) {
	due, cancel := context.WithTimeout(ctx, c.pause(s))
	defer cancel()
	select {
	case <-due.Done():
		return
	case <-s.remote.Suspect():
	}
	early, cancel := context.WithDeadline(due, soon)
	defer cancel()
	for {
		select {
		case <-early.Done():
			return
		case <-s.remote.Suspect(): // tells no more than the first
		}
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

// Refresh asks every source once, now, side by side, swaps the result in, and looks for origins
// that no list shows. The error joins those of the sources that failed. Offline, Refresh does
// nothing.
func (c *Catalog) Refresh(ctx context.Context) error {
	if c.opts.Offline {
		return nil
	}
	err := c.refreshAll(ctx, c.sources)
	c.complete(ctx)
	c.giveBack()
	return err
}

// RefreshDue is Refresh of the sources with a list that is older than their interval, or another
// source's. The lists are saved when RefreshDue returns. RefreshDue is for a process that ends
// soon.
func (c *Catalog) RefreshDue(ctx context.Context) error {
	if c.opts.Offline {
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

// Check asks the source of that name for its list, now, and takes the list over as Run does. The
// list is being served and saved when Check returns without an error. The error is that of the source.
// ctx bounds the wait only: a later answer is taken over then.
func (c *Catalog) Check(ctx context.Context, name string) (Change, error) {
	s := c.byName[name]
	switch {
	case s == nil:
		return Change{}, fmt.Errorf("there is no source %q", name)
	case c.opts.Offline && !s.Withdraws:
		return Change{}, errors.New("the mirror is offline: it asks no source")
	}
	var change Change // valid once listed has told
	listed, complete := make(chan error, 1), make(chan struct{})
	if !c.spawn(func(ctx context.Context) {
		defer close(complete)
		before := c.imagesOf(s)
		err := c.refresh(ctx, s)
		if err == nil {
			change = changeOf(before, c.imagesOf(s))
			c.saveConfirmed(s)
		}
		listed <- err
		if err == nil && !c.opts.Offline {
			c.complete(ctx)
		}
		c.giveBack()
	}) {
		return Change{}, errStopped
	}
	select {
	case err := <-listed:
		if err != nil {
			return Change{}, err
		}
	case <-ctx.Done():
		return Change{}, fmt.Errorf("list of source %s: no answer yet: %w", name, ctx.Err())
	}
	select {
	case <-complete:
	case <-ctx.Done():
	}
	return change, nil
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

// Retake asks the source of that name for its list, now, offline too: for a source whose list this
// process changes. The list is being served and saved when Retake returns nil.
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

// refresh asks s for its list, once, and takes the answer in: one call at a time for each source.
// The error is that of the source.
func (c *Catalog) refresh(ctx context.Context, s *source) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()

	c.state.Lock()
	had, fresh, answered := s.list, s.fresh, s.answered
	c.state.Unlock()
	prev := had
	if !fresh { // in this process: the saved list may have been asked for under another configuration
		prev.ETag, prev.LastModified = "", ""
	}
	if prev.From != s.from() {
		prev.Kind = ""
	}
	listCtx, cancel := context.WithTimeout(ctx, listDeadline)
	got, err := s.Source.List(listCtx, prev)
	cancel()
	now := time.Now()
	switch {
	case err == nil:
		got.Images = c.keepDates(s, got.Images)
		got.Images = c.channels.placeAll(got.Images, s.AsChannels)
		c.accept(s, prev.Images, got, now)
		return nil
	case errors.Is(err, manifest.ErrNotModified) && !prev.Fetched.IsZero():
		prev.ETag, prev.LastModified, prev.Fetched = had.ETag, had.LastModified, now
		c.accept(s, prev.Images, prev, now)
		return nil
	case errors.Is(err, via.ErrItself):
		// What it lists is what we list: nothing of its own, whatever was saved of it.
		if !answered || len(prev.Images) > 0 {
			c.accept(s, prev.Images, manifest.Listing{Kind: prev.Kind}, now)
		}
	case ctx.Err() != nil:
		return ctx.Err() // we are stopping; nothing was learned of the source
	}
	err = fmt.Errorf("list of source %s: %w", s.name, err)
	c.fail(s, err, now)
	return err
}
