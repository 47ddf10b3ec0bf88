package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/via"
	"imgmirror/race"
	"imgmirror/verify"
)

const (
	lookupWait     = 2500 * time.Millisecond // one search by uuid, whatever sources do (spec 5.5: a 503 within 3 s)
	headStart      = 500 * time.Millisecond  // that a source has at most before the next is asked too
	negativeMemory = 60 * time.Second        // of a uuid that no source has (spec 5.3)
	unsureMemory   = time.Second             // of a uuid of which some source could not tell, or refused to
	maxFlights     = 2048                    // searches at the same time; most of them wait for their turn at a source
)

// flights are the searches under way and the memory of those in vain. One account may have as many
// searches under way as there is room left for.
type flights struct {
	mu        sync.Mutex // guards what follows; taken before Catalog.state
	running   map[wanted]*flight
	of        map[account]int // searches under way
	negatives negatives
}

func newFlights() flights {
	return flights{running: make(map[wanted]*flight), of: make(map[account]int), negatives: newNegatives()}
}

// wanted is an image that is searched for, and on whose behalf. Mirrors that ask each other in a
// ring must not wait for one search: each question has gone a longer way than the one before, and
// the ring ends.
type wanted struct {
	id    uuid.UUID
	asked string // ids of mirrors, joined
}

// flight is one search, shared by all who want the image. The account of the first one pays.
type flight struct {
	payer account
	asker *asker

	done  chan struct{} // closed once, after what follows is set
	entry Entry
	err   error
}

// Get finds an image by uuid: in the current list, else by asking the sources in order, once for
// all callers. ctx bounds the wait of this caller only. Get returns within about 2.5 s, or 5 s when
// the manifest lacks something. A find is in the current list, as unlisted, when Get returns; its
// origins are looked for.
//
// The error matches fs.ErrNotExist when no source gives the image: each lacks the image, refuses
// it, keeps it private or is configured not to give it. An image that all sources lack is
// remembered for 60 s. The error matches verify.ErrUnavailable when some source could not tell.
// That, and a refusal, are remembered for 1 s, so that a client that asks again and again is no
// burden to a source that is ill. Offline, no source is asked, and an image that is not stored does
// not exist.
//
// The questions count for the client of ctx (see ForClient), without one for the operator. The error
// matches ErrBusy beside verify.ErrUnavailable when a source was not asked since too many questions
// wait, and ErrThrottled when these are of the same client. No one else is refused for that.
//
// A ctx with the ids of mirrors (see via) asks on their behalf: an image that is here through one
// of them only counts as absent, and none of them is asked.
func (c *Catalog) Get(ctx context.Context, id uuid.UUID) (Entry, error) {
	asked := via.From(ctx)
	if len(asked) > 0 && c.asking(id, asked) {
		return Entry{}, fmt.Errorf("image %s: its asker is being asked for its file: %w", id, fs.ErrNotExist)
	}
	if e, ok := c.stored(id, asked); ok {
		return c.completed(ctx, e)
	}
	if c.opts.Offline || len(c.sources) == 0 {
		return Entry{}, fmt.Errorf("image %s: %w", id, fs.ErrNotExist)
	}
	f := c.search(id, asked, accountOf(ctx))
	select {
	case <-f.done:
		if f.err != nil {
			return f.entry, f.err
		}
		return c.completed(ctx, f.entry)
	case <-ctx.Done():
		return Entry{}, fmt.Errorf("image %s: %w: %w", id, verify.ErrUnavailable, ctx.Err())
	}
}

// search gives the flight for id on behalf of the mirrors asked, and for an account: under way, new,
// or over already.
func (c *Catalog) search(id uuid.UUID, asked []string, payer account) *flight {
	w := wanted{id, strings.Join(asked, " ")}
	over := func(e Entry, err error) *flight {
		f := &flight{done: make(chan struct{}), entry: e, err: err}
		close(f.done)
		return f
	}
	l := &c.lookups
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.running[w]; f != nil {
		f.asker.join(payer)
		return f
	}
	// A flight leaves running only after its find is in the list.
	if e, ok := c.stored(id, asked); ok {
		return over(e, nil)
	}
	if err := l.negatives.get(w, time.Now()); err != nil {
		return over(Entry{}, err)
	}
	if l.of[payer] >= maxFlights-len(l.running) {
		c.metrics.lookups.WithLabelValues(resultRefused).Inc()
		c.metrics.refused.WithLabelValues(refusedSearches).Inc()
		return over(Entry{}, fmt.Errorf("image %s: %w: %w", id, verify.ErrUnavailable, ErrThrottled))
	}
	f := &flight{payer: payer, asker: newAsker(payer), done: make(chan struct{})}
	if !c.spawn(func(ctx context.Context) { c.fly(askedBy(via.With(ctx, asked), f.asker), w, f) }) {
		return over(Entry{}, fmt.Errorf("image %s: %w: the catalogue has stopped", id, verify.ErrUnavailable))
	}
	l.running[w] = f
	l.of[payer]++
	c.metrics.searches.Set(float64(len(l.running)))
	return f
}

// fly runs the search f for w; ctx tells who asks, and on whose behalf.
func (c *Catalog) fly(ctx context.Context, w wanted, f *flight) {
	id := w.id
	a, err := c.askInOrder(ctx, id)
	if err != nil {
		f.err = err
		result, memory := resultAbsent, negativeMemory
		switch {
		case errors.Is(err, ErrBusy): // of this asker: others may have more luck
			result, memory = resultRefused, 0
		case errors.Is(err, verify.ErrUnavailable):
			result, memory = resultUnavailable, unsureMemory
		case errors.Is(err, fs.ErrPermission):
			memory = unsureMemory
		}
		c.metrics.lookups.WithLabelValues(result).Inc()
		c.land(w, f, memory)
		close(f.done)
		return
	}
	c.metrics.lookups.WithLabelValues(resultFound).Inc()
	news := c.note([]answer{a})
	c.state.Lock()
	facts := c.facts
	c.state.Unlock()
	m := withFacts(a.manifest, facts)
	f.entry = c.entry(record{manifest: &m, source: a.source})
	if c.building.TryLock() {
		c.rebuildLocked()
		c.building.Unlock()
		if e, ok := c.stored(id, via.From(ctx)); ok {
			f.entry = e
		}
		close(f.done)
	} else {
		close(f.done) // a big list is being built: who waits for one image need not wait for that
		c.rebuild()
	}
	c.land(w, f, 0)
	c.saveUnlisted(news)
	if _, ok := c.Current().record(m.Origin); !ok && m.Origin != uuid.Nil {
		c.complete(askedBy(ctx, nil))
	}
}

// land ends the flight f for w. Its error is remembered for so long; 0 = not at all.
func (c *Catalog) land(w wanted, f *flight, memory time.Duration) {
	l := &c.lookups
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, w)
	if l.of[f.payer]--; l.of[f.payer] == 0 {
		delete(l.of, f.payer)
	}
	c.metrics.searches.Set(float64(len(l.running)))
	if memory > 0 {
		l.negatives.put(f.payer, negative{wanted: w, err: f.err, until: time.Now().Add(memory)})
	}
}

// askInOrder asks the sources for id in order of priority. The next one is asked when one has said
// no or could not tell, and when the head start of the last one is over. The first to have the
// image wins. The error matches verify.ErrUnavailable or fs.ErrNotExist, the latter together with
// fs.ErrPermission when a source refused.
func (c *Catalog) askInOrder(ctx context.Context, id uuid.UUID) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	asked := via.From(ctx)
	var unsure, refused []error
	pause := min(headStart, lookupWait/time.Duration(len(c.sources)+1))
	a, _, ok := race.First(ctx, len(c.sources), pause, func(i int, answers chan<- answer) {
		s := c.sources[i]
		if c.isOneOf(s, asked) {
			answers <- answer{source: s, id: id, err: fmt.Errorf("source %s: it has asked for it: %w", s.name, fs.ErrNotExist)}
			return
		}
		c.spawn(func(context.Context) { answers <- c.ask(ctx, s, id) })
	}, func(a answer) bool {
		switch {
		case a.err == nil:
			return c.gives(a)
		case errors.Is(a.err, fs.ErrNotExist):
		case errors.Is(a.err, fs.ErrPermission):
			refused = append(refused, a.err)
		default:
			unsure = append(unsure, a.err)
		}
		return false
	})
	if ok {
		return a, nil
	}
	if ctx.Err() != nil {
		unsure = append(unsure, fmt.Errorf("image %s: not all sources gave an answer in time", id))
	}
	switch {
	case len(unsure) > 0:
		return answer{}, fmt.Errorf("%w: %w", verify.ErrUnavailable, errors.Join(unsure...))
	case len(refused) > 0:
		return answer{}, fmt.Errorf("image %s: %w: %w", id, fs.ErrNotExist, errors.Join(refused...))
	}
	return answer{}, fmt.Errorf("image %s: %w", id, fs.ErrNotExist)
}
