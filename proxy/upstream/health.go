package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/verify"
)

const (
	probeWait   = time.Second     // for the answer to a probe
	aliveMemory = time.Second / 2 // of a source that has answered: bounds how long its end goes unnoticed
	deadMemory  = 2 * time.Second // of a source that has not: bounds how long its return goes unnoticed
)

var (
	// errResting is matched by the errors of questions that are kept from the source.
	errResting = fmt.Errorf("%w: not asked, since it fails again and again", verify.ErrUnavailable)
	// errImageRests is the errResting of an image that fails while its source is well.
	errImageRests = fmt.Errorf("%w: %w", errResting, verify.ErrResting)
)

// way is how much a question depends on its answer.
type way int

const (
	looks   way = iota // rests with the source
	fetches            // a download passes the rest of a source with its list, unless its image is known as broken
	goesOn             // the rest of a file passes: its reader would be cut short
)

// health is the one opinion of how a source is, made of all its answers: lists, manifests, files,
// probes. Questions are kept from a source that fails again and again: they would wait for nothing.
// While the list is well, and different images are given, only the images that fail rest. A server
// that cannot tell of single images may well give files, so questions of both kinds rest apart.
//
// Lists always pass: their failures make them rarer anyway.
type health struct {
	log            *slog.Logger
	up             prometheus.Gauge
	lookups, files breaker
	suspect        chan struct{} // holds one token when the list should be asked for soon, to see how the source is

	mu         sync.Mutex // guards what follows, and both breakers
	listFailed bool       // the last list
	size       int        // images on the last list; 0: not known
	probe      *probe     // the one under way, or the last one; nil: there was none
}

// probe is one question that shows whether a source is there, shared by all who want to know.
type probe struct {
	done  chan struct{} // closed once, after what follows is set
	alive bool
	until time.Time // of the memory
}

func newHealth(m sourceMetrics, log *slog.Logger) *health {
	h := &health{
		log: log, up: m.up, suspect: make(chan struct{}, 1),
		lookups: newBreaker(whatLookups, m.lookups),
		files:   newBreaker(whatFiles, m.files),
	}
	h.files.listed = true
	return h
}

// answered tells whether err, of a question to a source, shows that the source is there.
func answered(err error) bool {
	return err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// asked is a question that a breaker let through.
type asked struct {
	h     *health
	b     *breaker
	part  part
	way   way
	began time.Time
	test  *pause // see breaker.admit
}

// ask puts a question about a part of an image, unless such questions rest; the error matches
// errResting then. An answer counts for the part as well.
func (h *health) ask(ctx context.Context, b *breaker, p part, question func() error) error {
	a, err := h.put(ctx, b, p, looks, question)
	if a != nil {
		a.gave()
	}
	return err
}

// put is ask of a question with a body. Without an error, the caller tells asked of the body: it
// gave, it broke, or the reader has left.
func (h *health) put(ctx context.Context, b *breaker, p part, w way, question func() error) (*asked, error) {
	h.mu.Lock()
	test, err := b.admit(p, w)
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	a := &asked{h: h, b: b, part: p, way: w, began: time.Now(), test: test}
	err = question()
	h.heard(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if test != nil {
		test.testing = false
	}
	switch {
	case err == nil:
		h.well(b)
		return a, nil
	case answered(err):
		h.well(b)
		h.gave(b, p)
	case errors.Is(context.Cause(ctx), context.Canceled): // who asked has left
		b.parts.release(p)
	default:
		a.failed(err)
	}
	return nil, err
}

// failed notes that the question was not answered; mu is held.
func (a *asked) failed(err error) {
	h, b := a.h, a.b
	known := b.parts[a.part].broken()
	lost := errors.As(err, new(noConnection))
	if lost { // no matter of the image
		b.parts.release(a.part)
	} else {
		h.imageFailed(a, a.way != goesOn && time.Since(a.began) >= slowFailure, err)
	}
	if a.test != nil && b.open {
		a.test.lengthen()
	}
	if known && !lost && !h.listFailed {
		return
	}
	b.count(a.part.image, lost, err)
	h.judge(b)
}

// imageFailed notes a failure to give a part; mu is held.
func (h *health) imageFailed(a *asked, slow bool, err error) {
	b := a.b
	b.parts.release(a.part)
	if !b.parts.failed(a.part, slow, err) {
		return
	}
	level := slog.LevelDebug
	if b.show() == 1 {
		level = slog.LevelWarn
	}
	h.log.Log(context.Background(), level, "source fails to give an image: such images are asked for less and less",
		"what", b.what, "uuid", a.part.image, "error", err)
}

// gave notes that a part was given, or is not there; mu is held.
func (h *health) gave(b *breaker, p part) {
	f := b.parts[p]
	if f == nil {
		return
	}
	delete(b.parts, p)
	if f.broken() && b.show() == 0 {
		h.log.Info("source gives all images that are asked for again", "what", b.what)
	}
}

// gave notes the first byte.
func (a *asked) gave() {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.h.gave(a.b, a.part)
}

// broke notes the break of the body, whose first bytes came if began.
func (a *asked) broke(err error, began bool) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	slow := !began && a.way != goesOn && time.Since(a.began) >= slowFailure
	a.h.imageFailed(a, slow, err)
}

// left notes that no more is known of the body.
func (a *asked) left() {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.b.parts.release(a.part)
}

// heard sets the gauge by the outcome of a question, or of a transfer. A caller that has left, and
// a 4xx answer, say nothing about the source.
func (h *health) heard(err error) {
	switch {
	case err == nil:
		h.up.Set(1)
	case errors.Is(err, verify.ErrUnavailable):
		h.up.Set(0)
	}
}

// listed takes the outcome of a list: a source that gives none is not up, whatever the reason.
// A list that comes again after a failure has all be asked as usual.
func (h *health) listed(err error) {
	ok := err == nil || errors.Is(err, manifest.ErrNotModified)
	if !ok && errors.Is(err, context.Canceled) { // who asked has left
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	recovered := ok && h.listFailed
	h.listFailed = !ok
	if ok {
		h.up.Set(1)
	} else {
		h.up.Set(0)
	}
	for _, b := range []*breaker{&h.lookups, &h.files} {
		switch {
		case !ok:
			h.judge(b)
		case recovered:
			h.well(b)
			clear(b.parts)
		case b.open && b.fresh.idle() && b.known.idle():
			h.well(b)
		case !b.open: // else the list is well, and what else the source is asked for is not
			b.failures = 0
		}
		b.show()
	}
}

// holds takes the number of images on the list.
func (h *health) holds(images int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.size = images
}

// well notes a sign of life; mu is held.
func (h *health) well(b *breaker) {
	b.failures, b.last = 0, ""
	clear(b.images)
	if !b.open {
		return
	}
	b.closes()
	h.log.Info("source is asked as usual again", "what", b.what)
	h.lookAtList() // which may have been given up for minutes
}

// judge opens the breaker if that is due; mu is held.
func (h *health) judge(b *breaker) {
	if b.open || b.failures < patience {
		return
	}
	ill, enough := b.enough(h.size)
	if !h.listFailed {
		h.lookAtList()
		if !enough {
			return
		}
	}
	b.rests(ill || h.listFailed)
	h.log.Warn("source fails again and again: it is asked less and less until it answers", "what", b.what, "failures", b.failures, "error", b.last)
}

func (h *health) lookAtList() {
	select {
	case h.suspect <- struct{}{}:
	default:
	}
}

// Suspect holds one token when the source's list is due soon, to see how the source is.
func (c *Client) Suspect() <-chan struct{} { return c.health.suspect }

// AskedFrom is zero while the source is asked as usual. A source that fails again and again, with
// manifests or with files, is asked for these less and less until an answer. Before AskedFrom it is
// asked for the rest of a file, and, while its list is well, for files of images that never failed.
func (c *Client) AskedFrom() time.Time {
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	lookups, files := h.lookups.until(), h.files.until()
	if lookups.After(files) {
		return lookups
	}
	return files
}

// Resting tells how many images the source fails to give while it gives others, each asked for
// rarely, and why these, or all questions, rest; "" when none do.
func (c *Client) Resting() (images int, why string) {
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	var reasons []string
	for _, b := range []*breaker{&h.lookups, &h.files} {
		n, last := b.parts.broken()
		images += n
		switch {
		case b.open:
			reasons = append(reasons, fmt.Sprintf("%s rest after %d failures: %s", b.what, b.failures, b.last))
		case n > 0:
			reasons = append(reasons, fmt.Sprintf("%s of %d images rest: %s", b.what, n, last))
		}
	}
	return images, strings.Join(reasons, "; ")
}

// Reachable tells whether the source answers just now: it is asked for something small of m, which
// the source has, once for all callers, whatever rests, and given a second. The outcome is
// remembered for a second or two. ctx should be one that all callers share. A source whose files
// alone rest counts as out of reach, and so does one that fails to give the file of m.
func (c *Client) Reachable(ctx context.Context, m manifest.Manifest) bool {
	h := c.health
	h.mu.Lock()
	now := time.Now()
	rests := now.Before(h.files.until()) || h.files.parts[part{m.UUID, 0}].admit(now) != nil
	if rests && !h.listFailed {
		h.mu.Unlock()
		return false
	}
	p := h.probe
	if p == nil || !p.until.IsZero() && !time.Now().Before(p.until) {
		p = &probe{done: make(chan struct{})}
		h.probe = p
		h.mu.Unlock()
		c.run(ctx, p, m)
		return p.alive
	}
	h.mu.Unlock()
	select {
	case <-p.done:
		return p.alive
	case <-ctx.Done():
		return false
	}
}

// run puts the question of p. An answer of a source that was down altogether ends all rests.
func (c *Client) run(ctx context.Context, p *probe, m manifest.Manifest) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	alive, memory := answered(c.touch(ctx, m)), deadMemory
	if alive {
		memory = aliveMemory
	}
	h := c.health
	h.mu.Lock()
	p.alive, p.until = alive, time.Now().Add(memory)
	back := alive && h.listFailed
	h.mu.Unlock()
	close(p.done)
	if back {
		h.listed(nil)
	}
}

// touch asks for the manifest of m, or for the last byte of its file where a manifest takes the
// whole list.
func (c *Client) touch(ctx context.Context, m manifest.Manifest) error {
	v, err := c.resolve(ctx)
	if err != nil {
		return err
	}
	if v.kind != kindStatic || len(m.Files) == 0 {
		_, err := c.get(ctx, m.UUID)
		return err
	}
	s, err := c.file(ctx, m, 0, span{offset: max(0, m.Files[0].Size-1)})
	if err != nil {
		return err
	}
	return s.Close()
}
