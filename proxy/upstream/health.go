package upstream

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
	patience      = 5 // failures in a row, of any kind, before a source rests
	patienceParts = 3 // different images without which, the list being well, failures are no sign of a source that is ill
	firstRest     = 2 * time.Second
	longestRest   = 30 * time.Second // bounds how long the return of a source can go unnoticed by clients

	probeWait   = time.Second     // for the answer to a probe
	aliveMemory = time.Second / 2 // of a source that has answered: bounds how long its end goes unnoticed
	deadMemory  = 2 * time.Second // of a source that has not: bounds how long its return goes unnoticed
)

// errResting is matched by the errors of questions that are kept from the source.
var errResting = fmt.Errorf("%w: not asked, since it fails again and again", verify.ErrUnavailable)

// health is the one opinion of how a source is, made of all its answers: lists, manifests, files,
// probes. Questions are kept from a source that fails again and again: they would wait for nothing.
// A server that cannot tell of single images may well give files, so questions of both kinds rest
// apart.
//
// Lists always pass: their failures make them rarer anyway. The rest of a file passes too: its
// reader would be cut short, and asks a few times only.
type health struct {
	log            *slog.Logger
	up             prometheus.Gauge
	lookups, files breaker
	suspect        chan struct{} // holds one token when the list should be asked for soon, to see how the source is

	mu         sync.Mutex // guards what follows, and both breakers
	listFailed bool       // the last list
	probe      *probe     // the one under way, or the last one; nil: there was none
}

// breaker is the opinion of questions of one kind. A breaker opens after patience failures in a
// row, if the list fails too or if the failures were about several images: one bad file says little
// of a source. An open breaker lets one question through when the rest is over; a failure doubles
// the rest, up to longestRest. An answer closes the breaker. So does a list after one that failed,
// or when no other question is asked.
type breaker struct {
	gauge prometheus.Gauge
	what  string

	failures int         // in a row
	last     string      // what the last one ended with
	images   []uuid.UUID // that had failures since any had an answer; patienceParts at most
	open     bool
	rest     time.Duration
	until    time.Time // the end of the rest; zero while closed
	testing  bool      // a question that was let through is under way
}

// probe is one question that shows whether a source is there, shared by all who want to know.
type probe struct {
	done  chan struct{} // closed once, after what follows is set
	alive bool
	until time.Time // of the memory
}

func newHealth(m sourceMetrics, log *slog.Logger) *health {
	return &health{
		log: log, up: m.up, suspect: make(chan struct{}, 1),
		lookups: breaker{what: whatLookups, gauge: m.lookups},
		files:   breaker{what: whatFiles, gauge: m.files},
	}
}

// answered tells whether err, of a question to a source, shows that the source is there.
func answered(err error) bool {
	return err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// ask puts a question about an image, unless such questions rest; the error matches errResting
// then. always: the question does not rest.
func (h *health) ask(ctx context.Context, b *breaker, image uuid.UUID, always bool, question func() error) error {
	h.mu.Lock()
	let := !b.testing && !time.Now().Before(b.until)
	if b.open && !let && !always {
		defer h.mu.Unlock()
		return fmt.Errorf("%w (%d times): %s", errResting, b.failures, b.last)
	}
	test := b.open && let
	if test {
		b.testing = true
	}
	h.mu.Unlock()
	err := question()
	h.heard(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if test {
		b.testing = false
	}
	switch {
	case answered(err):
		h.well(b)
	case errors.Is(context.Cause(ctx), context.Canceled): // who asked has left
	default:
		h.failed(b, image, err, test)
	}
	return err
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
		idle := b.open && time.Now().After(b.until.Add(b.rest)) // no question since the rest
		switch {
		case !ok:
			h.judge(b)
		case recovered, idle:
			h.well(b)
		case !b.open: // else the list is well, and what else the source is asked for is not
			b.failures = 0
		}
	}
}

// well notes a sign of life; mu is held.
func (h *health) well(b *breaker) {
	b.failures, b.last, b.images = 0, "", nil
	if !b.open {
		return
	}
	b.open, b.until = false, time.Time{}
	b.gauge.Set(0)
	h.log.Info("source is asked as usual again", "what", b.what)
	h.lookAtList() // which may have been given up for minutes
}

// failed notes a failure; mu is held.
func (h *health) failed(b *breaker, image uuid.UUID, err error, test bool) {
	if len(b.images) < patienceParts && !slices.Contains(b.images, image) {
		b.images = append(b.images, image)
	}
	b.failures++
	b.last = err.Error()
	if test && b.open { // else the question was under way when the breaker opened, or is about the rest of a file
		b.rest = min(2*b.rest, longestRest)
		b.until = time.Now().Add(b.rest)
	}
	h.judge(b)
}

// judge opens the breaker if that is due; mu is held.
func (h *health) judge(b *breaker) {
	if b.open || b.failures < patience {
		return
	}
	if !h.listFailed {
		h.lookAtList()
		if len(b.images) < patienceParts {
			return
		}
	}
	b.open, b.rest = true, firstRest
	b.until = time.Now().Add(b.rest)
	b.gauge.Set(1)
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
// manifests or with files, is asked for these less and less until an answer, and before AskedFrom
// only for the rest of a file.
func (c *Client) AskedFrom() time.Time {
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lookups.until.After(h.files.until) {
		return h.lookups.until
	}
	return h.files.until
}

// Reachable tells whether the source answers just now: it is asked for something small of m, which
// the source has, once for all callers, whatever rests, and given a second. The outcome is
// remembered for a second or two. ctx should be one that all callers share. A source whose files
// alone rest counts as out of reach.
func (c *Client) Reachable(ctx context.Context, m manifest.Manifest) bool {
	h := c.health
	h.mu.Lock()
	if time.Now().Before(h.files.until) && !h.listFailed {
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
	s, err := c.file(ctx, m, 0, max(0, m.Files[0].Size-1), false)
	if err != nil {
		return err
	}
	return s.Close()
}
