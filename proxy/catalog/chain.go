package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgmirror/manifest"
)

const (
	askDeadline  = 10 * time.Second // one Get that no client waits for
	askSlots     = 8                // of those at the same time
	absentMemory = time.Hour        // an origin that a source does not have is not asked for again that long
	recheckAfter = 24 * time.Hour   // an unlisted manifest is asked for again after that
)

// answer is what a source said of one uuid.
type answer struct {
	source   *source
	id       uuid.UUID
	manifest manifest.Manifest
	outside  bool  // not in the channel that the source is asked for
	err      error // nil: manifest is set; fs.ErrNotExist: it does not have it; else: cannot tell, or refuses
}

// errPrivate is matched by answers about images that must not be served; it matches fs.ErrNotExist.
var errPrivate = fmt.Errorf("it is private: %w", fs.ErrNotExist)

// ask asks s for the manifest of id, in the turn of ctx's asker. A private image that must not be served counts as absent.
func (c *Catalog) ask(ctx context.Context, s *source, id uuid.UUID) answer {
	a := answer{source: s, id: id}
	if c.isStatic(s) {
		s.door.narrow()
	}
	leave, err := s.door.enter(ctx)
	if err != nil {
		a.err = err
		return a
	}
	a.manifest, a.err = s.Source.Get(ctx, id)
	leave(ctx.Err() == nil)
	switch {
	case a.err != nil:
		a.err = fmt.Errorf("source %s: %w", s.name, a.err)
	case a.manifest.UUID != id:
		a.err = fmt.Errorf("source %s: asked for image %s, it answered with %s", s.name, id, a.manifest.UUID)
	case !s.mayServe(a.manifest):
		a.err = fmt.Errorf("source %s: image %s: %w", s.name, id, errPrivate)
	default:
		a.manifest = c.keepDates(s, []manifest.Manifest{a.manifest})[0]
		a.outside = s.outside(a.manifest)
		if c.channels.on() {
			a.manifest = c.channels.place(a.manifest, s.AsChannels)
		}
	}
	return a
}

// note takes answers into the inputs of the list, and gives the new and the changed manifests. The
// caller rebuilds the list and saves these.
func (c *Catalog) note(answers []answer) []found {
	now := time.Now()
	var news []found
	c.state.Lock()
	defer c.state.Unlock()
	for _, a := range answers {
		s := a.source
		switch {
		case a.err == nil:
			if _, ok := s.absent[a.id]; ok {
				delete(s.absent, a.id)
				c.stale = true
			}
			was, had := s.unlisted[a.id]
			s.unlisted[a.id] = given{manifest: a.manifest, checked: now}
			if had && bytes.Equal(was.manifest.Raw(), a.manifest.Raw()) {
				break
			}
			f := found{s, a.manifest}
			c.added = append(c.added, f)
			news = append(news, f)
		case errors.Is(a.err, fs.ErrNotExist):
			if u, ok := s.unlisted[a.id]; ok {
				// Still needed, or it would have been forgotten: see recheck.
				u.checked = now
				s.unlisted[a.id] = u
				break
			}
			_, known := s.absent[a.id]
			s.absent[a.id] = now
			if !known && c.absentEverywhere(a.id) {
				c.stale = true
			}
		}
	}
	return news
}

// completeChains looks for the origins that no list shows, up to the roots, and swaps in the finds.
// The source of the child is asked first, then the others in order. completeChains returns early
// when ctx ends.
func (c *Catalog) completeChains(ctx context.Context) {
	select {
	case c.walking <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-c.walking }()

	w := new(walk)
	c.confirmRetired(ctx, w)
	c.recheck(ctx, w)
	for range maxDepth + 1 {
		tasks := c.missingOrigins(w)
		if len(tasks) == 0 || ctx.Err() != nil {
			return
		}
		news := c.note(c.findAll(ctx, tasks, w))
		c.rebuild()
		c.saveUnlisted(news)
	}
	// Some chain is too long. A new list finds out which images stand on it.
	c.state.Lock()
	c.stale = true
	c.state.Unlock()
	c.rebuild()
}

// originTask is one origin and the sources to ask for it.
type originTask struct {
	id     uuid.UUID
	first  []*source // those that its children come from: each is asked
	others []*source // asked in order until one has it; empty when it is known to be somewhere
}

// missingOrigins are the origins of stored images that must be asked for now.
func (c *Catalog) missingOrigins(w *walk) []originTask {
	type want struct {
		children []*source        // sources that its children come from
		holders  map[*source]bool // sources that are known to have it
	}
	wants := make(map[uuid.UUID]*want)
	var order []uuid.UUID
	list := c.Current()
	for r := range list.all {
		id := r.manifest.Origin
		if id == uuid.Nil {
			continue
		}
		o := wants[id]
		if o == nil {
			o = &want{holders: make(map[*source]bool)}
			wants[id] = o
			order = append(order, id)
		}
		if !slices.Contains(o.children, r.source) {
			o.children = append(o.children, r.source)
		}
	}
	if len(wants) == 0 {
		return nil
	}

	now := time.Now()
	c.state.Lock()
	in := c.inputs()
	recent := make(map[*source]map[uuid.UUID]bool, len(c.sources))
	for _, s := range c.sources {
		recent[s] = make(map[uuid.UUID]bool)
		for id, said := range s.absent {
			if wants[id] == nil {
				delete(s.absent, id) // an origin of no image any more
			} else if now.Sub(said) < absentMemory {
				recent[s][id] = true
			}
		}
	}
	c.state.Unlock()
	for _, src := range in.sources {
		for _, images := range [][]manifest.Manifest{src.images, src.unlisted, src.retired} {
			for i := range images {
				if o := wants[images[i].UUID]; o != nil && src.source.mayServe(images[i]) {
					o.holders[src.source] = true
				}
			}
		}
	}

	var tasks []originTask
	for _, id := range order {
		o := wants[id]
		unasked := func(s *source) bool { return !o.holders[s] && !recent[s][id] && !w.has(s, id) }
		t := originTask{id: id}
		for _, s := range o.children {
			if unasked(s) {
				t.first = append(t.first, s)
			}
		}
		if len(o.holders) == 0 {
			for _, s := range c.sources {
				if unasked(s) && !slices.Contains(o.children, s) {
					t.others = append(t.others, s)
				}
			}
		}
		if len(t.first)+len(t.others) > 0 {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// findAll is findOrigin for many, some of them side by side.
func (c *Catalog) findAll(ctx context.Context, tasks []originTask, w *walk) []answer {
	var mu sync.Mutex
	var answers []answer
	var g errgroup.Group
	g.SetLimit(askSlots)
	for _, t := range tasks {
		g.Go(func() error {
			got := c.findOrigin(ctx, t, w)
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, got...)
			return nil
		})
	}
	_ = g.Wait() // the tasks report through answers
	return answers
}

// findOrigin asks for one origin.
func (c *Catalog) findOrigin(ctx context.Context, t originTask, w *walk) []answer {
	var answers []answer
	have := false
	for i, s := range slices.Concat(t.first, t.others) {
		if have && i >= len(t.first) || ctx.Err() != nil {
			break
		}
		if w.first(s, t.id) {
			askCtx, cancel := context.WithTimeout(ctx, askDeadline)
			a := c.ask(askCtx, s, t.id)
			cancel()
			have = have || a.err == nil
			answers = append(answers, a)
		}
	}
	return answers
}

// unconfirmed gives a task for each manifest in of that its source has not confirmed lately. of is
// called with state held.
func (c *Catalog) unconfirmed(of func(*source) map[uuid.UUID]given) []originTask {
	now := time.Now()
	var tasks []originTask
	c.state.Lock()
	defer c.state.Unlock()
	for _, s := range c.sources {
		for id, u := range of(s) {
			if now.Sub(u.checked) >= recheckAfter {
				tasks = append(tasks, originTask{id: id, first: []*source{s}})
			}
		}
	}
	return tasks
}

// recheck asks again for unlisted manifests without a recent confirmation. A manifest that its
// source no longer has is forgotten, unless a stored image has the image for its origin. A private
// manifest is always forgotten.
func (c *Catalog) recheck(ctx context.Context, w *walk) {
	var answers, gone []answer
	list := c.Current()
	for _, a := range c.findAll(ctx, c.unconfirmed(func(s *source) map[uuid.UUID]given { return s.unlisted }), w) {
		if errors.Is(a.err, errPrivate) || errors.Is(a.err, fs.ErrNotExist) && !list.isOrigin(a.id) {
			gone = append(gone, a)
		} else {
			answers = append(answers, a)
		}
	}
	if len(answers)+len(gone) == 0 {
		return
	}
	news := c.note(answers)
	forgot := make(map[*source]bool)
	c.state.Lock()
	for _, a := range gone {
		delete(a.source.unlisted, a.id)
		forgot[a.source] = true
		c.stale = true
	}
	c.state.Unlock()
	c.rebuild()
	c.saveUnlisted(news)
	for s := range forgot {
		c.saveListing(s)
	}
}

// walk is what one walk has asked so far: nothing twice.
type walk struct{ asked sync.Map } // of question

type question struct {
	source *source
	id     uuid.UUID
}

func (w *walk) has(s *source, id uuid.UUID) bool {
	_, asked := w.asked.Load(question{s, id})
	return asked
}

// first tells that s has not been asked for id, and notes that it is.
func (w *walk) first(s *source, id uuid.UUID) bool {
	_, asked := w.asked.LoadOrStore(question{s, id}, nil)
	return !asked
}
