package mirror

import (
	"context"
	"errors"
	"sync"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// generation is one catalogue over one set of sources, with the metrics of both. Replace makes the
// next one, which takes over while clients are being served.
type generation struct {
	*catalog.Catalog
	registry *prometheus.Registry
}

// succession is a generation that is to take over; done is closed once the generation has.
type succession struct {
	*generation
	done chan struct{}
}

// runCatalog keeps the generation in use fresh until ctx ends. Call it once.
func (m *Mirror) runCatalog(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	run := func(g *generation) (stop context.CancelFunc) {
		life, stop := context.WithCancel(ctx)
		running.Go(func() { _ = g.Run(life) }) // its error is always nil
		return stop
	}
	stop := run(m.now.Load())
	for {
		select {
		case <-ctx.Done():
			stop()
			return nil
		case s := <-m.next:
			m.now.Store(s.generation)
			close(s.done)
			stop()
			stop = run(s.generation)
		}
	}
}

// Replace puts other sources in the place of those in use, or fails and changes nothing. Once
// Replace returns nil no client sees the former catalogue; its work ends soon after. Replace waits
// for Run.
func (m *Mirror) Replace(ctx context.Context, sources Sources) error {
	g, err := m.newGeneration(sources)
	if err != nil {
		return err
	}
	s := succession{generation: g, done: make(chan struct{})}
	select {
	case m.next <- s:
		<-s.done
		m.offline.Store(sources.Offline)
		m.wakeLoops()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask puts a question to the generation in use. When an answer fails, and the end of the generation
// explains the error, the generation that took over is asked as well.
func ask[T any](m *Mirror, question func(*generation) (T, error), explained func(error) bool) (T, error) {
	g := m.now.Load()
	for {
		answer, err := question(g)
		next := m.now.Load()
		if next == g || !explained(err) {
			return answer, err
		}
		g = next
	}
}

func anyError(err error) bool { return err != nil }

// Get finds one image, asking the sources if need be: see catalog.Catalog.Get.
func (m *Mirror) Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
	return ask(m, func(g *generation) (catalog.Entry, error) { return g.Get(ctx, id) },
		func(err error) bool { return errors.Is(err, verify.ErrUnavailable) })
}

// Known gives the list now being served if it is known what there is: see catalog.Catalog.Known.
func (m *Mirror) Known(ctx context.Context) (*catalog.List, error) {
	return ask(m, func(g *generation) (*catalog.List, error) { return g.Known(ctx) }, anyError)
}

// Check asks one source, by its name, for its list, now, and takes the list over. ctx bounds the
// wait only.
func (m *Mirror) Check(ctx context.Context, source string) (catalog.Change, error) {
	return ask(m, func(g *generation) (catalog.Change, error) { return g.Check(ctx, source) }, anyError)
}

// retake has the catalogue take the list of one of the mirror's own sources anew, and save the list:
// in each generation that may lack the news.
func (m *Mirror) retake(ctx context.Context, source string) error {
	_, err := ask(m, func(g *generation) (any, error) { return nil, g.Retake(ctx, source) }, func(error) bool { return true })
	return err
}

// Current is the list now being served: immutable, never nil, no waiting.
func (m *Mirror) Current() *catalog.List { return m.now.Load().Current() }

// Reachable tells whether a source that holds the files of e answers now. It waits for a second or
// so at most.
func (m *Mirror) Reachable(ctx context.Context, e catalog.Entry) bool {
	return m.now.Load().Reachable(ctx, e)
}

// InCircle tells that mirrors wait in a circle for a file of e: see catalog.Catalog.InCircle.
func (m *Mirror) InCircle(ctx context.Context, e catalog.Entry, index int) bool {
	return m.now.Load().InCircle(ctx, e, index)
}

// Status tells of every source, in order of priority.
func (m *Mirror) Status() []catalog.Status { return m.now.Load().Status() }

// Hidden says why an image that a source has is not shown to clients.
func (m *Mirror) Hidden(id uuid.UUID) []catalog.Hidden { return m.now.Load().Hidden(id) }

// Refresh asks every source for its list, now. The error joins those of the sources that failed.
func (m *Mirror) Refresh(ctx context.Context) error { return m.now.Load().Refresh(ctx) }

// RefreshDue is Refresh for the sources whose lists are old.
func (m *Mirror) RefreshDue(ctx context.Context) error { return m.now.Load().RefreshDue(ctx) }

// learned records what a downloaded file turned out to be.
func (m *Mirror) learned(id manifest.FileID, f manifest.Facts) { m.now.Load().Learn(id, f) }

// generationMetrics are the metrics of the generation in use, whose labels are the names of its sources.
type generationMetrics struct{ *Mirror }

func (generationMetrics) Describe(chan<- *prometheus.Desc) {}

func (g generationMetrics) Collect(metrics chan<- prometheus.Metric) {
	g.now.Load().registry.Collect(metrics)
}
