package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	"imgmirror/proxy/upstream"
)

// readyLimit is how long a start may wait for the sources' first answers before
// the mirror calls itself ready with what it has: a source that hangs must not
// keep a load balancer away from the cached images.
const readyLimit = 2500 * time.Millisecond

// resumeEvery is how often downloads that broke off for good are tried again
// although the catalogue has not changed: their source may be back with the
// list that it had.
const resumeEvery = 5 * time.Minute

// mirror is one running mirror: the store, the catalogue over its sources, the
// two listeners. newMirror builds and listens, run serves.
type mirror struct {
	log      *slog.Logger
	registry *prometheus.Registry
	store    *cache.Store
	catalog  *catalog.Catalog
	server   *proxy.Server
	admin    *admin.Server
	adminLn  net.Listener // nil: admin.listen is empty
	cert     *certificate // nil: no TLS
	offline  bool
	resume   chan struct{} // a token in it: partial downloads may have become possible
	late     chan struct{} // closed readyLimit after run began
}

// newMirror builds a mirror from a checked configuration and opens its
// listeners; nothing runs yet. The caller must call run, which closes it.
func newMirror(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *mirror, err error) {
	m := &mirror{
		log:      log,
		registry: prometheus.NewRegistry(),
		offline:  cfg.Offline,
		resume:   make(chan struct{}, 1),
		late:     make(chan struct{}),
	}
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

	sources, err := m.sources(cfg)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(sources))
	for i, s := range sources {
		names[i] = s.Source.Name()
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
		OnPublish:       m.learn,
		Logger:          log.With("component", "cache"),
		Registerer:      m.registry,
	})
	if err != nil {
		return nil, err
	}
	m.catalog, err = catalog.New(catalog.Options{
		Sources:          sources,
		Index:            m.store,
		Offline:          cfg.Offline,
		HideBrokenChains: cfg.Catalog.HideBrokenChains,
		NotModified:      upstream.ErrNotModified,
		OnChange:         func(*catalog.List) { m.wakeResume() },
		Logger:           log.With("component", "catalog"),
		Registerer:       m.registry,
	})
	if err != nil {
		return nil, err
	}
	var tlsConfig *tls.Config
	if cfg.TLS.CertFile != "" {
		m.cert = new(certificate)
		if err := m.cert.read(cfg.TLS.CertFile, cfg.TLS.KeyFile); err != nil {
			return nil, &verbError{code: codeConfig, err: fmt.Errorf("tls: %w", err)}
		}
		tlsConfig = &tls.Config{GetCertificate: m.cert.get, MinVersion: tls.VersionTLS12}
	}
	m.server, err = proxy.New(proxy.Options{
		Catalog:        m.catalog,
		Files:          m.store,
		PublicURL:      string(cfg.PublicURL),
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
	if err := m.server.Listen(cfg.Listen); err != nil {
		return nil, err
	}
	m.admin = admin.New(admin.Options{
		Gatherer: m.registry,
		Ready:    m.server.Ready,
		Logger:   log.With("component", "admin"),
	})
	if cfg.Admin.Listen != "" {
		if m.adminLn, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
			return nil, fmt.Errorf("admin.listen: %w", err)
		}
	}
	return m, nil
}

// sources makes a client for each configured source.
func (m *mirror) sources(cfg *config.Config) ([]catalog.SourceOptions, error) {
	names := make([]string, len(cfg.Sources))
	for i, s := range cfg.Sources {
		names[i] = s.Name
	}
	metrics := upstream.NewMetrics(m.registry, names)
	var all []catalog.SourceOptions
	var faults []error
	for _, s := range cfg.Sources {
		o, err := m.source(cfg, s, metrics)
		if err != nil {
			faults = append(faults, fmt.Errorf("source %s: %w", s.Name, err))
			continue
		}
		all = append(all, o)
	}
	if len(faults) > 0 {
		return nil, &verbError{code: codeConfig, err: errors.Join(faults...)}
	}
	return all, nil
}

func (m *mirror) source(cfg *config.Config, s config.Source, metrics *upstream.Metrics) (catalog.SourceOptions, error) {
	var o catalog.SourceOptions
	secret := func(file string) (string, error) {
		if file == "" {
			return "", nil
		}
		return config.ReadSecret(file)
	}
	password, err := secret(s.PasswordFile)
	if err != nil {
		return o, fmt.Errorf("password_file: %w", err)
	}
	token, err := secret(s.TokenFile)
	if err != nil {
		return o, fmt.Errorf("token_file: %w", err)
	}
	include, err := filters(s.Include)
	if err != nil {
		return o, fmt.Errorf("include: %w", err)
	}
	exclude, err := filters(s.Exclude)
	if err != nil {
		return o, fmt.Errorf("exclude: %w", err)
	}
	client, err := upstream.New(upstream.Options{
		Name:         s.Name,
		URL:          string(s.URL),
		Kind:         s.Kind,
		Channel:      s.Channel,
		Insecure:     s.Insecure,
		CAFile:       s.CAFile,
		Username:     s.Username,
		Password:     password,
		Token:        token,
		Proxy:        string(s.Proxy),
		RateLimit:    int64(s.RateLimit),
		StallTimeout: cfg.Fill.StallTimeout,
		ServePrivate: s.ServePrivate,
		UserAgent:    "imgmirror/" + version,
		Metrics:      metrics,
		Logger:       m.log,
	})
	if err != nil {
		return o, err
	}
	return catalog.SourceOptions{
		Source:       client,
		URL:          s.URL.String(),
		Refresh:      s.Refresh,
		Include:      include,
		Exclude:      exclude,
		ServePrivate: s.ServePrivate,
	}, nil
}

func filters(texts []string) ([]manifest.Filter, error) {
	var all []manifest.Filter
	for _, t := range texts {
		f, err := manifest.ParseFilter(t)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
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
	g.Go(func() error {
		if m.adminLn == nil {
			return nil
		}
		return m.admin.Run(loops, m.adminLn)
	})
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
	if m.store != nil {
		if err := m.store.Close(); err != nil {
			m.log.Error("closing the store", "error", err)
		}
	}
}

// ready tells whether the catalogue may be served: every source has answered
// or failed once, or its last list was on disk, or it has been waited for long
// enough.
func (m *mirror) ready() bool {
	select {
	case <-m.catalog.Ready():
		return true
	case <-m.late:
		return true
	default:
		return false
	}
}

// learn hands to the catalogue what a download has told of a file.
func (m *mirror) learn(b cache.Blob, info cache.Info) {
	if b.Manifest.UUID != b.Image {
		return // an icon
	}
	facts := manifest.Facts{SHA1: info.Digests.SHA1, Size: info.Digests.Size, Compression: info.Digests.Format}
	if facts.Compression == "" { // no format's magic number
		facts.Compression = "none"
	}
	m.catalog.Learn(manifest.FileID{Image: b.Image, Index: b.Index}, facts)
}

func (m *mirror) wakeResume() {
	select {
	case m.resume <- struct{}{}:
	default:
	}
}

// resumePartials goes on with the downloads that an earlier process left
// unfinished, and those that failed since: once the catalogue is there, again
// whenever it changes, and now and then.
func (m *mirror) resumePartials(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.catalog.Ready():
	case <-m.late:
	}
	again := time.NewTicker(resumeEvery)
	defer again.Stop()
	for {
		if !m.offline {
			for _, p := range m.store.Partials() {
				m.resumePartial(ctx, p)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.resume:
		case <-again.C:
		}
	}
}

func (m *mirror) resumePartial(ctx context.Context, p cache.Partial) {
	entry, index, ok := m.catalog.Current().BySum(p.Sum)
	if !ok {
		return
	}
	blob, sources := proxy.BlobOf(entry, index)
	reader, err := m.store.File(ctx, blob, sources)
	if err != nil {
		m.log.Warn("an unfinished download cannot go on yet",
			"uuid", entry.Manifest.UUID, "sum", p.Sum, "have", p.Have, "error", err)
		return
	}
	m.log.Info("an unfinished download goes on",
		"uuid", entry.Manifest.UUID, "sum", p.Sum, "have", p.Have, "size", reader.Size())
	reader.Close() //nolint:errcheck // nothing was read
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
