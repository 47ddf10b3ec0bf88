package cache

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"imgmirror/verify"
)

// liar is a source in respect of one fill key.
type liar struct{ source, key string }

// liars are the sources that sent wrong bytes, with their last lies. Store.mu guards them.
type liars map[liar]lie

// lie is the last one of a liar.
type lie struct {
	when  time.Time
	said  [sha256.Size]byte // of Source.Said
	dear  bool              // it cost a download
	cause error
}

const (
	// liarMemory is how long a source that sent wrong bytes is asked last for them.
	liarMemory = time.Hour
	// lieMemory is how long a source that has let a download come out wrong is not asked for these bytes at all: each
	// client would cost one more, and be cut short like the one before.
	lieMemory = time.Minute
	// maxLiars are remembered at the same time.
	maxLiars = 10_000
)

// WrongBytesError says that each source there is has sent wrong bytes within the last minute, and
// has not been asked again. It matches verify.ErrMismatch.
type WrongBytesError struct {
	Sources []string
	said    []string
}

func (e *WrongBytesError) Error() string {
	return "not asked again yet: wrong bytes from " + strings.Join(e.Sources, ", ") + ": " + strings.Join(e.said, "; ")
}

func (e *WrongBytesError) Unwrap() error { return verify.ErrMismatch }

// trusted orders sources: those that lately sent wrong bytes for key come last.
func (all liars) trusted(key string, sources []Source) []Source {
	lied := func(src Source) int {
		if told, lied := all[liar{src.Name, key}]; lied && time.Since(told.when) < liarMemory {
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(sources), func(a, b Source) int { return lied(a) - lied(b) })
}

// justLied gives the error of the wrong bytes that src sent for key within lieMemory; nil without
// any, or after a change of its manifest. A source with Once sends a new body each time.
func (all liars) justLied(key string, src Source) error {
	told, lied := all[liar{src.Name, key}]
	if !lied || src.Once || !told.dear || time.Since(told.when) >= lieMemory || told.said != sha256.Sum256(src.Said) {
		return nil
	}
	return told.cause
}

// allLied fails with a *WrongBytesError if there is no source but such as have just lied.
func (all liars) allLied(key string, sources []Source) error {
	e := new(WrongBytesError)
	for _, src := range sources {
		cause := all.justLied(key, src)
		if cause == nil {
			return nil
		}
		e.Sources, e.said = append(e.Sources, src.Name), append(e.said, cause.Error())
	}
	if len(sources) == 0 {
		return nil
	}
	return fmt.Errorf("fill: %w", e)
}

// distrust remembers that c sent wrong bytes for key; dear: which cost a download.
func (all liars) distrust(c *candidate, key string, dear bool) {
	maps.DeleteFunc(all, func(_ liar, told lie) bool { return time.Since(told.when) >= liarMemory || len(all) >= maxLiars })
	all[liar{c.Name, key}] = lie{when: time.Now(), said: sha256.Sum256(c.Said), dear: dear, cause: c.out}
}

// suspects are the sources of files that came out wrong from several, with the time of the last one. Store.mu
// guards them.
type suspects map[string]time.Time

// apart gives those of a team that may bring ranges of one file beside its first member: no suspect brings
// some of a file: the next file would come out wrong, too, with no source to blame.
func (all suspects) apart(team []*candidate) []*candidate {
	suspect := func(c *candidate) bool {
		when, is := all[c.Name]
		return is && time.Since(when) < liarMemory
	}
	if len(team) > 0 && suspect(team[0]) {
		return team[:1]
	}
	return slices.DeleteFunc(team, suspect)
}
