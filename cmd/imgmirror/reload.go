package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"

	"imgmirror/config"
)

// reloader takes over at SIGHUP what can change in a running mirror: the log's
// level and the certificate. It says which other changes need a restart.
type reloader struct {
	log   *slog.Logger
	level *slog.LevelVar
	cert  *certificate // nil: no TLS
	load  func() (*config.Config, error)
	cfg   config.Config // in effect
}

// run serves SIGHUP until ctx ends.
func (r *reloader) run(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-hangups:
				r.reload()
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (r *reloader) reload() {
	fresh, err := r.load()
	if err != nil {
		r.log.Error("SIGHUP: the configuration is at fault, nothing was changed", "error", err)
		return
	}
	if err := r.level.UnmarshalText([]byte(fresh.Log.Level)); err != nil {
		r.log.Error("SIGHUP: log.level", "error", err)
	} else {
		r.cfg.Log.Level = fresh.Log.Level
	}
	restart := config.Changed(r.cfg, *fresh)
	if r.cert != nil && !slices.ContainsFunc(restart, func(key string) bool { return key == "tls.cert_file" || key == "tls.key_file" }) {
		if err := r.cert.read(r.cfg.TLS.CertFile, r.cfg.TLS.KeyFile); err != nil {
			r.log.Error("SIGHUP: the certificate cannot be read, the old one stays", "error", err)
		}
	}
	r.log.Info("SIGHUP: log level and certificate were read again", "level", r.cfg.Log.Level)
	if len(restart) > 0 {
		r.log.Warn("SIGHUP: these changes need a restart", "keys", restart)
	}
}

// certificate is the one that new connections are shown.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

func (c *certificate) read(certFile, keyFile string) error {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	c.current.Store(&pair)
	return nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
