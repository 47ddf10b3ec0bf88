//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// hits are downloads of a file that the mirror has.
func hits(p plan) group {
	g := group{
		title: "Hits",
		text: "One file of " + mebibytes(p.hitSize) + " that is in the page cache. Each client asks again as soon as an answer is complete. nginx is static, with sendfile. " +
			"The C server is the least that a file server can do: open(2), a header, sendfile(2); a thread a core.",
	}
	for _, s := range []struct {
		clients              int
		speed, cpu, limitOfC float64
	}{{1, 1.25, 0.75, 0.9}, {8, 1.2, 0.70, 0.9}, {64, 1.3, 0.62, 0.9}} {
		g.scenarios = append(g.scenarios, scenario{
			name:     fmt.Sprintf("hit/%d", s.clients),
			base:     "nginx",
			measures: []measure{megabytes, cpuGiB, memory, generator},
			goals: []goal{
				{measure: megabytes, to: "nginx", limit: s.speed, atLeast: true},
				{measure: megabytes, to: "C sendfile", limit: s.limitOfC, atLeast: true},
				{measure: cpuGiB, to: "nginx", limit: s.cpu},
			},
			contenders: []contender{
				hit(ours, s.clients, func(ctx context.Context, l *lab) (*server, error) { return l.startMirror(ctx, 0, "") }),
				hit("nginx", s.clients, func(ctx context.Context, l *lab) (*server, error) { return l.nginx(ctx, l.data.dir, plain) }),
				hit("nginx, buffered log", s.clients, func(ctx context.Context, l *lab) (*server, error) { return l.nginx(ctx, l.data.dir, bufferedLog) }),
				hit("C sendfile", s.clients, func(ctx context.Context, l *lab) (*server, error) { return l.sendfile(ctx) }),
			},
		})
	}
	return g
}

// hit is a contender that has a file under the image's path.
func hit(name string, clients int, start func(context.Context, *lab) (*server, error)) contender {
	return contender{name, func(ctx context.Context, l *lab, round int) (sample, error) {
		s, err := start(ctx, l)
		if err != nil {
			return nil, err
		}
		url := s.url + l.data.hit.path()
		if round < 0 {
			if err := check(ctx, url, "", l.data.hit.size, l.data.hit.sha1); err != nil {
				return nil, err
			}
			if s.admin != "" {
				if err := s.awaitStored(ctx, 1); err != nil {
					return nil, err
				}
			}
		}
		return l.under(ctx, s, request{url: url, clients: clients, length: l.data.hit.size, seconds: l.hit}, nil)
	}}
}

// awaitStored waits until the mirror has recorded n files, which is after their last byte has been sent. It asks
// seldom: the mirror's CPU is being measured.
func (s *server) awaitStored(ctx context.Context, n int) error {
	return s.awaitEach(ctx, 100*time.Millisecond, fmt.Sprintf("%d files in the store", n), func() bool { return s.metric(ctx, "imgmirror_cache_files") >= float64(n) })
}
