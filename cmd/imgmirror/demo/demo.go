// Package demo tells the story of `imgmirror demo`: an image server, a mirror of the server, and
// an import from the mirror, all on loopback. The sample images lie in this folder.
package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/config"
)

// samples is a folder of real, small images: UUID/manifest.json beside its file. README.md tells
// how they were made.
//
//go:embed *-*-*-*-*
var samples embed.FS

// sample is the name of the image that is imported: the last of a chain of three.
const sample = "sample-app"

// Mirror is a running mirror of the story.
type Mirror struct {
	URL     string
	Metrics prometheus.Gatherer
	Stop    func() error // ends the mirror and waits for its end; a second call does nothing
}

// Start starts a mirror of one source, which listens on an address and keeps its data in dir. It
// returns when the mirror is ready.
type Start func(ctx context.Context, dir, listen string, source config.Source) (*Mirror, error)

// Tell tells the story on out, with the mirror on the address listen, and, unless once, keeps the
// mirror serving until ctx ends.
func Tell(ctx context.Context, out io.Writer, listen string, once bool, start Start) (err error) {
	dir, err := os.MkdirTemp("", "imgmirror-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	images := filepath.Join(dir, "images")
	if err := os.CopyFS(images, samples); err != nil {
		return err
	}

	// The source is a mirror as well: of a folder. So the two talk real IMGAPI.
	source, err := start(ctx, filepath.Join(dir, "source"), "127.0.0.1:0",
		config.Source{Name: "samples", URL: config.URL(images), Kind: "directory", Refresh: time.Hour})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Stop()) }()
	mirror, err := start(ctx, filepath.Join(dir, "mirror"), listen,
		config.Source{Name: "upstream", URL: config.URL(source.URL), Kind: "auto", Refresh: time.Hour})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mirror.Stop()) }()

	fmt.Fprintf(out, "An image server (the source) runs on %s\n", source.URL)
	fmt.Fprintf(out, "and a mirror of it on              %s\n", mirror.URL)
	c := &client{
		base: mirror.URL,
		http: &http.Client{Transport: &http.Transport{Proxy: nil}},
		say:  func(format string, args ...any) { fmt.Fprintf(out, "   "+format+"\n", args...) },
	}

	fmt.Fprintf(out, "\n1. An import of %s from the mirror, which has no file yet:\n", sample)
	id, served, first, err := c.importSample(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n2. The source is stopped.\n")
	if err := source.Stop(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n3. The same import again:\n")
	_, again, second, err := c.importSample(ctx)
	if err != nil {
		return err
	}

	fetched, err := counter(mirror.Metrics, "imgmirror_upstream_received_bytes_total")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe first import took %s, the second %s.\n",
		first.Round(time.Millisecond/10), second.Round(time.Millisecond/10))
	fmt.Fprintf(out, "Fetched from the source: %s (lists and manifests included). Served to the client: %s of image files.\n",
		humanize.Bytes(uint64(fetched)), humanize.Bytes(uint64(served+again)))
	fmt.Fprintf(out, "\nTo try while the mirror runs:\n"+
		"   curl -s %[1]s/images\n   curl -sI %[1]s/images/%[2]s/file\n"+
		"or, on a compute node that reaches it: imgadm sources -a %[1]s\n", mirror.URL, id)
	if once {
		return nil
	}
	fmt.Fprintf(out, "\nIt serves on until Ctrl-C.\n")
	<-ctx.Done()
	return nil
}

// importSample lists the images, finds the sample by its name and imports it.
func (c *client) importSample(ctx context.Context) (id uuid.UUID, bytes int64, took time.Duration, err error) {
	start := time.Now()
	images, err := c.list(ctx)
	if err != nil {
		return id, 0, 0, err
	}
	for _, m := range images {
		if m.Name == sample {
			bytes, err = c.importImage(ctx, m.UUID)
			return m.UUID, bytes, time.Since(start), err
		}
	}
	return id, 0, 0, fmt.Errorf("GET %s/images: no image named %s: %w", c.base, sample, fs.ErrNotExist)
}

// counter adds up a counter over its labels.
func counter(g prometheus.Gatherer, name string) (sum float64, err error) {
	families, err := g.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
		return sum, nil
	}
	return 0, fmt.Errorf("no metric %s", name)
}
