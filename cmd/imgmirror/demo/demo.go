// Package demo tells the story of `imgmirror demo`: an image server, a mirror of the server, and
// clients of the mirror, all on loopback. Each chapter ends with figures that are measured in the
// run, and a wrong figure is the story's error. The sample images lie in this folder.
package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
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

// limit is how long the story may take: a second is usual.
const limit = time.Minute

// Mirror is a running mirror of the story.
type Mirror struct {
	URL     string
	Admin   string // URL of the admin listener
	Token   string // the file with the token of Admin
	Dir     string // the data folder
	Metrics prometheus.Gatherer
	Stop    func() error // ends the mirror and waits for its end; a second call does nothing
}

// Options are those of a mirror.
type Options struct {
	Dir     string // the data folder
	Listen  string // "" = a free port of loopback
	Sources []config.Source
	Keys    []string // bundles signed by one of these keys are taken; none: a bundle needs no key
}

// Start starts a mirror, with an admin listener on a free port of loopback. It returns when the
// mirror is ready.
type Start func(ctx context.Context, o Options) (*Mirror, error)

// Verb runs a verb of imgmirror.
type Verb func(ctx context.Context, args ...string) Said

// Said is what a verb has said. A Code of "" is success; else Text ends with the error.
type Said struct{ Text, Code string }

// Tell tells the story on out, with the mirror on the address listen, and, unless once, keeps the
// mirror serving until ctx ends.
func Tell(ctx context.Context, out io.Writer, listen string, once bool, start Start, verb Verb) (err error) {
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
	source, err := start(ctx, Options{Dir: filepath.Join(dir, "source"),
		Sources: []config.Source{{Name: "samples", URL: config.URL(images), Kind: "directory", Refresh: time.Hour}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Stop()) }()
	s := &story{teller: newTeller(out), dir: dir, start: start, verb: verb}
	if s.line, err = newLine(source.URL); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.line.close()) }()
	s.mirror, err = start(ctx, Options{Dir: filepath.Join(dir, "mirror"), Listen: listen,
		Sources: []config.Source{from("upstream", s.line.url)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.mirror.Stop()) }()
	s.client = newClient(s.mirror.URL, s.say)
	if err := s.tell(ctx, source); err != nil || once {
		return err
	}
	fmt.Fprintf(out, `
The mirror serves on, without its source, until Ctrl-C:
   page            %[1]s/ui/
   operators' page %[2]s/ui/
   its token       imgmirror token --data-dir %[3]s
   curl -s %[1]s/images
   imgadm sources -a %[1]s   (on a compute node that reaches the mirror)
`, s.mirror.URL, s.mirror.Admin, s.mirror.Dir)
	<-ctx.Done()
	return nil
}

// tell tells all chapters. The source is stopped in the fifth.
func (s *story) tell(ctx context.Context, source *Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	fmt.Fprintln(s.out, "An image server (the source), a mirror of it, and clients, all on this machine.")
	for _, c := range []struct {
		title string
		tell  func() error
	}{
		{"Pull-through: a client imports " + sample + ", the mirror has no file yet", func() error { return s.pull(ctx) }},
		{"A source cut in mid-file: the download goes on at its offset", func() error { return s.cut(ctx) }},
		{"A source that lies: wrong bytes are never published", func() error { return s.lie(ctx, source) }},
		{fmt.Sprintf("A herd: %d clients ask at once for a file that is not there yet", herdSize), func() error { return s.herd(ctx) }},
		{"Offline: the same import without the source", func() error { return s.offline(ctx, source) }},
		{"Over the air gap: signed bundles, carried to a second mirror", func() error { return s.carry(ctx) }},
	} {
		s.chapter(c.title)
		if err := c.tell(); err != nil {
			return fmt.Errorf("chapter %d: %w", s.chapters, err)
		}
	}
	fetched, err := s.mirror.metric("imgmirror_upstream_received_bytes_total")
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\n%s\n", s.paint(green, fmt.Sprintf("%d figures, all as expected, in %s", s.figures, time.Since(start).Round(time.Millisecond))))
	fmt.Fprintf(s.out, "The mirror has fetched %s, lists included, and served %s of image files.\n",
		humanize.Bytes(uint64(fetched)), humanize.Bytes(uint64(s.served)))
	return nil
}

// settled returns when the mirror has no download under way: a client has the last byte of a file
// a moment before the file is published.
func (m *Mirror) settled(ctx context.Context) error {
	for {
		running, err := m.metric("imgmirror_fills_inflight")
		if err != nil || running == 0 {
			return err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// metric adds up a counter or a gauge of the mirror over its labels.
func (m *Mirror) metric(name string) (sum int64, err error) {
	families, err := m.Metrics.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += int64(m.GetCounter().GetValue() + m.GetGauge().GetValue())
		}
		return sum, nil
	}
	return 0, fmt.Errorf("no metric %s", name)
}
