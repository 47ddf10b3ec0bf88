package upstream

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

const (
	patience      = 5  // failures in a row before a source rests
	patienceParts = 3  // different images for which no connection came about, before a source with its list rests
	manyImages    = 45 // different images without an answer between, before a source with its list rests
	firstRest     = 2 * time.Second
	longestRest   = 30 * time.Second // bounds how long the return of a source can go unnoticed by clients

	// Downloads of images that never failed pass a rest while the list is well: that many at once, and a second.
	freshAtOnce    = 64
	freshPerSecond = 4
)

// breaker is the opinion of questions of one kind: which images the source fails to give, and
// whether the source as a whole rests.
//
// An image alone rests after imagePatience failures. The source as a whole rests (the breaker is
// open) after patience failures in a row, if the list fails as well, if no connection to the source
// comes about, or if the failures were about as many images as leave little hope. Images that are
// known as broken say nothing of a source with its list.
//
// An open breaker lets one question through when the rest is over, and beside it one for an image
// that is known as broken: the latter alone does not decide. A failure doubles the rest, up to
// longestRest. An answer closes the breaker. So does a list after one that failed, or when no other
// question is asked.
type breaker struct {
	metrics breakerMetrics
	what    string
	listed  bool // these questions are about images of the list

	parts    failingParts
	failures int                // in a row
	last     string             // what the last one ended with
	images   map[uuid.UUID]bool // that failed since any had an answer, manyImages at most; true: for want of a connection

	open        bool
	ill         bool          // the list or the connections failed as well
	fresh       pause         // of images that never failed
	known       pause         // of images that are known as broken
	passesFresh *rate.Limiter // of downloads, while the source is not ill
}

// pause is a rest of the source, and the one question after the rest.
type pause struct {
	rest    time.Duration
	until   time.Time // the end of the rest; zero while the breaker is closed
	testing bool      // the question is under way
}

func (p *pause) over(now time.Time) bool { return !p.testing && !now.Before(p.until) }

// lengthen starts the next rest.
func (p *pause) lengthen() {
	p.rest = min(2*p.rest, longestRest)
	p.until = time.Now().Add(p.rest)
}

// idle tells whether no question has come since the rest was over.
func (p *pause) idle() bool { return time.Now().After(p.until.Add(p.rest)) }

func newBreaker(what string, m breakerMetrics) breaker {
	m.resting.Set(0)
	return breaker{what: what, metrics: m, parts: make(failingParts), images: make(map[uuid.UUID]bool)}
}

// until is the end of the rest of the source as a whole; zero while the breaker is closed.
func (b *breaker) until() time.Time {
	if b.known.until.After(b.fresh.until) {
		return b.known.until
	}
	return b.fresh.until
}

// admit fails if the source is not to be asked now. Else the question is put, and test is the pause
// whose one question this is, nil if there is none.
func (b *breaker) admit(p part, w way) (test *pause, err error) {
	now := time.Now()
	f := b.parts[p]
	if f != nil {
		f.asked = now
	}
	if err := f.admit(now); err != nil {
		b.metrics.keptOff.WithLabelValues(keptOffForImage).Inc()
		return nil, err
	}
	if b.open {
		test = &b.fresh
		if f.broken() {
			test = &b.known
		}
		if !test.over(now) {
			test = nil
			fresh := w == fetches && !b.ill && !f.broken()
			if w != goesOn && (!fresh || f == nil && !b.passesFresh.Allow()) {
				b.metrics.keptOff.WithLabelValues(keptOffForSource).Inc()
				return nil, fmt.Errorf("%w (%d times): %s", errResting, b.failures, b.last)
			}
		}
	}
	if test != nil {
		test.testing = true
	}
	if f.broken() {
		f.testing = true
	}
	return test, nil
}

// count notes a failure that says something of the source as a whole.
func (b *breaker) count(image uuid.UUID, lost bool, err error) {
	b.failures++
	b.last = err.Error()
	if _, there := b.images[image]; there || len(b.images) < manyImages {
		b.images[image] = b.images[image] || lost
	}
}

// enough tells whether the failures leave little hope for other images of a source with its list:
// there are no connections, or no image of very many, or of all that the source lists, was given.
func (b *breaker) enough(size int) (ill, enough bool) {
	lost := 0
	for _, without := range b.images {
		if without {
			lost++
		}
	}
	many := manyImages
	if b.listed && size > 0 {
		many = min(many, max(size, patienceParts))
	}
	return lost >= patienceParts, lost >= patienceParts || len(b.images) >= many
}

// rests opens the breaker.
func (b *breaker) rests(ill bool) {
	b.open, b.ill = true, ill
	b.fresh = pause{rest: firstRest, until: time.Now().Add(firstRest)}
	b.known = b.fresh
	b.passesFresh = rate.NewLimiter(freshPerSecond, freshAtOnce)
	b.metrics.open.Set(1)
}

// closes ends the rest of the source. What failed while the source itself was ill, is asked anew.
func (b *breaker) closes() {
	if b.ill {
		clear(b.parts)
		b.show()
	}
	b.open, b.ill, b.fresh, b.known, b.passesFresh = false, false, pause{}, pause{}, nil
	b.metrics.open.Set(0)
}

// show sets the gauge of the images that rest, and gives their number.
func (b *breaker) show() int {
	n, _ := b.parts.broken()
	b.metrics.resting.Set(float64(n))
	return n
}
