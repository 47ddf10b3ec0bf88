package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/verify"
)

const (
	breakerPatience = 5 // failures in a row, of any kind, before a source is left in peace
	breakerImages   = 3 // different images without which, its list being well, that is no sign of a source that is ill
	firstPeace      = 2 * time.Second
	longestPeace    = 30 * time.Second // bounds how long the return of a source can go unnoticed by clients
)

// errInPeace is matched by what is said of a source that was not asked. Whether it has the thing is not known.
var errInPeace = errors.New("not asked: it has failed again and again")

// breaker keeps clients' questions from a source that fails again and again: they would wait for nothing, and it has
// trouble enough. It opens after breakerPatience failures in a row, if the list cannot be had either or if they were
// about several images: one bad file says little of a source. Open, it lets one question through when its peace is
// over; each that fails doubles the peace, up to longestPeace. An answer closes it, and so does a list after one that
// failed, or when nobody asks for anything else.
//
// Lists always pass, since their failures make them rarer anyway. So do files that are continued: whoever reads them
// would be cut short, and the store asks a few times only.
type breaker struct {
	log     *slog.Logger
	gauge   prometheus.Gauge
	suspect chan struct{} // of the source: holds one token when its list should be asked for soon, to see how it is

	mu         sync.Mutex  // guards what follows
	failures   int         // in a row
	images     []uuid.UUID // that had failures since any had an answer; breakerImages at most
	listFailed bool        // the last list
	open       bool
	peace      time.Duration
	until      time.Time // of the peace
	probing    bool      // a question that was let through is under way
}

// enter asks to put a question; the error, if any, matches errInPeace. Else leave must follow with what it gave.
func (b *breaker) enter() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return false, nil
	case b.probing || time.Now().Before(b.until):
		return false, fmt.Errorf("%w (%d times)", errInPeace, b.failures)
	}
	b.probing = true
	return true, nil
}

// leave takes the outcome of a question about an image that was put with ctx.
func (b *breaker) leave(ctx context.Context, probe bool, image uuid.UUID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		b.answered()
	case errors.Is(context.Cause(ctx), context.Canceled): // who asked has left
	default:
		if len(b.images) < breakerImages && !slices.Contains(b.images, image) {
			b.images = append(b.images, image)
		}
		b.failed(probe)
	}
}

// listed takes the outcome of a list.
func (b *breaker) listed(ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	recovered := b.listFailed
	b.listFailed = !ok
	idle := b.open && time.Now().After(b.until.Add(b.peace)) // nobody has asked who could have been let through
	switch {
	case !ok:
		b.judge()
	case recovered, idle:
		b.answered()
	case !b.open: // else the list is well, and what else it is asked for is not
		b.failures = 0
	}
}

// answered notes a sign of life; mu is held.
func (b *breaker) answered() {
	b.failures, b.images = 0, nil
	if !b.open {
		return
	}
	b.open, b.until = false, time.Time{}
	b.gauge.Set(0)
	b.log.Info("source is asked as usual again")
	b.lookAtList() // which may have been given up for minutes
}

// failed notes a failure; mu is held.
func (b *breaker) failed(probe bool) {
	b.failures++
	if probe && b.open { // else it was under way when the breaker opened, or is about the rest of a file
		b.peace = min(2*b.peace, longestPeace)
		b.until = time.Now().Add(b.peace)
	}
	b.judge()
}

// judge opens the breaker if that is due; mu is held.
func (b *breaker) judge() {
	if b.open || b.failures < breakerPatience {
		return
	}
	if !b.listFailed {
		b.lookAtList()
		if len(b.images) < breakerImages {
			return
		}
	}
	b.open, b.peace = true, firstPeace
	b.until = time.Now().Add(b.peace)
	b.gauge.Set(1)
	b.log.Warn("source fails again and again: it is asked less and less until it answers", "failures", b.failures)
}

// lookAtList makes the source's list be asked for soon.
func (b *breaker) lookAtList() {
	select {
	case b.suspect <- struct{}{}:
	default:
	}
}

// peaceUntil is zero while the breaker is closed.
func (b *breaker) peaceUntil() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.until
}

// guard is a source behind its breakers: a server that cannot tell of single images may well give files. List goes past
// both.
type guard struct {
	Source
	lookups, files *breaker
	suspect        chan struct{}
	opening        *openings
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
	if o.images == nil {
		o.images = make(map[uuid.UUID]int)
	}
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

// The values of the label "what".
const (
	whatLookups = "lookups"
	whatFiles   = "files" // and icons
)

func newGuard(s Source, log *slog.Logger, gauge *prometheus.GaugeVec) guard {
	g := guard{Source: s, suspect: make(chan struct{}, 1), opening: new(openings)}
	one := func(what string) *breaker {
		return &breaker{
			log: log.With("source", s.Name(), "what", what), gauge: gauge.WithLabelValues(s.Name(), what), suspect: g.suspect,
		}
	}
	g.lookups, g.files = one(whatLookups), one(whatFiles)
	return g
}

// listed takes the outcome of a list.
func (g guard) listed(ok bool) {
	g.lookups.listed(ok)
	g.files.listed(ok)
}

// peaceUntil is zero while both breakers are closed.
func (g guard) peaceUntil() time.Time {
	lookups, files := g.lookups.peaceUntil(), g.files.peaceUntil()
	if lookups.After(files) {
		return lookups
	}
	return files
}

func (g guard) Get(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	probe, err := g.lookups.enter()
	if err != nil {
		return manifest.Manifest{}, err
	}
	m, err := g.Source.Get(ctx, id)
	g.lookups.leave(ctx, probe, id, err)
	return m, err
}

func (g guard) File(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	probe, err := g.files.enter()
	if err != nil && offset == 0 {
		return nil, err
	}
	defer g.opening.enter(m.UUID)()
	s, err := g.Source.File(ctx, m, index, offset)
	g.files.leave(ctx, probe, m.UUID, err)
	return s, err
}

// Head is asked for as clients' files are, but its failures say nothing of these: they do not count against the source.
func (g guard) Head(ctx context.Context, m manifest.Manifest, index int) ([]byte, int64, error) {
	if !g.files.peaceUntil().IsZero() {
		return nil, 0, errInPeace
	}
	return g.Source.Head(ctx, m, index)
}

func (g guard) Icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error) {
	probe, err := g.files.enter()
	if err != nil {
		return nil, err
	}
	s, err := g.Source.Icon(ctx, m)
	g.files.leave(ctx, probe, m.UUID, err)
	return s, err
}
