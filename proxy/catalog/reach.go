package catalog

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"imgmirror/manifest"
)

const (
	probeWait   = time.Second     // for the answer to a probe that a client waits for
	aliveMemory = time.Second / 2 // of a source that has answered: bounds how long its end goes unnoticed
	deadMemory  = 2 * time.Second // of a source that has not: bounds how long its return goes unnoticed
)

// contact is what probes tell of a source's presence.
type contact struct {
	mu   sync.Mutex // guards last
	last *probe     // the one under way, or the last one; nil: there was none
}

// probe is one question that shows whether a source is there, shared by all who want to know.
type probe struct {
	done  chan struct{} // closed once, after what follows is set
	alive bool
	until time.Time // of the memory
}

// answered tells whether err, of a question to a source, shows that the source is there.
func answered(err error) bool {
	return err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// Reachable tells whether some source that holds e's files can be reached just now, or one of the others turns out to hold
// them. A source is asked for e's manifest,
// once for all callers, and given a second to answer; the outcome is remembered for a second or two. A source whose
// files alone have failed again and again counts as out of reach while clients' questions are kept from it.
func (c *Catalog) Reachable(parent context.Context, e Entry) bool {
	ctx, cancel := context.WithTimeout(parent, probeWait)
	defer cancel()
	outcomes := make(chan bool, len(e.Holders))
	asked := 0
	for _, h := range e.Holders {
		s := c.byName[h.Source.Name()]
		if s == nil || time.Now().Before(s.guard.files.peaceUntil()) && !s.listIsDown() {
			continue
		}
		asked++
		p := c.probe(s, h.Manifest)
		go func() {
			select {
			case <-p.done:
				outcomes <- p.alive
			case <-ctx.Done():
				outcomes <- false
			}
		}()
	}
	for range asked {
		if <-outcomes {
			return true
		}
	}
	return anyFinds(parent, e.Others)
}

// anyFinds tells whether one of the others holds the image that they are the others of. It waits for a second at most.
func anyFinds(ctx context.Context, others []Holder) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	outcomes := make(chan bool, len(others))
	asked := 0
	for _, h := range others {
		if other, ok := h.Source.(seeker); ok {
			asked++
			go func() {
				_, err := other.seek(ctx)
				outcomes <- err == nil
			}()
		}
	}
	for range asked {
		if <-outcomes {
			return true
		}
	}
	return false
}

// listIsDown tells that the last list could not be had either: it is not the files alone that fail.
func (s *source) listIsDown() bool {
	b := s.guard.files
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listFailed
}

// probe gives the probe of s that is under way or that is remembered, else one that asks s for something small of the
// image m that s holds.
func (c *Catalog) probe(s *source, m manifest.Manifest) *probe {
	s.contact.mu.Lock()
	defer s.contact.mu.Unlock()
	if p := s.contact.last; p != nil {
		select {
		case <-p.done:
			if time.Now().Before(p.until) {
				return p
			}
		default:
			return p
		}
	}
	p := &probe{done: make(chan struct{})}
	s.contact.last = p
	if !c.spawn(func(ctx context.Context) {
		defer close(p.done)
		ctx, cancel := context.WithTimeout(ctx, probeWait)
		defer cancel()
		memory := deadMemory
		if p.alive = answered(c.touch(ctx, s, m)); p.alive {
			memory = aliveMemory
		}
		p.until = time.Now().Add(memory)
		if p.alive && s.listIsDown() {
			s.guard.listed(true) // the source is back: clients' questions may reach it again
		}
	}) {
		close(p.done) // the catalogue has stopped
	}
	return p
}

// touch asks s for the manifest of m, or the last byte of its file where a manifest means the whole list.
func (c *Catalog) touch(ctx context.Context, s *source, m manifest.Manifest) error {
	c.state.Lock()
	static := s.list.Kind == kindStatic
	c.state.Unlock()
	if !static || len(m.Files) == 0 {
		_, err := s.Source.Get(ctx, m.UUID)
		return err
	}
	stream, err := s.Source.File(ctx, m, 0, max(0, m.Files[0].Size-1))
	if err != nil {
		return err
	}
	return stream.Close()
}
