package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"imgmirror/config"
)

// sampleImages is a folder of real, small images: UUID/manifest.json beside its
// file. demo/README.md tells how they were made.
//
//go:embed demo/*-*-*-*-*
var sampleImages embed.FS

// demoImport is the image that the demo imports: the last of a chain of three.
const demoImport = "sample-app"

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
			return demo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), listen, once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the story instead of serving on")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address of the mirror; port 0 takes a free one")
	return cmd
}

// demo tells the story on out and, unless once, keeps the mirror serving until
// ctx ends.
func demo(ctx context.Context, out, stderr io.Writer, listen string, once bool) (err error) {
	dir, err := os.MkdirTemp("", "imgmirror-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	images := filepath.Join(dir, "images")
	if err := unpackSamples(images); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError}))

	// The source is a mirror as well: of a folder. So the two talk real IMGAPI.
	source, err := startDemoMirror(ctx, log, filepath.Join(dir, "source"), "127.0.0.1:0",
		config.Source{Name: "samples", URL: config.URL(images), Kind: "directory", Refresh: time.Hour})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	mirror, err := startDemoMirror(ctx, log, filepath.Join(dir, "mirror"), listen,
		config.Source{Name: "upstream", URL: config.URL(source.url), Kind: "auto", Refresh: time.Hour})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mirror.stop()) }()

	fmt.Fprintf(out, "An image server (the source) runs on %s\n", source.url)
	fmt.Fprintf(out, "and a mirror of it on              %s\n", mirror.url)
	client := &imageClient{
		base: mirror.url,
		http: &http.Client{Transport: &http.Transport{Proxy: nil}},
		say:  func(format string, args ...any) { fmt.Fprintf(out, "   "+format+"\n", args...) },
	}

	fmt.Fprintf(out, "\n1. An import of %s from the mirror, which has no file yet:\n", demoImport)
	uuid, served, first, err := client.demoImport(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n2. The source is stopped.\n")
	if err := source.stop(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n3. The same import again:\n")
	_, again, second, err := client.demoImport(ctx)
	if err != nil {
		return err
	}

	fetched, err := counterSum(mirror.registry, "imgmirror_upstream_received_bytes_total")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe first import took %s, the second %s.\n",
		first.Round(time.Millisecond/10), second.Round(time.Millisecond/10))
	fmt.Fprintf(out, "Fetched from the source: %s (lists and manifests included). Served to the client: %s of image files.\n",
		humanize.Bytes(uint64(fetched)), humanize.Bytes(uint64(served+again)))
	fmt.Fprintf(out, "\nTo try while the mirror runs:\n"+
		"   curl -s %[1]s/images\n   curl -sI %[1]s/images/%[2]s/file\n"+
		"or, on a compute node that reaches it: imgadm sources -a %[1]s\n", mirror.url, uuid)
	if once {
		return nil
	}
	fmt.Fprintf(out, "\nIt serves on until Ctrl-C.\n")
	<-ctx.Done()
	return nil
}

// demoImport lists the images, finds the demo's image by name and imports it.
func (c *imageClient) demoImport(ctx context.Context) (uuid string, bytes int64, took time.Duration, err error) {
	start := time.Now()
	images, err := c.list(ctx)
	if err != nil {
		return "", 0, 0, err
	}
	for _, m := range images {
		if m.Name == demoImport {
			bytes, err = c.importImage(ctx, m.UUID)
			return m.UUID, bytes, time.Since(start), err
		}
	}
	return "", 0, 0, fmt.Errorf("GET %s/images: no image named %s", c.base, demoImport)
}

// demoMirror is a running mirror of the demo.
type demoMirror struct {
	url      string
	registry *prometheus.Registry
	cancel   context.CancelFunc
	done     chan error // receives run's result once
	stopped  bool
}

// startDemoMirror starts a mirror of one source and returns when it is ready.
func startDemoMirror(ctx context.Context, log *slog.Logger, dir, listen string, source config.Source) (*demoMirror, error) {
	cfg := config.Defaults()
	cfg.Listen = listen
	cfg.Admin.Listen = ""
	cfg.DataDir = dir
	cfg.Sources = []config.Source{source}
	cfg.Cache.MinFree = 0
	cfg.Clients.DrainTimeout = time.Second
	m, err := newMirror(ctx, &cfg, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &demoMirror{
		url:      "http://" + m.server.Addr().String(),
		registry: m.registry,
		cancel:   cancel,
		done:     make(chan error, 1),
	}
	go func() { d.done <- m.run(ctx) }()
	select {
	case <-m.catalog.Ready():
		return d, nil
	case err := <-d.done:
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
}

// stop ends the mirror and waits for it; a second call does nothing.
func (d *demoMirror) stop() error {
	if d.stopped {
		return nil
	}
	d.stopped = true
	d.cancel()
	return <-d.done
}

// unpackSamples writes the embedded images to dir.
func unpackSamples(dir string) error {
	return fs.WalkDir(sampleImages, "demo", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(path, "demo")))
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := sampleImages.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// counterSum adds up a counter over its labels.
func counterSum(g prometheus.Gatherer, name string) (float64, error) {
	families, err := g.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		var sum float64
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
		return sum, nil
	}
	return 0, fmt.Errorf("no metric %s", name)
}
