package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.yaml.in/yaml/v3"

	"imgmirror/cmd/imgmirror/doctor"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/memory"
	"imgmirror/config"
	"imgmirror/proxy"
	"imgmirror/proxy/accesslog"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/page"
)

// process is one running mirror with its two listeners. newProcess builds and listens, run serves.
type process struct {
	*mirror.Mirror

	log         *slog.Logger
	access      *accesslog.Log // nil: requests have no lines
	server      *proxy.Server
	admin       *admin.Server
	page        *page.Page                      // nil: a verb's own mirror
	adminLn     net.Listener                    // nil: admin.listen is empty
	adminSocket net.Listener                    // nil: a verb's own mirror, or there can be none
	cfg         atomic.Pointer[config.Config]   // in force; a reload makes another
	cert        atomic.Pointer[tls.Certificate] // of the client listener; nil: plain HTTP
	level       *slog.LevelVar                  // of log
	token       string                          // of the admin listener; "": there is no such listener
}

// newProcess builds a mirror from a checked configuration and opens its listeners; nothing runs yet.
// The caller must call run, which closes the process, and runs access longer. access nil: requests have no lines.
func newProcess(ctx context.Context, cfg *config.Config, log *slog.Logger, access *accesslog.Log) (_ *process, err error) {
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
	p := &process{log: log, access: access, level: new(slog.LevelVar)}
	if access != nil {
		access.Register(o.Registry)
	}
	o.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "imgmirror_listener_certificate_end_timestamp_seconds",
		Help: "When the certificate of the client listener ends; 0 = the listener has none.",
	}, func() float64 {
		if cert := p.certificate(); cert != nil {
			return float64(cert.NotAfter.Unix())
		}
		return 0
	}))
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
		Nodes:          p.Nodes(),
		Writes:         p.Mirror,
		PublicURL:      string(cfg.PublicURL),
		DistDir:        cfg.DistDir,
		ID:             p.ID(),
		Version:        version,
		StreamOnMiss:   cfg.Cache.StreamOnMiss,
		OnUnreachable:  cfg.Cache.OnUnreachable,
		ClientStall:    cfg.Clients.StallTimeout,
		DrainTimeout:   cfg.Clients.DrainTimeout,
		MaxConnections: cfg.Clients.MaxConnections,
		MaxPerAddress:  cfg.Clients.MaxPerAddress,
		Memory:         int64(cfg.Clients.Memory),
		TLSConfig:      tlsConfig,
		AccessLog:      access,
		Ready:          p.Ready,
		Logger:         log,
		Registerer:     o.Registry,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Listen != "" { // else it is a verb's own mirror
		if err := p.server.Listen(cfg.Listen); err != nil {
			return nil, fmt.Errorf("the key listen: %w", err)
		}
	}
	if err := p.newAdmin(cfg); err != nil {
		return nil, err
	}
	rules, err := p.writeRules(cfg)
	if err != nil {
		return nil, err
	}
	p.server.SetWriteRules(rules)
	return p, nil
}

// run serves until ctx ends, then stops in order: readiness, listener, replies (the drain deadline),
// the operator's side, loops, fills, index. It returns the first failure of any of them.
func (p *process) run(ctx context.Context) error {
	operators := func(ctx context.Context) error { return p.admin.Run(ctx, p.adminLn, p.adminSocket) }
	return around(ctx, p.Mirror.Run, func(ctx context.Context) error {
		return around(ctx, operators, p.serveClients)
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

// newAdmin makes the operator's side of the mirror and opens what it listens on:
// the admin listener, for those with the token, and the socket in the data
// folder, for those with its owner's rights. A verb's own mirror has neither.
func (p *process) newAdmin(cfg *config.Config) error {
	log := p.log.With("component", "admin")
	options := admin.Options{
		Mirror:   p.Mirror,
		Gatherer: p.Registry(), Registerer: p.Registry(),
		Ready:  p.server.Ready,
		Logger: log,
		Config: p.configJSON,
		Doctor: p.diagnose,

		Certificate: p.certificate,

		HeadMemory: memory.Find(int64(cfg.Memory.Limit)).Heads(),
	}
	if name, err := os.Hostname(); err == nil {
		options.Hosts = []string{name}
	}
	if cfg.Listen != "" {
		// The store's lock says that the process that listened on an old socket is gone.
		socket, err := admin.ListenSocket(filepath.Join(cfg.DataDir, admin.SocketName))
		if err != nil {
			log.Warn("the verbs on this machine have to use --server", "error", err)
		} else {
			p.adminSocket = socket
		}
	}
	if cfg.Admin.Listen != "" {
		token, warnings, err := admin.ReadToken(cfg.AdminTokenFile())
		if err != nil {
			return &failure.Error{Code: failure.CodeConfig, Err: err}
		}
		for _, w := range warnings {
			log.Warn(w)
		}
		options.Token, p.token = token, token
		if p.adminLn, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
			return fmt.Errorf("admin.listen: %w", err)
		}
	}
	if host := hostOf(cfg.PublicURL); host != "" {
		options.Hosts = append(options.Hosts, host)
	}
	p.admin = admin.New(options)
	return p.newPage(cfg, options.Token)
}

// configJSON is the configuration in force, as config show prints it, in JSON.
func (p *process) configJSON() (json.RawMessage, error) {
	text, err := p.cfg.Load().YAML()
	if err != nil {
		return nil, err
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return json.Marshal(settings)
}

// diagnose is doctor in the running mirror.
func (p *process) diagnose(ctx context.Context) []admin.Finding {
	running := &doctor.Running{}
	running.Down, running.Hampered = p.Look()
	if addr := p.server.Addr(); addr != nil {
		running.Addr = addr.String()
	}
	return diagnose(ctx, p.cfg.Load(), p.ID(), running)
}
