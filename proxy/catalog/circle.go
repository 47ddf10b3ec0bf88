package catalog

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// circleLook is the time between two looks at a mirror's wait for a file. A source answers one
// asker within that time when it has just answered another.
const circleLook = 150 * time.Millisecond

// opener is a Source that notes which files it is asked for.
type opener struct {
	Source
	opening *openings
}

func (o opener) File(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	defer o.opening.enter(m.UUID)()
	return o.Source.File(ctx, m, index, offset)
}

func (o opener) Part(ctx context.Context, m manifest.Manifest, index int, offset, length int64) (*verify.Stream, error) {
	defer o.opening.enter(m.UUID)()
	return o.Source.Part(ctx, m, index, offset, length)
}

// openings are the images of which a source has been asked for a file and has not answered yet.
type openings struct {
	mu     sync.Mutex // guards images
	images map[uuid.UUID]int
}

// enter notes that a question begins; the result must be called when it is over.
func (o *openings) enter(id uuid.UUID) (leave func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.images[id]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.images[id]--; o.images[id] == 0 {
			delete(o.images, id)
		}
	}
}

// under tells that the source is being asked for a file of id.
func (o *openings) under(id uuid.UUID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.images[id] > 0
}

// InCircle tells that file index of e, which the mirrors of ctx (see via) ask for, is waited for in
// a circle. InCircle looks again and again until ctx ends. In a circle all sources that are being
// asked for the file are mirrors, and each keeps its answer from us although the mirror has said no
// to us on behalf of our askers: the mirror waits for one of them.
func (c *Catalog) InCircle(ctx context.Context, e Entry, index int) bool {
	tick := time.NewTicker(circleLook)
	defer tick.Stop()
	pause := func() bool {
		select {
		case <-tick.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for pause() {
		silent := c.opening(e)
		if c.allRefuse(ctx, silent, e, index) && pause() && slices.Equal(c.opening(e), silent) {
			return ctx.Err() == nil
		}
	}
	return false
}

// opening gives the sources that are being asked for a file of e.
func (c *Catalog) opening(e Entry) []*source {
	return slices.DeleteFunc(slices.Clone(c.sources), func(s *source) bool { return !s.opening.under(e.Manifest.UUID) })
}

// allRefuse tells that all of sources, at least one, are mirrors that refuse file index of e to the
// mirrors of ctx. Each is asked for the last byte: the head of the answer tells. The question is no
// opening.
func (c *Catalog) allRefuse(ctx context.Context, sources []*source, e Entry, index int) bool {
	asked := via.From(ctx)
	for _, s := range sources {
		c.state.Lock()
		way := s.way(e.Manifest.UUID)
		c.state.Unlock()
		if len(way) == 0 {
			return false
		}
		if via.Crosses(way, asked) {
			continue
		}
		body, err := s.Source.File(ctx, e.Manifest, index, max(0, e.Manifest.Files[index].Size-1))
		if err == nil {
			body.Close() // unread
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return len(sources) > 0
}
