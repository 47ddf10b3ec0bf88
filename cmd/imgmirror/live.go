package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// generation is one catalogue over one set of sources, with the metrics of both.
// A reload that changes the sources makes another.
type generation struct {
	*catalog.Catalog
	registry *prometheus.Registry
}

// liveCatalog is the catalogue now in use: a reload puts another generation in
// its place while clients are being served. Its methods are those of
// catalog.Catalog, and may be called concurrently.
type liveCatalog struct {
	now  atomic.Pointer[generation]
	next chan succession // to Run
}

// succession is a generation that is to take over; done is closed when it has.
type succession struct {
	*generation
	done chan struct{}
}

func newLiveCatalog(g *generation) *liveCatalog {
	l := &liveCatalog{next: make(chan succession)}
	l.now.Store(g)
	return l
}

// Run keeps the generation in use fresh until ctx ends. Call it once.
func (l *liveCatalog) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	run := func(g *generation) (stop context.CancelFunc) {
		life, stop := context.WithCancel(ctx)
		running.Go(func() { _ = g.Run(life) }) // its error is always nil
		return stop
	}
	stop := run(l.now.Load())
	for {
		select {
		case <-ctx.Done():
			stop()
			return nil
		case s := <-l.next:
			l.now.Store(s.generation)
			close(s.done)
			stop()
			stop = run(s.generation)
		}
	}
}

// replace puts g in the place of the generation in use. Once it returns nil no
// client sees the old one any more; what that was doing ends soon after. While
// nobody runs the catalogue it waits.
func (l *liveCatalog) replace(ctx context.Context, g *generation) error {
	s := succession{generation: g, done: make(chan struct{})}
	select {
	case l.next <- s:
		<-s.done
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Current is the list now being served.
func (l *liveCatalog) Current() *catalog.List { return l.now.Load().Current() }

// Get finds an image, asking the sources if need be. A search that the end of
// its generation cut short is made again by the next.
func (l *liveCatalog) Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
	g := l.now.Load()
	for {
		e, err := g.Get(ctx, id)
		next := l.now.Load()
		if next == g || !errors.Is(err, verify.ErrUnavailable) {
			return e, err
		}
		g = next
	}
}

// Reachable tells whether some source that holds e's files answers just now.
func (l *liveCatalog) Reachable(ctx context.Context, e catalog.Entry) bool {
	return l.now.Load().Reachable(ctx, e)
}

// InCircle tells that mirrors wait for a file of e in a circle, until ctx ends.
func (l *liveCatalog) InCircle(ctx context.Context, e catalog.Entry, index int) bool {
	return l.now.Load().InCircle(ctx, e, index)
}

// Known gives the list now being served if it is known what there is.
func (l *liveCatalog) Known(ctx context.Context) (*catalog.List, error) {
	g := l.now.Load()
	for {
		list, err := g.Known(ctx)
		next := l.now.Load()
		if next == g || err == nil {
			return list, err
		}
		g = next
	}
}

// Ready is closed once every source has had its say.
func (l *liveCatalog) Ready() <-chan struct{} { return l.now.Load().Ready() }

// Status tells of every source, in order of priority.
func (l *liveCatalog) Status() []catalog.Status { return l.now.Load().Status() }

// Hidden says why an image that some source has is not shown to clients.
func (l *liveCatalog) Hidden(id uuid.UUID) []catalog.Hidden { return l.now.Load().Hidden(id) }

// Refresh asks every source for its list, now.
func (l *liveCatalog) Refresh(ctx context.Context) error { return l.now.Load().Refresh(ctx) }

// RefreshDue asks the sources whose lists are old.
func (l *liveCatalog) RefreshDue(ctx context.Context) error { return l.now.Load().RefreshDue(ctx) }

// Check asks one source for its list, now, and takes it over. A question that
// the end of its generation cut short is put again by the next.
func (l *liveCatalog) Check(ctx context.Context, source string) error {
	g := l.now.Load()
	for {
		err := g.Check(ctx, source)
		next := l.now.Load()
		if next == g || err == nil {
			return err
		}
		g = next
	}
}

// Retake has the catalogue take the list of one source anew. It is made again
// if another generation took over meanwhile, which may not have had the news.
func (l *liveCatalog) Retake(ctx context.Context, source string) error {
	g := l.now.Load()
	for {
		err := g.Retake(ctx, source)
		next := l.now.Load()
		if next == g {
			return err
		}
		g = next
	}
}

// Learn records what a downloaded file turned out to be.
func (l *liveCatalog) Learn(id manifest.FileID, f manifest.Facts) { l.now.Load().Learn(id, f) }

// Describe and Collect make it a collector of the metrics of the generation in
// use, whose labels are the names of its sources.
func (l *liveCatalog) Describe(chan<- *prometheus.Desc) {}

// Collect is Describe's other half.
func (l *liveCatalog) Collect(metrics chan<- prometheus.Metric) {
	l.now.Load().registry.Collect(metrics)
}
