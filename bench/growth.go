//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The costs that may grow with what the mirror has.
var (
	refreshing = measure{"refresh s", 3}
	listing    = measure{"list ms", 2}
	querying   = measure{"query ms", 2}
	paging     = measure{"page ms", 2}
	browsing   = measure{"first page for people ms", 1}
	starting   = measure{"start s", 3}
	evicting   = measure{"eviction s", 3}
	resting    = measure{"RSS at rest MB", 0}
)

// growths are the costs of one mirror, with more and more images, and with more and more files.
func growths(p plan) group {
	g := group{
		title: "Growth",
		text: "A mirror of one source that lists so many images, and one with so many cached files of 4 KiB. refresh is the first list of the source, from the " +
			"mirror's first answer to the last image; list is the whole of GET /images, query one name of 60, page 1000 images from the middle, each asked for again and again by one client. " +
			"A start lasts from exec to the first manifest, with the saved list. eviction: the limit falls by a fifth of the files.",
		more: exponents,
	}
	for _, n := range p.grownImages {
		s := scenario{
			name:       fmt.Sprintf("growth/images/%d", n),
			rounds:     p.few,
			measures:   []measure{refreshing, listing, querying, paging, browsing, starting, resting, memory},
			contenders: []contender{{ours, func(ctx context.Context, l *lab, round int) (sample, error) { return l.growImages(ctx, n, round) }}},
		}
		if n == 100_000 {
			s.goals = []goal{{measure: resting, limit: 283}, {measure: memory, limit: 335}, {measure: starting, limit: 1.5}}
		}
		g.scenarios = append(g.scenarios, s)
	}
	files := func(files, images int) scenario {
		return scenario{
			rounds:   p.few,
			measures: []measure{starting, evicting, resting, memory},
			contenders: []contender{{ours, func(ctx context.Context, l *lab, round int) (sample, error) {
				return l.growFiles(ctx, files, images, round)
			}}},
		}
	}
	for _, n := range p.grownFiles {
		s := files(n, n)
		s.name = fmt.Sprintf("growth/files/%d", n)
		g.scenarios = append(g.scenarios, s)
	}
	s := files(p.startFiles, p.startImages)
	s.name = fmt.Sprintf("start/%d files, %d images", p.startFiles, p.startImages)
	s.measures = []measure{starting, resting, memory}
	if p.startImages == 100_000 {
		s.goals = []goal{{measure: starting, limit: 1.5}}
	}
	g.scenarios = append(g.scenarios, s)
	return g
}

// grown starts a mirror of c with a data folder that prepare fills, and waits for an answer under the path ready.
func (l *lab) grown(ctx context.Context, c *catalogue, prepare func(data string) error, ready string) (*server, error) {
	source, err := l.sourceOf(ctx, c.dir, 0)
	if err != nil {
		return nil, err
	}
	return l.once("grown "+l.mirror, func(s *server) error {
		if err := prepare(filepath.Join(s.dir, "data")); err != nil {
			return err
		}
		admin, err := freePort()
		if err != nil {
			return err
		}
		s.admin = fmt.Sprintf("http://127.0.0.1:%d", admin)
		if _, err := s.fill("imgmirror.yaml", map[string]any{"AdminPort": admin, "Sources": []string{source.url}, "More": ""}); err != nil {
			return err
		}
		return l.again(ctx, s, ready)
	})
}

// again starts a mirror with the configuration of its folder.
func (l *lab) again(ctx context.Context, s *server, ready string) error {
	return launch(ctx, s, s.url+ready, l.mirror, "serve", "--config", filepath.Join(s.dir, "imgmirror.yaml"))
}

// end stops one server, and removes what it has.
func (l *lab) end(s *server) {
	for name, one := range l.servers {
		if one == s {
			delete(l.servers, name)
		}
	}
	s.stop()
	_ = os.RemoveAll(s.dir) // at the latest, the lab's folder goes with all
}

// has tells whether the mirror lists the last image of c.
func (s *server) has(ctx context.Context, c *catalogue) func() bool {
	last := c.ids[len(c.ids)-1]
	return func() bool { return answers(ctx, s.url+"/images?limit=1&marker="+last) }
}

// growImages measures a mirror of n images that has no file. Each round begins with a new mirror: the first needs no other
// before it.
func (l *lab) growImages(ctx context.Context, n, round int) (sample, error) {
	c, err := l.catalogue(n)
	if err != nil || round < 0 {
		return nil, err
	}
	s, err := l.grown(ctx, c, func(string) error { return nil }, "/ping")
	if err != nil {
		return nil, err
	}
	defer l.end(s)
	began := time.Now()
	if err := s.await(ctx, "the list", s.has(ctx, c)); err != nil {
		return nil, err
	}
	got := sample{refreshing.name: time.Since(began).Seconds()}
	if got[resting.name], err = s.rest(ctx); err != nil {
		return nil, err
	}
	got[memory.name] = s.peak()
	for m, path := range map[measure]string{
		listing: "/images", querying: "/images?name=bench-64-7", paging: fmt.Sprintf("/images?limit=1000&marker=%s", c.ids[n/2]),
	} {
		one, err := l.ask(ctx, request{url: s.url + path, clients: 1, length: -1, seconds: l.small / 4})
		if err != nil {
			return nil, err
		}
		got[m.name] = one.P50
	}
	began = time.Now()
	if page, err := fetch(ctx, s.url+"/ui/images", "", nil); err != nil || page.status != http.StatusOK {
		return nil, fmt.Errorf("/ui/images: status %d, %w", page.status, err)
	}
	got[browsing.name] = time.Since(began).Seconds() * 1000
	s.stop()
	began = time.Now()
	if err := l.again(ctx, s, "/images/"+c.ids[n-1]); err != nil {
		return nil, err
	}
	got[starting.name] = time.Since(began).Seconds()
	return got, nil
}

// growFiles measures a mirror of so many images that has files of the first of these.
func (l *lab) growFiles(ctx context.Context, files, images, round int) (sample, error) {
	c, err := l.catalogue(images)
	if err != nil {
		return nil, err
	}
	data, err := l.cached(ctx, c, files)
	if err != nil || round < 0 {
		return nil, err
	}
	began := time.Time{}
	s, err := l.grown(ctx, c, func(to string) error {
		if err := copyFolder(data, to); err != nil {
			return err
		}
		if err := l.quieten(256 << 20); err != nil {
			return err
		}
		began = time.Now()
		return nil
	}, "/images/"+c.ids[images-1])
	if err != nil {
		return nil, err
	}
	defer l.end(s)
	got := sample{starting.name: time.Since(began).Seconds()}
	if got[resting.name], err = s.rest(ctx); err != nil {
		return nil, err
	}
	got[memory.name] = s.peak()
	going := files / 5
	config := filepath.Join(s.dir, "imgmirror.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	// Down to the low water, which is 5 % below the limit, a fifth of the files goes.
	limit := fmt.Sprintf("min_free: 1MB, max_size: %d", int64(files-going)*tinyFile*20/19)
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), "min_free: 1MB", limit, 1)), 0o644); err != nil { //nolint:gosec // as it was
		return nil, err
	}
	began = time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return nil, err
	}
	err = s.await(ctx, "the eviction", func() bool { return s.metric(ctx, "imgmirror_evictions_total") >= float64(going-1) })
	got[evicting.name] = time.Since(began).Seconds()
	return got, err
}

// rest waits until a server does nothing any more, for ten seconds at most, and tells its memory in MB.
func (s *server) rest(ctx context.Context) (float64, error) {
	last, still := s.cpu(), 0
	for tries := 0; tries < 100 && still < 5; tries++ {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		now := s.cpu()
		if still++; now-last > 0.01 {
			still = 0
		}
		last = now
	}
	return s.resident("VmRSS:"), nil
}

// exponents is a table of the costs by size, with the exponent of the growth: 1 is linear.
func exponents(all []result) string {
	var b strings.Builder
	for _, kind := range []string{"images", "files"} {
		var sizes []float64
		var of []result
		for _, r := range all {
			var n float64
			if _, err := fmt.Sscanf(r.scenario.name, "growth/"+kind+"/%g", &n); err == nil {
				sizes, of = append(sizes, n), append(of, r)
			}
		}
		if len(of) < 2 {
			continue
		}
		fmt.Fprintf(&b, "\n| %s |", kind)
		for _, n := range sizes {
			fmt.Fprintf(&b, " %g |", n)
		}
		b.WriteString(" exponent | the last step alone |\n|---|" + strings.Repeat("---|", len(sizes)+2) + "\n")
		for _, m := range of[0].scenario.measures {
			var costs []float64
			fmt.Fprintf(&b, "| %s |", m.name)
			for _, r := range of {
				if values := r.values(ours, m); len(values) > 0 {
					costs = append(costs, median(values))
					fmt.Fprintf(&b, " %.*f |", m.digits, costs[len(costs)-1])
				}
			}
			if len(costs) == len(sizes) {
				last := len(sizes) - 2
				fmt.Fprintf(&b, " %.2f | %.2f |", exponent(sizes, costs), exponent(sizes[last:], costs[last:]))
			}
			b.WriteString("\n")
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\nExponents are of the least squares over the logarithms: 1 is linear, and n log n is 1.1 at these sizes. What costs the same at each size, like " +
		"the start of a process, makes them smaller; the last step has less of that.\n" + b.String()
}

// exponent of the power of n that costs follow, by least squares on the logarithms.
func exponent(n, costs []float64) float64 {
	var x, y, xx, xy float64
	for i := range n {
		lx, ly := math.Log(n[i]), math.Log(math.Max(costs[i], 1e-9))
		x, y, xx, xy = x+lx, y+ly, xx+lx*lx, xy+lx*ly
	}
	k := float64(len(n))
	return (k*xy - x*y) / (k*xx - x*x)
}
