package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"imgmirror/config"
	"imgmirror/proxy"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/mirror"
)

// process is one running mirror with its two listeners. newProcess builds and listens, run serves.
type process struct {
	*mirror.Mirror

	log         *slog.Logger
	server      *proxy.Server
	admin       *admin.Server
	adminLn     net.Listener                    // nil: admin.listen is empty
	adminSocket net.Listener                    // nil: a verb's own mirror, or there can be none
	cfg         atomic.Pointer[config.Config]   // in force; a reload makes another
	cert        atomic.Pointer[tls.Certificate] // of the client listener; nil: plain HTTP
	level       *slog.LevelVar                  // of log
}

// newProcess builds a mirror from a checked configuration and opens its listeners; nothing runs yet.
// The caller must call run, which closes the process.
func newProcess(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *process, err error) {
	o, err := options(cfg)
	if err != nil {
		return nil, err
	}
	o.Logger, o.Registry = log, prometheus.NewRegistry()
	o.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(),
	)
	p := &process{log: log, level: new(slog.LevelVar)}
	p.cfg.Store(cfg)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.Mirror, err = mirror.New(ctx, o); err != nil {
		return nil, err
	}
	tlsConfig, err := p.tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	p.server, err = proxy.New(proxy.Options{
		Catalog:        p.Mirror,
		Files:          p.Mirror,
		PublicURL:      string(cfg.PublicURL),
		ID:             p.ID(),
		Version:        version,
		StreamOnMiss:   cfg.Cache.StreamOnMiss,
		OnUnreachable:  cfg.Cache.OnUnreachable,
		ClientStall:    cfg.Clients.StallTimeout,
		DrainTimeout:   cfg.Clients.DrainTimeout,
		MaxConnections: cfg.Clients.MaxConnections,
		MaxPerAddress:  cfg.Clients.MaxPerAddress,
		TLSConfig:      tlsConfig,
		Ready:          p.Ready,
		Logger:         log,
		Registerer:     o.Registry,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Listen != "" { // else it is a verb's own mirror
		if err := p.server.Listen(cfg.Listen); err != nil {
			return nil, err
		}
	}
	return p, p.newAdmin(cfg)
}

// run serves until ctx ends, then stops in order: readiness, listener, replies (the drain deadline),
// the operator's side, loops, fills, index. It returns the first failure of any of them.
func (p *process) run(ctx context.Context) error {
	operators := func(ctx context.Context) error { return p.admin.Run(ctx, p.adminLn, p.adminSocket) }
	return around(ctx, p.Mirror.Run, func(ctx context.Context) error {
		return around(ctx, operators, p.server.Run)
	})
}

// runLocal serves the admin API on ln until ctx ends, then stops as run does. The mirror does what
// the API asks for, and nothing else.
func (p *process) runLocal(ctx context.Context, ln net.Listener) error {
	return around(ctx, p.RunQuietly, func(ctx context.Context) error { return p.admin.Run(ctx, nil, ln) })
}

// around serves while the mirror works: the work ends after serve has returned, and a failure of the
// work ends serve.
func around(ctx context.Context, work, serve func(context.Context) error) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	done := make(chan error, 1)
	go func() { // waited for below
		done <- work(working)
		stopServing()
	}()
	err := serve(serving)
	stop()
	return errors.Join(err, <-done)
}

// close frees what newProcess opened before it failed.
func (p *process) close() {
	if p.server != nil {
		p.server.Close()
	}
	if p.adminLn != nil {
		p.adminLn.Close()
	}
	if p.adminSocket != nil {
		p.adminSocket.Close()
	}
	if p.Mirror != nil {
		if err := p.Mirror.Close(); err != nil {
			p.log.Error("closing the store", "error", err)
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
