package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/memory"
	"imgmirror/config"
)

func newServeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			outliveLog()
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

// serve runs one mirror until ctx ends. At a SIGHUP the mirror takes over the configuration that
// load reads anew.
func serve(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), stderr io.Writer) error {
	hangups, release := catchHangups()
	defer release()
	level := new(slog.LevelVar)
	level.Set(cfg.Log.SlogLevel())
	log, access, err := newLogs(stderr, level, cfg.Log)
	if err != nil {
		return &failure.Error{Code: failure.CodeConfig, Err: err}
	}
	endLog := keep(access)
	defer endLog()
	beforeExit(ctx, endLog)
	slog.SetDefault(log) // net/http tells of wrong sources by package log
	warn(log, cfg)
	limitMemory(log, cfg)
	addProcessor(os.Getenv("GOMAXPROCS"))
	p, err := newProcess(ctx, cfg, log, access)
	if err != nil {
		return err
	}
	defer func() {
		if err := handOver(cfg.DataDir); err != nil {
			log.Warn("files in the data folder stay root's", "error", err)
		}
	}()
	p.level = level
	reloading, stopReloading := context.WithCancel(ctx)
	var reloads sync.WaitGroup
	reloads.Go(func() { p.reloadOn(reloading, hangups, load) })
	defer func() {
		stopReloading()
		reloads.Wait()
	}()
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		dir = cfg.DataDir
	}
	attrs := []any{"version", version, "listen", p.server.Addr().String(), "data_dir", dir, "sources", len(cfg.Sources)}
	if p.adminLn != nil {
		attrs = append(attrs, "admin", p.adminLn.Addr().String())
	}
	log.Info("serving", attrs...)
	notify(log, daemon.SdNotifyReady)
	defer p.watchdog(log)() // to the end: the watchdog bites a mirror that hangs while stopping, too
	defer context.AfterFunc(ctx, func() {
		log.Info("stopping: finishing open replies", "drain_timeout", cfg.Clients.DrainTimeout)
		notify(log, daemon.SdNotifyStopping)
	})()
	if err := p.run(ctx); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// outliveLog keeps a broken pipe from ending the process, up to the process's exit code: a write to a log that nothing
// reads fails, and that is all. For systemd an end by this signal is an end in good order, without a new start. Child
// processes have the signal as ever.
func outliveLog() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // unread
}

// limitMemory has the process keep to its memory, and tells what holds.
func limitMemory(log *slog.Logger, cfg *config.Config) {
	bound := memory.Find(int64(cfg.Memory.Limit))
	bound.Apply()
	lists := humanize.IBytes(uint64(bound.Lists())) //nolint:gosec // of a size
	if bound.Bytes == 0 {
		log.Info("memory: no limit is set", "lists", lists)
		return
	}
	soft := "none"
	if bound.Soft > 0 {
		soft = humanize.IBytes(uint64(bound.Soft))
	}
	log.Info("memory", "limit", humanize.IBytes(uint64(bound.Bytes)), "from", bound.From, "soft_limit", soft, "lists", lists)
}

// addProcessor lets Go use one processor more than there are, unless set, the environment's GOMAXPROCS, says
// how many. Go looks for new requests when one of its processors has nothing to do, else every 10 ms. With many
// clients that pull files the sender's loops and the hashing of downloads keep the others busy; a processor too many is
// idle, and the kernel runs the small answer among the others. Go no longer follows later changes of the cgroup's limit.
func addProcessor(set string) {
	if set == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

// notify tells systemd, where it started us.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}
