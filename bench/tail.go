//go:build linux

package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// The load beside which small answers are measured.
const (
	tailClients = 64 // that download the cached file
	tailHerd    = 32 // that wait for a cold file
	// tailAhead is how long the load runs before the small answers begin.
	tailAhead = 200 * time.Millisecond
)

// tails are small answers while the server is busy with large ones.
func tails(p plan) group {
	g := group{
		title: "Tail",
		text: "One client asks for small answers, one after the other: of a server that has nothing else to do, and of one that sends the cached file to 64 clients while 32 " +
			"more wait for a cold file, another one in each round. The load generators want the same processors as the server. What becomes of nginx under the 64 downloads stands beside.",
	}
	for _, kind := range []smallKind{
		{name: "ping", path: "/ping", file: "/ping"},
		{name: "304", path: "/images", file: "/list.json", unchanged: true},
		{name: "manifest", path: "", file: "/manifest.json"},
	} {
		g.scenarios = append(g.scenarios, scenario{
			name:     "tail/" + kind.name,
			fresh:    true,
			rounds:   p.few,
			base:     ours + ", idle",
			measures: []measure{perSecond, median50, p99},
			goals:    []goal{{measure: p99, to: ours + ", idle", limit: 3}},
			contenders: []contender{
				{ours, func(ctx context.Context, l *lab, round int) (sample, error) {
					s, err := l.startMirror(ctx, 0, "")
					if err != nil {
						return nil, err
					}
					return beside(ctx, l, kind.ofMirror(ours, 1, ""), s, l.data.cold[round+1], round)
				}},
				kind.ofMirror(ours+", idle", 1, ""),
				{"nginx", func(ctx context.Context, l *lab, round int) (sample, error) {
					root, err := l.static(ctx)
					if err != nil {
						return nil, err
					}
					s, err := l.nginx(ctx, root, plain)
					if err != nil {
						return nil, err
					}
					return beside(ctx, l, kind.ofNginx("nginx", 1, plain), s, image{}, round)
				}},
				kind.ofNginx("nginx, idle", 1, plain),
			},
		})
	}
	return g
}

// beside measures small answers while s sends the cached file, and a cold one unless cold is zero.
func beside(ctx context.Context, l *lab, small contender, s *server, cold image, round int) (got sample, err error) {
	if err := check(ctx, s.url+l.data.hit.path(), "", l.data.hit.size, l.data.hit.sha1); err != nil {
		return nil, err
	}
	if round < 0 {
		return small.run(ctx, l, round)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := l.ask(ctx, request{url: s.url + l.data.hit.path(), clients: tailClients, length: l.data.hit.size, seconds: tailAhead + 2*l.small})
		return err
	})
	if cold.size > 0 {
		g.Go(func() error {
			_, err := l.ask(ctx, request{url: s.url + cold.path(), clients: tailHerd, length: cold.size})
			return err
		})
	}
	g.Go(func() error {
		select {
		case <-time.After(tailAhead):
		case <-ctx.Done():
			return ctx.Err()
		}
		var err error
		got, err = small.run(ctx, l, round)
		return err
	})
	return got, g.Wait()
}
