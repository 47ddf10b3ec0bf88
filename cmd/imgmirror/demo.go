package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/demo"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
)

func newDemoCmd() *cobra.Command {
	var once bool
	var listen string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the mirror at work on loopback, with figures that are checked",
		Long: "Starts a sample image server, mirrors and clients on loopback, and tells six chapters: pull-through, a\n" +
			"source that is cut in mid-file, a source that lies, a herd of clients, a mirror without its source, and\n" +
			"signed bundles that are carried to a second mirror. Each chapter ends with figures that are measured\n" +
			"in the run; a figure that is not as expected makes the verb fail. No network is needed. Afterwards the\n" +
			"mirror serves on until Ctrl-C, with its page.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			return demo.Tell(cmd.Context(), cmd.OutOrStdout(), listen, once,
				func(ctx context.Context, o demo.Options) (*demo.Mirror, error) { return startDemo(ctx, log, o) }, demoVerb)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the story instead of serving on")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address of the mirror; port 0 takes a free one")
	return cmd
}

// demoVerb is the demo's way to run a verb, in this process.
func demoVerb(ctx context.Context, args ...string) demo.Said {
	var out bytes.Buffer
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return demo.Said{Text: out.String()}
	}
	told := failure.Of(err)
	return demo.Said{Text: out.String() + told.Error(), Code: string(told.Code)}
}

// startDemo is the demo's way to start a mirror.
func startDemo(ctx context.Context, log *slog.Logger, o demo.Options) (*demo.Mirror, error) {
	cfg := config.Defaults()
	cfg.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	cfg.Admin.Listen = "127.0.0.1:0"
	cfg.DataDir = o.Dir
	cfg.Sources = o.Sources
	cfg.Bundle.TrustedKeys = o.Keys
	cfg.Cache.MinFree = 0
	cfg.Clients.DrainTimeout = time.Second
	m, err := newProcess(ctx, &cfg, log, nil)
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
		Admin:   "http://" + m.adminLn.Addr().String(),
		Token:   cfg.AdminTokenFile(),
		Dir:     o.Dir,
		Metrics: m.Registry(),
		Stop: func() (err error) {
			stop.Do(func() { cancel(); err = <-done })
			return err
		},
	}, nil
}
