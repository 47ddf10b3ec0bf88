// Package catalog owns the merged list of images now being served and the loop that refreshes it.
//
// The list is one immutable [List] behind an atomic pointer: readers take it and never wait.
// Writers change the inputs (what each source last said, what was found by uuid, what was learned
// from files) under one lock and then build the next list from them.
//
// The package asks sources for manifests and never for files; it keeps nothing on disk itself but
// hands what must survive a restart to an [Index].
package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// errStopped is the error of what would need goroutines after Run has returned.
var errStopped = errors.New("the catalogue has stopped")

// Source is one image server. All methods may be called concurrently. An error that matches
// fs.ErrNotExist means: the source does not have the thing; fs.ErrPermission: the source refuses
// the thing; any other error: the source cannot tell. A Source that is also a remote fails at once
// while the source rests.
type Source interface {
	// Name is the configured name; it never changes.
	Name() string
	// List asks for the whole list. prev is the last good answer of this source: zero when there is
	// none, without Kind when prev may be of another server with the same name. The error matches
	// manifest.ErrNotModified when the answer is prev, and via.ErrItself when this mirror answers.
	// The Unlisted of the result is ignored. List returns soon after ctx ends.
	List(ctx context.Context, prev manifest.Listing) (manifest.Listing, error)
	// Get asks for one manifest by uuid, listed or not.
	Get(ctx context.Context, id uuid.UUID) (manifest.Manifest, error)
	// File opens file index of m, a manifest of this source, at offset. The caller closes the
	// stream.
	File(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error)
	// Part is File for length bytes. Stream.Part is 0 when all from offset on is coming.
	Part(ctx context.Context, m manifest.Manifest, index int, offset, length int64) (*verify.Stream, error)
	// Head gives the first bytes of file index of m, a manifest of this source: 2 KiB, or all there
	// are. size is -1 when the source does not tell the size.
	Head(ctx context.Context, m manifest.Manifest, index int) (head []byte, size int64, err error)
	// Icon opens the icon of m. The caller closes the stream.
	Icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error)
}

// Index keeps across restarts what sources said. The catalogue makes one call at a time.
type Index interface {
	// Listings gives the saved lists of all sources that ever had one.
	Listings() ([]manifest.Listing, error)
	// SaveListing replaces what is saved of l.Source.
	SaveListing(l manifest.Listing) error
	// SaveUnlisted adds one manifest that source gave by uuid to its saved listing.
	SaveUnlisted(source string, m manifest.Manifest) error
	// Facts gives what SaveFacts saved.
	Facts() (map[manifest.FileID]manifest.Facts, error)
	// SaveFacts saves, or replaces, what a downloaded file turned out to be.
	SaveFacts(id manifest.FileID, f manifest.Facts) error
}

// SourceOptions is one source with how the catalogue treats it.
type SourceOptions struct {
	Source       Source
	URL          string            // for display, and to tell whether a saved list is of the same server
	Refresh      time.Duration     // between lists; 0 = 10m
	Include      []manifest.Filter // an image is taken if it satisfies all of them; none = every image is taken
	Exclude      []manifest.Filter // but for those that satisfy any of these
	ServePrivate bool              // serve images that are not public
	// Channel is what Source asks for, "" when the server chooses. An image that Source gives by
	// uuid from another channel is served only if an image is built on it.
	Channel string
	// AsChannels are the channels of images without a channel of their own, when there are
	// Channels. Without AsChannels such images are shown to no client (spec A21).
	AsChannels []string
	// LookupRate bounds the questions for single manifests and beginnings of files that clients cause,
	// per second; 0 = no bound. Waiting questions take turns by the address of the client, see
	// ForClient.
	LookupRate int
	// Withdraws: an image that leaves the list of Source is gone at once, cached or not. The
	// operator of the mirror has withdrawn the image.
	Withdraws bool
}

// Options of New.
type Options struct {
	Sources          []SourceOptions // in order of priority; names are unique
	Index            Index           // nil: nothing survives a restart
	Offline          bool            // never ask a source: the saved lists are all there is
	Channels         []Channel       // none: channels are off; names are unique
	HideBrokenChains bool            // do not list images with an ancestor that no source has
	// Cached tells whether all files of an image are on disk. An image that has left its source
	// stays for as long as Cached holds; nil: the image goes at once. Cached is called often, and
	// must not wait for the network.
	Cached func(manifest.Manifest) bool
	// Stored gives the facts of a file on disk; false when the file is not there. Nil: no file is.
	Stored      func(m manifest.Manifest, index int) (manifest.Facts, bool)
	HideRetired bool                  // such images are not listed: they are reachable by uuid only
	OnChange    func(*List)           // called by Run, from its own goroutine; may be nil
	Logger      *slog.Logger          // nil: no log
	Registerer  prometheus.Registerer // nil: unregistered metrics
}

const (
	defaultRefresh = 10 * time.Minute
	listDeadline   = 120 * time.Second // one List, all its pages and tries (spec 5.5)
	firstRetry     = 10 * time.Second  // after a failed List; doubles with each further failure, up to the refresh interval
)

// Catalog is the merged list and its refresh. All methods may be called concurrently.
type Catalog struct {
	opts     Options // without nils
	sources  []*source
	byName   map[string]*source
	channels channels
	log      *slog.Logger
	metrics  *metrics

	current atomic.Pointer[List]
	hidden  atomic.Pointer[hiddenTable]
	changed chan struct{} // holds one token after a swap that OnChange has not seen
	ready   chan struct{} // closed when unsettled has become 0
	filled  chan struct{} // closed when a list with images has been swapped in for the first time
	walking chan struct{} // holds one token while the origin chains are being completed

	// building serialises those who build the next list and swap it in. Taken before state.
	building     sync.Mutex
	saidConflict map[manifest.Conflict]bool // conflicts that have been logged; by builders only
	saidBroken   map[uuid.UUID]string       // broken chains that have been logged; by builders only

	// saving serialises calls of index; nothing but other savers waits for it. Taken before state.
	saving sync.Mutex

	// state guards the inputs of the next list. Never held while a list is built nor over I/O.
	state     sync.Mutex
	facts     map[manifest.FileID]manifest.Facts // replaced, never written to
	added     []found                            // unlisted manifests that the current list lacks
	stale     bool                               // the current list must be built anew
	unsettled int                                // sources that have neither answered, nor failed, nor were loaded
	stopped   bool                               // no more goroutines of lookups

	lookups flights // searches by uuid under way
	looks   looks   // at files

	garbage garbage

	// sharing is held during shareTexts. A second call waits, and then finds the texts shared.
	sharing sync.Mutex

	browsed atomic.Int64 // see List.browsed
	demand  demand

	life   context.Context // of lookups: they outlive who asks, not the catalogue
	cancel context.CancelFunc
	tasks  sync.WaitGroup // lookups and what follows them; added to under state while not stopped
}

// New loads the saved lists and serves them at once. New asks no source and starts nothing. An
// index that cannot be read is logged and taken for empty. Errors are faults of o only.
func New(o Options) (*Catalog, error) {
	if o.Cached == nil {
		o.Cached = func(manifest.Manifest) bool { return false }
	}
	if o.Stored == nil {
		o.Stored = func(manifest.Manifest, int) (manifest.Facts, bool) { return manifest.Facts{}, false }
	}
	if o.OnChange == nil {
		o.OnChange = func(*List) {}
	}
	if o.Index == nil {
		o.Index = noIndex{}
	}
	c := &Catalog{
		opts:     o,
		byName:   make(map[string]*source),
		channels: slices.Clone(o.Channels),
		log:      cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		changed:  make(chan struct{}, 1),
		ready:    make(chan struct{}),
		filled:   make(chan struct{}),
		walking:  make(chan struct{}, 1),
		stale:    true,
		lookups:  newFlights(),
		looks:    looks{running: make(map[manifest.FileID]*looking), vain: make(map[manifest.FileID]vain)},
	}
	var names []string
	for i, so := range o.Sources {
		if so.Source == nil {
			return nil, fmt.Errorf("catalog: source %d is nil", i)
		}
		s := &source{
			SourceOptions: so,
			name:          so.Source.Name(),
			needsChannel:  c.channels.on(),
			turn:          make(chan struct{}, 1),
			unlisted:      make(map[uuid.UUID]given),
			retired:       make(map[uuid.UUID]given),
			details:       make(map[uuid.UUID]given),
			absent:        make(map[uuid.UUID]time.Time),
			health:        health{state: stateUnknown},
			opening:       &openings{images: make(map[uuid.UUID]int)},
			remote:        here{so.Source},
		}
		if r, ok := so.Source.(remote); ok {
			s.remote = r
		}
		s.Refresh = cmp.Or(s.Refresh, defaultRefresh)
		if s.name == "" || c.byName[s.name] != nil {
			return nil, fmt.Errorf("catalog: name %q of source %d is empty or taken", s.name, i)
		}
		c.sources = append(c.sources, s)
		c.byName[s.name] = s
		names = append(names, s.name)
	}
	c.metrics = newMetrics(o.Registerer, names)
	for _, s := range c.sources {
		interval := c.metrics.interval.WithLabelValues(s.name)
		if !o.Offline {
			interval.Set(s.Refresh.Seconds())
		}
		s.door = newDoor(s.name, s.LookupRate, c.metrics.door(s.name))
	}
	c.life, c.cancel = context.WithCancel(context.Background())
	c.load()
	if c.unsettled == 0 || c.opts.Offline {
		c.unsettled = 0
		close(c.ready)
	}
	c.sweepLoaded()
	c.rebuild()
	if o.Registerer != nil {
		o.Registerer.MustRegister(hiddenCounts{c}, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_documents",
			Help: "Replies with one manifest that the list now being served has prepared.",
		}, func() float64 { return float64(c.Current().documents.kept()) }))
	}
	return c, nil
}

// load takes over what the index has of the configured sources.
func (c *Catalog) load() {
	var err error
	if c.facts, err = c.opts.Index.Facts(); err != nil {
		c.log.Error("saved facts cannot be read", "error", err)
	}
	listings, err := c.opts.Index.Listings()
	if err != nil {
		c.log.Error("saved lists cannot be read", "error", err)
	}
	for _, l := range listings {
		s := c.byName[l.Source]
		if s == nil {
			c.log.Debug("saved list ignored: no such source", "source", l.Source)
			continue
		}
		s.list = l
		s.list.Images = c.reparsed(s, l.Images)
		s.list.Unlisted, s.list.Retired, s.list.Details = nil, nil, nil
		s.saved = l.Fetched
		if s.Withdraws { // whatever is not on its list is gone
			l.Retired = nil
		}
		s.loadDetails(c.reparsed(s, l.Details))
		apart := missing(slices.Concat(l.Unlisted, l.Retired), l.Images)
		keep := func(to map[uuid.UUID]given, saved []manifest.Manifest) {
			for _, m := range c.reparsed(s, saved) {
				if _, ok := apart[m.UUID]; ok {
					to[m.UUID] = given{manifest: m, checked: l.Fetched}
				}
			}
		}
		keep(s.unlisted, l.Unlisted)
		keep(s.retired, l.Retired)
		if !l.Fetched.IsZero() {
			s.settled, s.answered = true, true
			s.health.lastSuccess = l.Fetched
			c.metrics.lastSuccess.WithLabelValues(s.name).Set(unixSeconds(l.Fetched))
		}
	}
	for _, s := range c.sources {
		if !s.settled {
			c.unsettled++
		}
	}
}

// Ready is closed once every source has answered, has failed, or had a saved list. Offline, Ready
// is closed from the start.
func (c *Catalog) Ready() <-chan struct{} { return c.ready }

// Current is the list now being served: immutable, never nil.
func (c *Catalog) Current() *List { return c.current.Load() }

// spawn runs f in a goroutine that Run waits for; false when the catalogue has stopped.
func (c *Catalog) spawn(f func(ctx context.Context)) bool {
	c.state.Lock()
	defer c.state.Unlock()
	if c.stopped {
		return false
	}
	c.tasks.Go(func() { f(c.life) })
	return true
}

// stop ends lookups and waits for them.
func (c *Catalog) stop() {
	c.state.Lock()
	c.stopped = true
	c.state.Unlock()
	c.cancel()
	c.tasks.Wait()
}
