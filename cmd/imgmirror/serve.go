package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"imgmirror/config"
)

func newServeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			reload := func() (*config.Config, error) { return loadConfig(cmd) }
			return serve(cmd.Context(), cfg, cmd.ErrOrStderr(), reload)
		},
	}
	addServeFlags(cmd)
	return cmd
}

// serveFlags maps the flags of serve to their configuration keys.
var serveFlags = map[string]string{
	"listen":       "listen",
	"admin-listen": "admin.listen",
	"source":       "sources",
	"data-dir":     "data_dir",
}

func addServeFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("listen", "", "address of the client listener (default :8080)")
	flags.String("admin-listen", "", "address of the admin listener (default 127.0.0.1:8081)")
	flags.StringArray("source", nil, "URL of an image server; repeat it for several; replaces the configured list")
}

// loadConfig reads file, environment and the flags that cmd was given.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	set := map[string]any{}
	for name, key := range serveFlags {
		f := cmd.Flags().Lookup(name)
		if f == nil || !f.Changed {
			continue
		}
		if name == "source" {
			urls, err := cmd.Flags().GetStringArray(name)
			if err != nil {
				return nil, err
			}
			set[key] = urls
			continue
		}
		set[key] = f.Value.String()
	}
	cfg, err := config.Load(config.LoadOptions{File: file, Environ: os.Environ(), Flags: set})
	if err == nil {
		err = checkFilters(cfg)
	}
	if err != nil {
		return nil, &verbError{code: codeConfig, err: err}
	}
	return cfg, nil
}

// checkFilters finds filters whose fields no image has: config knows their
// shape only.
func checkFilters(cfg *config.Config) error {
	var faults []error
	check := func(key string, texts []string) {
		for _, t := range texts {
			if _, err := filters([]string{t}); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	for i, s := range cfg.Sources {
		check(fmt.Sprintf("sources[%d].include", i), s.Include)
		check(fmt.Sprintf("sources[%d].exclude", i), s.Exclude)
	}
	check("cache.pins", cfg.Cache.Pins)
	for i, p := range cfg.Prefetch {
		check(fmt.Sprintf("prefetch[%d].match", i), p.Match)
	}
	return errors.Join(faults...)
}

// serve runs one mirror until ctx ends; reload reads the configuration again.
func serve(ctx context.Context, cfg *config.Config, stderr io.Writer, reload func() (*config.Config, error)) error {
	var level slog.LevelVar
	log, err := newLogger(stderr, cfg.Log.Level, cfg.Log.Format, &level)
	if err != nil {
		return &verbError{code: codeConfig, err: err}
	}
	for _, w := range cfg.Warnings {
		log.Warn("configuration: " + w)
	}
	for _, key := range withoutEffect(cfg) {
		log.Warn("this version has no such feature yet: the key has no effect", "key", key)
	}
	m, err := newMirror(ctx, cfg, log)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		dir = cfg.DataDir
	}
	attrs := []any{"version", version, "listen", m.server.Addr().String(), "data_dir", dir, "sources", len(cfg.Sources)}
	if m.adminLn != nil {
		attrs = append(attrs, "admin", m.adminLn.Addr().String())
	}
	changes := &reloader{log: log, level: &level, cert: m.cert, load: reload, cfg: *cfg}
	changes.run(ctx)
	log.Info("serving", attrs...)
	notify(log, daemon.SdNotifyReady)
	defer context.AfterFunc(ctx, func() {
		log.Info("stopping: finishing open replies", "drain_timeout", cfg.Clients.DrainTimeout)
		notify(log, daemon.SdNotifyStopping)
	})()
	if err := m.run(ctx); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// notify tells systemd, where it started us.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}

// withoutEffect lists the keys that are set to more than their default and
// that nothing in this version reads.
func withoutEffect(cfg *config.Config) []string {
	later := map[string]bool{
		"channels": true, "catalog.retired": true, "cache.pins": true, "fill.streams": true,
		"verify.scrub_every": true, "verify.scrub_rate": true,
		"bundle.trusted_keys": true, "bundle.require_signature": true,
		"prefetch": true, "admin.token_file": true,
		"zfsimport.enabled": true, "zfsimport.pool": true, "zfsimport.images": true,
		"zfsimport.zfs_path": true, "zfsimport.db_dir": true,
		"s3.endpoint": true, "s3.bucket": true, "s3.prefix": true, "s3.access_key_file": true,
		"s3.secret_key_file": true, "s3.region": true, "s3.path_style": true,
	}
	var keys []string
	for _, key := range config.Changed(config.Defaults(), *cfg) {
		if later[key] {
			keys = append(keys, key)
		}
	}
	for _, s := range cfg.Sources {
		if len(s.AsChannels) > 0 {
			keys = append(keys, "sources."+s.Name+".as_channels")
		}
	}
	return keys
}
