package upstream

import (
	"errors"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"imgmirror/manifest"
)

// verdict is what a source was found to be (spec 5.2).
type verdict struct {
	kind    string // "" while unknown
	dialect string // "smartos-image-server", or "": for the log, since it is asked like any dsapi
}

// state is what a Client learns from the answers. The lock is never held over I/O,
// so two callers that find nothing may both ask.
type state struct {
	noVersion atomic.Bool             // the source answers InvalidVersion to our Accept-Version
	channels  atomic.Bool             // it has shown images with channels
	peer      atomic.Pointer[string]  // the mirror that the source is, as its last answer told; nil: it is none
	dsapi     atomic.Pointer[bool]    // its ping says dsapi:true: files after the first are at /fileN (spec 5.4); nil: not known
	final     atomic.Pointer[url.URL] // of a static source: where its list was found after redirects

	mu          sync.Mutex // guards what follows
	verdict     verdict
	failures    int  // protocol failures in a row
	emptyBefore bool // the last list was empty, which was not believed
	logged      map[string]struct{}
	validators  map[string]string // by URL of a file: what If-Range may say
}

const (
	maxLogged     = 10000
	maxValidators = 1000
)

func (s *state) current() verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict
}

// settled gives the verdict, and whether it needs no (new) discovery.
func (s *state) settled() (verdict, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdict, s.verdict.kind != "" && s.failures < protocolFailures
}

// settle records the outcome of a discovery.
func (s *state) settle(v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdict, s.failures = v, 0
}

// judge takes the outcome of a list.
func (s *state) judge(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || errors.Is(err, manifest.ErrNotModified) {
		s.failures = 0
	} else if protocolFailure(err) {
		s.failures++
	}
}

// believe applies the rule for empty lists (spec 5.3) to one with so many images: the first
// empty one after a list with images is not believed, a second in a row is.
func (s *state) believe(images int, had bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	doubtful := images == 0 && had && !s.emptyBefore
	s.emptyBefore = doubtful
	return !doubtful
}

// saw notes what the images of an answer tell of the source.
func (s *state) saw(images []manifest.Manifest) {
	if slices.ContainsFunc(images, func(m manifest.Manifest) bool { return len(m.Channels) > 0 }) {
		s.channels.Store(true)
	}
}

// news tells whether text has not been logged yet.
func (s *state) news(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, old := s.logged[text]; old || len(s.logged) >= maxLogged {
		return false
	}
	if s.logged == nil {
		s.logged = make(map[string]struct{})
	}
	s.logged[text] = struct{}{}
	return true
}

func (s *state) validator(u *url.URL) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.validators[u.String()]
}

// setValidator remembers what If-Range may say for u. Bounded: when full, it begins anew, which
// costs nothing but the header (the bytes are checked anyway).
func (s *state) setValidator(u *url.URL, v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.validators == nil || len(s.validators) >= maxValidators {
		s.validators = make(map[string]string)
	}
	s.validators[u.String()] = v
}
