package catalog

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// source is one configured source and what it last said.
type source struct {
	SourceOptions
	name         string
	remote       remote
	opening      *openings
	needsChannel bool          // there are channels, and who is in none is left out
	turn         chan struct{} // holds one token while the source is being refreshed

	// What follows is guarded by Catalog.state. Slices of manifests are replaced, never written to.
	list     manifest.Listing // its last good answer, unfiltered; Unlisted is kept apart
	fresh    bool             // list was given, or confirmed, in this process
	saved    time.Time        // Fetched of the list as saved
	unlisted map[uuid.UUID]unlisted
	details  map[uuid.UUID]detail    // of images of which its list does not tell enough
	unsaved  bool                    // details that are not in the index yet
	retired  map[uuid.UUID]unlisted  // were on its list, and are cached; checked: when it last said that it has them no more
	absent   map[uuid.UUID]time.Time // origins that it said it does not have, and when it last said so
	settled  bool
	answered bool // list is its answer, or was loaded, and the list being served holds it
	health   health
}

// unlisted is a manifest that a source's list does not have.
type unlisted struct {
	manifest manifest.Manifest
	checked  time.Time // when the source was last asked for it
}

// found is a manifest together with its giver.
type found struct {
	source   *source
	manifest manifest.Manifest
}

// health is what refreshing a source has come to.
type health struct {
	state       string // up, down, unknown
	failures    int    // in a row
	lastTry     time.Time
	lastSuccess time.Time
	lastError   string
}

const (
	stateUp      = "up"
	stateDown    = "down"
	stateUnknown = "unknown"
)

// reparse parses those of images again whose form depends on how their source is configured now: the index
// keeps the source's bytes, not that.
func (s *source) reparse(images []manifest.Manifest) []manifest.Manifest {
	out, copied := images, false
	for i := range images {
		if images[i].Public && len(images[i].ACL) == 0 {
			continue
		}
		m, err := manifest.Parse(images[i].Raw(), s.parseOptions())
		if err != nil {
			continue // it was good enough once
		}
		if !copied {
			out, copied = append([]manifest.Manifest(nil), images...), true
		}
		out[i] = m
	}
	return out
}

// from is what a list of s is from: the saved one may be of another server, or channel, that had its name.
func (s *source) from() string {
	if s.Channel == "" {
		return s.URL
	}
	return s.URL + " " + s.Channel
}

func (s *source) parseOptions() manifest.ParseOptions {
	return manifest.ParseOptions{ServePrivate: s.ServePrivate}
}

// Status is one source as seen from here.
type Status struct {
	Name, URL   string
	Kind        string         // imgapi, dsapi, static, directory as found; "" while it has never answered
	State       string         // up, down, or unknown while it has not been asked
	Images      int            // in its last good list, before filters
	Hidden      map[string]int // by reason, see Hidden: what the last good list has and clients are not shown
	LastTry     time.Time      // of a list; zero: never in this process
	LastSuccess time.Time      // zero: never
	LastError   string         // of the last try; "" when it succeeded, unless the source could not read all it has
	AskedFrom   time.Time      // see remote: zero while the source is asked as usual
}

// Status tells of every source, in order of priority.
func (c *Catalog) Status() []Status {
	list := c.Current()
	c.state.Lock()
	defer c.state.Unlock()
	out := make([]Status, len(c.sources))
	for i, s := range c.sources {
		out[i] = Status{
			Name: s.name, URL: s.URL, Kind: s.list.Kind, State: s.health.state, Images: len(s.list.Images),
			LastTry: s.health.lastTry, LastSuccess: s.health.lastSuccess, LastError: s.health.lastError,
		}
		out[i].AskedFrom = s.remote.AskedFrom()
		out[i].Hidden = list.hiddenOf(s)
	}
	return out
}

// filter splits images into those that the source's filters take and those that they leave out. Images that
// must not be served are in neither. The first result is images itself when nothing is left out.
func (s *source) filter(images []manifest.Manifest) (taken []manifest.Manifest, left map[uuid.UUID]manifest.Manifest) {
	taken = images
	split := false
	for i := range images {
		m := images[i]
		servable := s.mayServe(m)
		ok := servable && s.takes(m)
		if !ok && !split {
			split = true
			taken = slices.Clone(images[:i])
		}
		switch {
		case ok && split:
			taken = append(taken, m)
		case !ok && servable:
			if left == nil {
				left = make(map[uuid.UUID]manifest.Manifest)
			}
			left[m.UUID] = m
		}
	}
	return taken, left
}

// servable is images without those that must not be served; it works in place.
func (s *source) servable(images []manifest.Manifest) []manifest.Manifest {
	return slices.DeleteFunc(images, func(m manifest.Manifest) bool { return !s.mayServe(m) })
}

// mayServe tells whether clients may have m at all.
func (s *source) mayServe(m manifest.Manifest) bool { return m.Public || s.ServePrivate }

// takes tells whether the filters of the source select m, and, when there are channels, m is in one of them.
func (s *source) takes(m manifest.Manifest) bool {
	if s.needsChannel && len(m.Channels) == 0 {
		return false
	}
	for _, f := range s.Include {
		if !f.Match(m) {
			return false
		}
	}
	for _, f := range s.Exclude {
		if f.Match(m) {
			return false
		}
	}
	return true
}
