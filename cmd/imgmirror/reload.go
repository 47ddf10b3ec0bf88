package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// catchHangups keeps SIGHUP from ending the process. One that comes while the
// last is being served, or before anyone serves it, is not lost.
func catchHangups() (hangups <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}

// reloadOn takes over what load gives, for each hangup, until ctx ends.
func (p *process) reloadOn(ctx context.Context, hangups <-chan os.Signal, load func() (*config.Config, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		cfg, err := load()
		if err == nil {
			warn(p.log, cfg)
			err = p.reload(ctx, cfg)
		}
		if err != nil {
			p.log.Error("the configuration stays as it is: it cannot be reloaded", "error", err)
		}
	}
}

// reloaded is old with what a running mirror can take over from next.
func reloaded(old, next *config.Config) *config.Config {
	c := *next
	c.Listen, c.PublicURL, c.DataDir, c.Admin = old.Listen, old.PublicURL, old.DataDir, old.Admin
	c.DistDir, c.Log.Format = old.DistDir, old.Log.Format
	if (old.TLS.CertFile == "") != (next.TLS.CertFile == "") {
		c.TLS = old.TLS
	}
	c.Cache.StreamOnMiss, c.Cache.OnUnreachable = old.Cache.StreamOnMiss, old.Cache.OnUnreachable
	c.Fill, c.Clients, c.Memory, c.Verify, c.Bundle = old.Fill, old.Clients, old.Memory, old.Verify, old.Bundle
	c.ZFSImport, c.S3 = old.ZFSImport, old.S3
	c.ZFSImport.Enabled, c.ZFSImport.Images = next.ZFSImport.Enabled, next.ZFSImport.Images
	return &c
}

// sourceKeys are the sections, and keys of none, that the catalogue and its sources are built from.
var sourceKeys = []string{"sources", "channels", "catalog", "offline"}

// reload takes over from next, which has been checked, what can change while the mirror runs, all
// of it or, with an error, nothing: sources, channels, limits, pins, prefetch rules, certificates,
// the log's level and requests, who may write. What was changed, and what needs a restart, goes to the log. Certificates and the
// secrets of sources are read again even if their files' names are the same. One at a time.
func (p *process) reload(ctx context.Context, next *config.Config) error {
	old := p.cfg.Load()
	c := reloaded(old, next)
	changed, waiting := config.Changed(*old, *c), config.Changed(*c, *next)

	var cert *tls.Certificate
	if c.TLS.CertFile != "" {
		var err error
		if cert, err = loadCertificate(c.TLS); err != nil {
			return err
		}
	}
	rebuild := slices.ContainsFunc(c.Sources, readsFiles)
	for _, key := range changed {
		section, _, _ := strings.Cut(key, ".")
		rebuild = rebuild || slices.Contains(sourceKeys, section)
	}
	o, err := options(c)
	if err != nil {
		return err
	}
	writes, err := p.writeRules(c)
	if err != nil {
		return err
	}
	if rebuild {
		if err := p.Replace(ctx, o.Sources); err != nil {
			return &failure.Error{Code: failure.CodeConfig, Err: err}
		}
	}
	if cert != nil {
		p.cert.Store(cert)
	}
	p.level.Set(c.Log.SlogLevel())
	if p.access != nil {
		p.access.SetRequests(c.Log.Requests)
	}
	p.cfg.Store(c)
	p.Adjust(o.Rules)
	p.server.SetWriteRules(writes)

	p.log.Info("configuration reloaded", "changed", keyList(changed), "sources_rebuilt", rebuild)
	if len(waiting) > 0 {
		p.log.Warn("configuration: changes that need a restart", "keys", keyList(waiting))
	}
	return nil
}

// readsFiles tells whether a source is told by more than its settings.
func readsFiles(s config.Source) bool {
	return s.PasswordFile != "" || s.TokenFile != "" || s.CAFile != ""
}

func keyList(keys []string) string {
	if len(keys) == 0 {
		return "nothing"
	}
	return strings.Join(keys, ", ")
}

// loadCertificate reads the client listener's certificate and key.
func loadCertificate(t config.TLS) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, failure.New(failure.CodeConfig, "tls: %w", err)
	}
	return &cert, nil
}

// certificate is what operators are told of the certificate of the client listener; nil without one.
func (p *process) certificate() *admin.Certificate {
	cert := p.cert.Load()
	if cert == nil || cert.Leaf == nil {
		return nil
	}
	return &admin.Certificate{Name: certificateName(cert.Leaf), NotAfter: cert.Leaf.NotAfter.UTC()}
}

// certificateName is the name that a certificate is for: the first one that clients look at.
func certificateName(leaf *x509.Certificate) string {
	switch {
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return leaf.Subject.CommonName
}

// tlsConfig serves the certificate that was loaded last; nil without one.
func (p *process) tlsConfig(cfg *config.Config) (*tls.Config, error) {
	if cfg.TLS.CertFile == "" {
		return nil, nil
	}
	cert, err := loadCertificate(cfg.TLS)
	if err != nil {
		return nil, err
	}
	p.cert.Store(cert)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.cert.Load(), nil },
	}, nil
}
