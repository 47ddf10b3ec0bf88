package catalog

import (
	"crypto/sha1"
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
	door         *door
	needsChannel bool          // there are channels, and who is in none is left out
	turn         chan struct{} // holds one token while the source is being refreshed

	// What follows is guarded by Catalog.state. Slices of manifests are replaced, never written to.
	list     manifest.Listing // its last good answer, unfiltered; Unlisted is kept apart
	fresh    bool             // list was given, or confirmed, in this process
	saved    time.Time        // Fetched of the list as saved
	unlisted map[uuid.UUID]given
	retired  map[uuid.UUID]given     // were on its list, and are cached; checked: when it last said that it has them no more
	details  map[uuid.UUID]given     // in the place of entries of its list that do not tell enough, while these are the same
	unsaved  bool                    // details that are not in the index yet
	absent   map[uuid.UUID]time.Time // origins that it said it does not have, and when it last said so
	settled  bool
	answered bool // list is its answer, or was loaded, and the list being served holds it
	health   health
}

// given is a manifest that a source's list does not have.
type given struct {
	manifest manifest.Manifest
	checked  time.Time       // when the source was last asked for it
	of       [sha1.Size]byte // the entry of the list that a detail replaces
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

// reparsed gives saved images in the form that s's configuration gives them now: the index keeps
// the source's bytes only.
func (c *Catalog) reparsed(s *source, images []manifest.Manifest) []manifest.Manifest {
	return c.channels.placeAll(replaced(images, func(m *manifest.Manifest) (manifest.Manifest, bool) {
		if m.Public && len(m.ACL) == 0 {
			return manifest.Manifest{}, false
		}
		again, err := manifest.Parse(m.Raw(), manifest.ParseOptions{ServePrivate: s.ServePrivate})
		return again, err == nil // else it was good enough once
	}), s.AsChannels)
}

// replaced gives images with by's results in the place of some; images itself without results.
func replaced(images []manifest.Manifest, by func(*manifest.Manifest) (manifest.Manifest, bool)) []manifest.Manifest {
	out, copied := images, false
	for i := range images {
		m, ok := by(&images[i])
		if ok && !copied {
			out, copied = slices.Clone(images), true
		}
		if ok {
			out[i] = m
		}
	}
	return out
}

// from is what a list of s is from. A saved list may be of another server, or channel.
func (s *source) from() string {
	if s.Channel == "" {
		return s.URL
	}
	return s.URL + " " + s.Channel
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
	Resting     int            // images that it fails to give again and again, each asked for rarely
	Reason      string         // why these, or all questions, rest; "" when none do

	CertificateEnd time.Time // see remote; zero: the source has shown no certificate
}

// Status tells of every source, in order of priority.
func (c *Catalog) Status() []Status {
	list := c.Current()
	c.state.Lock()
	defer c.state.Unlock()
	out := make([]Status, len(c.sources))
	for i, s := range c.sources {
		out[i] = Status{
			Name: s.name, URL: s.URL, Kind: s.list.Kind, State: s.health.state, Images: len(s.list.Images), Hidden: list.hiddenOf(s),
			LastTry: s.health.lastTry, LastSuccess: s.health.lastSuccess, LastError: s.health.lastError, AskedFrom: s.remote.AskedFrom(),
		}
		out[i].Resting, out[i].Reason = s.remote.Resting()
		out[i].CertificateEnd = s.remote.CertificateEnd()
	}
	return out
}

// filter splits images into those that the source's filters take and those left out. Images that
// must not be served are in neither. The first result is images itself when nothing is left out.
func (s *source) filter(images []manifest.Manifest) (taken []manifest.Manifest, left map[uuid.UUID]manifest.Manifest) {
	left = make(map[uuid.UUID]manifest.Manifest)
	taken = only(images, func(m manifest.Manifest) bool {
		if !s.mayServe(m) {
			return false
		}
		takes := s.takes(m)
		if !takes {
			left[m.UUID] = m
		}
		return takes
	})
	return taken, left
}

// servable is images without those that must not be served; it works in place.
func (s *source) servable(images []manifest.Manifest) []manifest.Manifest {
	return slices.DeleteFunc(images, func(m manifest.Manifest) bool { return !s.mayServe(m) })
}

// mayServe tells whether clients may have m at all.
func (s *source) mayServe(m manifest.Manifest) bool { return m.Public || s.ServePrivate }

// takes tells whether the filters of the source select m, which is in a channel if there are any.
func (s *source) takes(m manifest.Manifest) bool {
	return (!s.needsChannel || len(m.Channels) > 0) &&
		!slices.ContainsFunc(s.Include, func(f manifest.Filter) bool { return !f.Match(m) }) &&
		!slices.ContainsFunc(s.Exclude, func(f manifest.Filter) bool { return f.Match(m) })
}
