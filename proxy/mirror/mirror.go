// Package mirror is the engine room: what can be asked of one image mirror. It knows where an image
// is known, where its bytes are, whether the image is kept, and what is wanted without a request.
// The cache, the catalogue, the mirror's own images and the importer into zpools meet here and
// nowhere else. The fronts (proxy for clients, admin for operators) turn requests into its calls.
//
// The package speaks no HTTP and reads no configuration. Errors are those of the packages below,
// with what was tried.
package mirror

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/history"
	"imgmirror/proxy/nodes"
	"imgmirror/proxy/own"
	"imgmirror/proxy/via"
	"imgmirror/zfsimport"
)

// readyLimit bounds the wait of a start for the first answers of the sources. A source that hangs
// must not keep a load balancer away from the cached images.
const readyLimit = 2500 * time.Millisecond

// Options of New. Required: Cache.Dir.
type Options struct {
	// Cache says where files are kept, and how. Its funcs, Sources, limits, slots, Logger and
	// Registerer are set by New.
	Cache cache.Options
	// ZFS says where pools and the records of imgadm are. Its funcs, Logger and Registerer are
	// set by New.
	ZFS zfsimport.Options
	// Pools takes the place of the importer that ZFS describes; nil = that one.
	Pools   Pools
	Sources Sources
	Rules   Rules
	// PublicURL is recorded as the source of installed images.
	PublicURL string
	// Version of the binary, for the user agent of requests to sources.
	Version string
	// Signatures decides which bundles are imported.
	Signatures bundle.Policy
	// ImportMemory bounds the indexes and manifests of all imports that are open, in bytes of their
	// texts, which take about two and a half times that; 0 = 128 MiB.
	ImportMemory int64

	Logger   *slog.Logger         // nil = discard
	Registry *prometheus.Registry // nil = a registry of its own
}

// Rules are limits and standing wishes. Adjust changes them while the mirror runs.
type Rules struct {
	MaxSize, MinFree int64 // bytes; see cache.Options
	FillSlots        int   // see cache.Options
	// Pins are filters; the images that match one of them are kept from eviction.
	Pins []manifest.Filter
	// Prefetch is what is brought to disk without a request. None: prefetch is off.
	Prefetch []Wanted
	// Install is what is kept in the zpool, when Installing.
	Install    []Wanted
	Installing bool
	// Nodes says what the journal of nodes keeps.
	Nodes nodes.Limits
}

// Mirror is one image mirror. Its methods may be called concurrently.
type Mirror struct {
	Files     // of the images in the catalogue
	Installer // into the pools of this machine

	now  atomic.Pointer[generation] // the catalogue
	next chan succession            // to runCatalog

	id         string // among mirrors
	version    string
	log        *slog.Logger
	registry   *prometheus.Registry
	store      *cache.Store
	published  *own.Source // the images that were published here
	imported   *own.Source // those that bundles brought
	trust      bundle.Policy
	nodes      *nodes.Journal
	rules      atomic.Pointer[Rules]
	publishing publishing
	history    *history.History
	counting   counting
	watch      *watch           // of the history's goroutine
	imports    imports          // bundles that are coming
	drafts     drafts           // images that clients bring
	missing    prometheus.Gauge // see newMissing
	offline    atomic.Bool
	began      time.Time

	resumeDue   chan struct{} // a token in it: partial downloads may have become possible
	prefetchDue chan struct{} // likewise: there may be something to prefetch
	installDue  chan struct{} // likewise: there may be something to install

	late chan struct{} // closed readyLimit after Run began
}

// New opens the data folder and makes the catalogue of what is saved there; nothing runs yet, and no
// source is asked. The caller must call Run, or Close. ctx bounds the opening only.
func New(ctx context.Context, o Options) (_ *Mirror, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	m := &Mirror{
		id:         via.NewID(),
		version:    o.Version,
		log:        o.Logger,
		registry:   o.Registry,
		trust:      o.Signatures,
		publishing: publishing{all: make(map[uuid.UUID]change)},
		late:       make(chan struct{}),
		next:       make(chan succession),
		began:      time.Now(),

		resumeDue:   make(chan struct{}, 1),
		prefetchDue: make(chan struct{}, 1),
		installDue:  make(chan struct{}, 1),
	}
	m.imports.limit = cmp.Or(o.ImportMemory, importMemory)
	m.rules.Store(&o.Rules)
	m.missing = newMissing(m.registry)
	m.drafts.init(m.registry)
	defer func() {
		if err != nil && m.store != nil {
			err = errors.Join(err, m.store.Close())
		}
	}()
	c := o.Cache
	c.MaxSize, c.MinFree, c.FillSlots = o.Rules.MaxSize, o.Rules.MinFree, o.Rules.FillSlots
	c.Sources = append([]string{own.Published, own.Imported}, o.Sources.names()...)
	c.OnPublish, c.OnRemove, c.OnEvent, c.Keep, c.Heal = m.learn, m.fileRemoved, m.fileEvent, m.keeps, m.heal
	c.Logger, c.Registerer = m.log.With("component", "cache"), m.registry
	if m.store, err = cache.Open(ctx, c); err != nil {
		return nil, err
	}
	m.Files = Files{m.store}
	m.openHistory()
	m.nodes = m.newNodes(o.Rules)
	if err := m.openOwn(o.Cache.Dir); err != nil {
		return nil, err
	}
	g, err := m.newGeneration(o.Sources)
	if err != nil {
		return nil, err
	}
	m.now.Store(g)
	m.listOwn(ctx)
	m.settleUploads(ctx)
	m.watch = newWatch(m)
	m.offline.Store(o.Sources.Offline)
	m.registry.MustRegister(generationMetrics{m})
	if err := m.newImporter(o); err != nil {
		return nil, err
	}
	return m, nil
}

// Run keeps the catalogue fresh, keeps the limits of the cache, and brings and installs by itself
// what the rules ask for, until ctx ends. It returns after all its work has ended and the data folder
// is closed, with the first failure of any of them. Call it once; serving ends before.
func (m *Mirror) Run(ctx context.Context) error {
	late := time.AfterFunc(readyLimit, func() { close(m.late) })
	defer late.Stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.store.Run(ctx) })
	g.Go(func() error { return m.runCatalog(ctx) })
	g.Go(func() error { m.resume(ctx); return nil })
	g.Go(func() error { m.prefetch(ctx); return nil })
	g.Go(func() error { m.installWishes(ctx); return nil })
	g.Go(func() error { m.watchImports(ctx); return nil })
	g.Go(func() error { return m.nodes.Run(ctx) })
	g.Go(func() error { m.history.Run(ctx); return nil })
	err := g.Wait()
	m.endDrafts(context.WithoutCancel(ctx), 0)
	m.history.Save()
	return errors.Join(err, m.store.Close())
}

// RunQuietly is Run for a mirror that does what it is asked and nothing else: no refresh, no
// prefetch, no install, no download that an earlier process left.
func (m *Mirror) RunQuietly(ctx context.Context) error {
	err := m.store.Run(ctx)
	// ctx has ended: the catalogue asks no source, and waits for the searches under way.
	err = errors.Join(err, m.runCatalog(ctx))
	m.history.Save()
	return errors.Join(err, m.store.Close())
}

// Close frees what New opened, for a mirror that Run was not called for.
func (m *Mirror) Close() error { return m.store.Close() }

// Adjust puts other rules in force.
func (m *Mirror) Adjust(r Rules) {
	m.store.SetLimits(r.MaxSize, r.MinFree)
	m.store.SetFillSlots(r.FillSlots)
	m.nodes.Adjust(r.Nodes)
	m.rules.Store(&r)
	m.wakeLoops()
}

// ID is the mirror's among mirrors: see via.
func (m *Mirror) ID() string { return m.id }

// Version is that of the binary, as Options tell.
func (m *Mirror) Version() string { return m.version }

// Began is when the mirror was made.
func (m *Mirror) Began() time.Time { return m.began }

// Offline tells that no source is asked.
func (m *Mirror) Offline() bool { return m.offline.Load() }

// Registry has the metrics of the mirror and of what it is made of.
func (m *Mirror) Registry() *prometheus.Registry { return m.registry }

// Ready tells whether clients may be served: the data folder can be used, and each source has
// answered or failed once, or has a list on disk, or has been waited for long enough.
func (m *Mirror) Ready() bool {
	if m.store.Health() != nil {
		return false
	}
	select {
	case <-m.Started():
		return true
	case <-m.late:
		return true
	default:
		return false
	}
}

// Started is closed once each source has answered or failed, or has a list on disk.
func (m *Mirror) Started() <-chan struct{} { return m.now.Load().Ready() }

// Look tells what is wrong with the data folder now: down is why images cannot be served or
// stored, hampered what else cannot be done.
func (m *Mirror) Look() (down, hampered error) { return m.store.Look() }

// awaitStart waits until the catalogue has what a start waits for; false: ctx has ended.
func (m *Mirror) awaitStart(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-m.Started():
	case <-m.late:
	}
	return true
}

// wakeLoops has the loops look again at the catalogue and the rules.
func (m *Mirror) wakeLoops() {
	for _, due := range []chan struct{}{m.resumeDue, m.prefetchDue, m.installDue} {
		select {
		case due <- struct{}{}:
		default:
		}
	}
}
