package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/demo"
	"imgmirror/config"
)

func newDemoCmd() *cobra.Command {
	var once bool
	var listen string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the mirror at work on loopback: a source, a mirror of it, an import",
		Long: "Starts a sample image server and a mirror of it on loopback, imports an image as imgadm\n" +
			"would, stops the image server and imports it again. No network is needed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			return demo.Tell(cmd.Context(), cmd.OutOrStdout(), listen, once,
				func(ctx context.Context, dir, listen string, source config.Source) (*demo.Mirror, error) {
					return startDemo(ctx, log, dir, listen, source)
				})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the story instead of serving on")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address of the mirror; port 0 takes a free one")
	return cmd
}

// startDemo is the demo's way to start a mirror.
func startDemo(ctx context.Context, log *slog.Logger, dir, listen string, source config.Source) (*demo.Mirror, error) {
	cfg := config.Defaults()
	cfg.Listen = listen
	cfg.Admin.Listen = ""
	cfg.DataDir = dir
	cfg.Sources = []config.Source{source}
	cfg.Cache.MinFree = 0
	cfg.Clients.DrainTimeout = time.Second
	m, err := newProcess(ctx, &cfg, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.run(ctx) }()
	select {
	case <-m.Started():
	case err := <-done:
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
	var stop sync.Once
	return &demo.Mirror{
		URL:     "http://" + m.server.Addr().String(),
		Metrics: m.Registry(),
		Stop: func() (err error) {
			stop.Do(func() { cancel(); err = <-done })
			return err
		},
	}, nil
}
