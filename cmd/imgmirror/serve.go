package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
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
			load := func() (*config.Config, error) { return loadConfig(cmd) }
			return serve(cmd.Context(), cfg, load, cmd.ErrOrStderr())
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
	flags.String("listen", "", "`ADDRESS` of the client listener (default :8080)")
	flags.String("admin-listen", "", "`ADDRESS` of the admin listener (default 127.0.0.1:8081)")
	flags.StringArray("source", nil, "`URL` of an image server; repeat it for several; replaces the configured list")
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
		return nil, &failure.Error{Code: failure.CodeConfig, Err: err}
	}
	return cfg, nil
}

// serve runs one mirror until ctx ends. A SIGHUP has it take over what load,
// which reads the configuration again, gives.
func serve(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), stderr io.Writer) error {
	hangups, release := catchHangups()
	defer release()
	level := new(slog.LevelVar)
	level.Set(cfg.Log.SlogLevel())
	log, err := newLogger(stderr, level, cfg.Log.Format)
	if err != nil {
		return &failure.Error{Code: failure.CodeConfig, Err: err}
	}
	warn(log, cfg)
	m, err := newProcess(ctx, cfg, log)
	if err != nil {
		return err
	}
	m.level = level
	reloading, stopReloading := context.WithCancel(ctx)
	var reloads sync.WaitGroup
	reloads.Go(func() { m.reloadOn(reloading, hangups, load) })
	defer func() {
		stopReloading()
		reloads.Wait()
	}()
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		dir = cfg.DataDir
	}
	attrs := []any{"version", version, "listen", m.server.Addr().String(), "data_dir", dir, "sources", len(cfg.Sources)}
	if m.adminLn != nil {
		attrs = append(attrs, "admin", m.adminLn.Addr().String())
	}
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

// warn logs what is odd about a configuration.
func warn(log *slog.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings {
		log.Warn("configuration: " + w)
	}
	for _, key := range withoutEffect(cfg) {
		log.Warn("this version has no such feature yet: the key has no effect", "key", key)
	}
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
		"fill.streams": true,
		"s3.endpoint":  true, "s3.bucket": true, "s3.prefix": true, "s3.access_key_file": true,
		"s3.secret_key_file": true, "s3.region": true, "s3.path_style": true,
	}
	var keys []string
	for _, key := range config.Changed(config.Defaults(), *cfg) {
		if later[key] {
			keys = append(keys, key)
		}
	}
	return keys
}
