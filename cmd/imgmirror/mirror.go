package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"imgmirror/cache"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/imported"
	"imgmirror/proxy/published"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/via"
	"imgmirror/verify"
	"imgmirror/zfsimport"
)

// readyLimit is how long a start may wait for the sources' first answers before
// the mirror calls itself ready with what it has: a source that hangs must not
// keep a load balancer away from the cached images.
const readyLimit = 2500 * time.Millisecond

// mirror is one running mirror: the store, the catalogue over its sources, the
// two listeners. newMirror builds and listens, run serves.
type mirror struct {
	id          string // among mirrors
	log         *slog.Logger
	registry    *prometheus.Registry
	store       *cache.Store
	catalog     *liveCatalog
	own         *published.Source // the images that the mirror itself is the source of
	imported    *imported.Source  // those that bundles brought
	importer    *zfsimport.Importer
	server      *proxy.Server
	admin       *admin.Server
	adminLn     net.Listener                    // nil: admin.listen is empty
	adminSocket net.Listener                    // nil: a verb's own mirror, or there can be none
	cfg         atomic.Pointer[config.Config]   // in force; a reload makes another
	cert        atomic.Pointer[tls.Certificate] // of the client listener; nil: plain HTTP
	level       *slog.LevelVar                  // of log

	resume      chan struct{}                   // a token in it: partial downloads may have become possible
	prefetchDue chan struct{}                   // likewise: there may be something to prefetch
	installDue  chan struct{}                   // likewise: there may be something to install
	installing  atomic.Pointer[[]catalog.Entry] // what is to be installed by itself, in that order

	late chan struct{} // closed readyLimit after run began
}

// newMirror builds a mirror from a checked configuration and opens its
// listeners; nothing runs yet. The caller must call run, which closes it.
func newMirror(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *mirror, err error) {
	m := &mirror{
		id:       via.NewID(),
		log:      log,
		registry: prometheus.NewRegistry(),
		level:    new(slog.LevelVar),
		late:     make(chan struct{}),

		resume:      make(chan struct{}, 1),
		prefetchDue: make(chan struct{}, 1),
		installDue:  make(chan struct{}, 1),
	}
	m.cfg.Store(cfg)
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(),
	)
	defer func() {
		if err != nil {
			m.close()
		}
	}()

	names := []string{published.Name, imported.Name}
	for _, s := range cfg.Sources {
		names = append(names, s.Name)
	}
	m.store, err = cache.Open(ctx, cache.Options{
		Dir:             cfg.DataDir,
		MaxSize:         int64(cfg.Cache.MaxSize),
		MinFree:         int64(cfg.Cache.MinFree),
		FillSlots:       cfg.Cache.FillSlots,
		StallTimeout:    cfg.Fill.StallTimeout,
		Deadline:        cfg.Fill.Deadline,
		AllowUnverified: cfg.Verify.AllowUnverified,
		Sources:         names,
		NoSweep:         cfg.Listen == "", // a verb's own mirror removes what it is told to
		ScrubEvery:      cfg.Verify.ScrubEvery,
		ScrubRate:       int64(cfg.Verify.ScrubRate),
		OnPublish:       m.learn,
		OnRemove:        m.forgetImported,
		Keep:            m.keeps,
		Heal:            m.heal,
		Logger:          log.With("component", "cache"),
		Registerer:      m.registry,
	})
	if err != nil {
		return nil, err
	}
	if m.own, err = m.newPublished(); err != nil {
		return nil, err
	}
	if m.imported, err = m.newImported(cfg.DataDir); err != nil {
		return nil, err
	}
	g, err := m.newGeneration(cfg)
	if err != nil {
		return nil, err
	}
	m.catalog = newLiveCatalog(g)
	m.registry.MustRegister(m.catalog)
	tlsConfig, err := m.tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	m.server, err = proxy.New(proxy.Options{
		Catalog:        m.catalog,
		Files:          m.store,
		PublicURL:      string(cfg.PublicURL),
		ID:             m.id,
		Version:        version,
		StreamOnMiss:   cfg.Cache.StreamOnMiss,
		OnUnreachable:  cfg.Cache.OnUnreachable,
		ClientStall:    cfg.Clients.StallTimeout,
		DrainTimeout:   cfg.Clients.DrainTimeout,
		MaxConnections: cfg.Clients.MaxConnections,
		MaxPerAddress:  cfg.Clients.MaxPerAddress,
		TLSConfig:      tlsConfig,
		Ready:          m.ready,
		Logger:         log,
		Registerer:     m.registry,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Listen != "" { // else it is a verb's own mirror
		if err := m.server.Listen(cfg.Listen); err != nil {
			return nil, err
		}
	}
	if m.importer, err = m.newImporter(cfg); err != nil {
		return nil, err
	}
	if err := m.newAdmin(cfg); err != nil {
		return nil, err
	}
	return m, nil
}

// newGeneration makes a catalogue over the sources of cfg, with metrics of its
// own, from what the store has saved of them.
func (m *mirror) newGeneration(cfg *config.Config) (*generation, error) {
	g := &generation{registry: prometheus.NewRegistry()}
	sources, err := m.sources(cfg, g.registry)
	if err != nil {
		return nil, err
	}
	g.Catalog, err = catalog.New(catalog.Options{
		Sources:          sources,
		Index:            m.store.Lists(),
		Offline:          cfg.Offline,
		Channels:         channels(cfg),
		HideBrokenChains: cfg.Catalog.HideBrokenChains,
		Cached:           m.cached,
		Stored:           m.stored,
		HideRetired:      cfg.Catalog.Retired == "hide",
		NotModified:      upstream.ErrNotModified,
		Itself:           upstream.ErrItself,
		OnChange:         func(*catalog.List) { m.wakeLoops() },
		Logger:           m.log.With("component", "catalog"),
		Registerer:       g.registry,
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// run serves until ctx ends, then stops in order: readiness, listener, replies
// (the drain deadline), loops, fills, index. It returns the first failure of
// any of them.
func (m *mirror) run(ctx context.Context) error {
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	g, loops := errgroup.WithContext(loops)
	g.Go(func() error { return m.store.Run(loops) })
	g.Go(func() error { return m.catalog.Run(loops) })
	g.Go(func() error { return m.resumePartials(loops) })
	g.Go(func() error { return m.prefetch(loops) })
	g.Go(func() error { return m.installWanted(loops) })
	g.Go(func() error { return m.admin.Run(loops, m.adminLn, m.adminSocket) })
	g.Go(func() error { m.keepSocket(loops); return nil })
	late := time.AfterFunc(readyLimit, func() { close(m.late) })
	defer late.Stop()

	// A loop that fails takes the server down with it.
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	defer context.AfterFunc(loops, stopServing)()
	err := m.server.Run(serving)
	stopLoops()
	return errors.Join(err, g.Wait(), m.store.Close())
}

// close frees what newMirror opened before it failed.
func (m *mirror) close() {
	if m.server != nil {
		m.server.Close()
	}
	if m.adminLn != nil {
		m.adminLn.Close()
	}
	if m.adminSocket != nil {
		m.adminSocket.Close()
	}
	if m.store != nil {
		if err := m.store.Close(); err != nil {
			m.log.Error("closing the store", "error", err)
		}
	}
}

// ready tells whether the catalogue may be served: every source has answered
// or failed once, or its last list was on disk, or it has been waited for long
// enough; and whether the data folder can be used.
func (m *mirror) ready() bool {
	if m.store.Health() != nil {
		return false
	}
	select {
	case <-m.catalog.Ready():
		return true
	case <-m.late:
		return true
	default:
		return false
	}
}

// cached tells whether all files of an image are on disk.
func (m *mirror) cached(image manifest.Manifest) bool {
	for i := range image.Files {
		blob, _ := proxy.BlobOf(catalog.Entry{Manifest: image}, i)
		if _, ok := m.store.Peek(blob); !ok {
			return false
		}
	}
	return len(image.Files) > 0
}

// stored tells what is known of a file from its bytes on disk, if these have told what it looks like.
func (m *mirror) stored(image manifest.Manifest, index int) (manifest.Facts, bool) {
	blob, _ := proxy.BlobOf(catalog.Entry{Manifest: image}, index)
	info, ok := m.store.Peek(blob)
	if !ok || info.Digests.Format == "" {
		return manifest.Facts{}, false
	}
	return factsOf(image, index, info.Digests), true
}

func factsOf(image manifest.Manifest, index int, d verify.Digests) manifest.Facts {
	return manifest.Facts{SHA1: d.SHA1, Size: d.Size, Compression: image.CompressionBy(index, d.Format)}
}

// learn hands to the catalogue what a download has told of a file.
func (m *mirror) learn(b cache.Blob, info cache.Info) {
	if b.Manifest.UUID != b.Image {
		return // an icon
	}
	m.catalog.Learn(manifest.FileID{Image: b.Image, Index: b.Index}, factsOf(b.Manifest, b.Index, info.Digests))
}

// wakeLoops has the loops look again at the catalogue and the configuration.
func (m *mirror) wakeLoops() {
	for _, due := range []chan struct{}{m.resume, m.prefetchDue, m.installDue} {
		select {
		case due <- struct{}{}:
		default:
		}
	}
}

// buildInfo is the metric that names the running version.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "imgmirror_build_info",
		Help: "1, labelled with the version of the running binary.",
	}, []string{"version"})
	g.WithLabelValues(version).Set(1)
	return g
}
