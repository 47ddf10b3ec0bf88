//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// lineRate is that of the limited source, in bytes a second, for all connections together.
const lineRate = 200_000_000

// colds are files that neither the mirror nor the caches have.
func colds(p plan) group {
	g := group{
		title: "Cold files",
		text: "A file that no cache has, another one in each round. The clients begin at the same moment; the time is over with the last byte of the last client, " +
			"connections included. The source is a C program with sendfile(2): without limit, or like a line of 200 MB/s. Varnish streams and keeps files in memory; nginx has " +
			"proxy_cache with a lock, so that its clients wait for the whole file. The mirror's CPU includes what comes after the last byte: all digests, the sync, and the record.",
	}
	for _, rate := range []int64{lineRate, 0} {
		for _, clients := range []int{1, 32} {
			s := scenario{
				name:     fmt.Sprintf("cold/%s/%d", map[int64]string{lineRate: "200MB", 0: "unlimited"}[rate], clients),
				fresh:    true,
				rounds:   p.cold,
				base:     "Varnish",
				measures: []measure{seconds, firstByte, cpuGiB, memory, generator},
				contenders: []contender{
					cold(ours, clients, func(ctx context.Context, l *lab) (*server, error) { return l.startMirror(ctx, rate, "") }),
					cold("Varnish", clients, func(ctx context.Context, l *lab) (*server, error) { return l.varnish(ctx, rate) }),
					cold("nginx proxy_cache", clients, func(ctx context.Context, l *lab) (*server, error) { return l.nginxCache(ctx, rate) }),
					direct(rate),
				},
			}
			limit := 1.0
			if rate == 0 && clients == 1 {
				limit = 1.15
			}
			s.goals = append(s.goals, goal{measure: seconds, to: "Varnish", limit: limit})
			if rate > 0 && !p.lean { // of a small file, what an answer costs beside its bytes is more than the goal leaves
				s.goals = append(s.goals, goal{measure: seconds, to: "direct, 1 client", limit: 1.05})
			}
			if clients > 1 {
				s.goals = append(s.goals, goal{measure: firstByte, to: "direct, 1 client", limit: 10, minus: true})
			}
			g.scenarios = append(g.scenarios, s)
		}
	}
	return g
}

// cold is a contender that fetches the file of the round from the source.
func cold(name string, clients int, start func(context.Context, *lab) (*server, error)) contender {
	return contender{name, func(ctx context.Context, l *lab, round int) (sample, error) {
		s, err := start(ctx, l)
		if err != nil {
			return nil, err
		}
		img := l.data.cold[round+1]
		var settled func(context.Context) error
		if s.admin != "" {
			settled = func(ctx context.Context) error {
				if err := s.awaitFile(ctx, img.sha1); err != nil {
					return err
				}
				return s.awaitStored(ctx, round+2)
			}
		}
		if err := l.quieten(img.size + 64<<20); err != nil {
			return nil, err
		}
		got, err := l.under(ctx, s, request{url: s.url + img.path(), clients: clients, length: img.size}, settled)
		if err == nil && round < 0 {
			err = check(ctx, s.url+img.path(), "", img.size, img.sha1)
		}
		if err == nil && s.admin != "" {
			err = hasMD5(ctx, s.url+img.path())
		}
		return got, err
	}}
}

// awaitFile waits until the mirror has put a file of that sum in its place, which is after the sync and before the record.
// The mirror is not asked: the answer with all metrics costs CPU, which is being measured, and a sync may last.
func (s *server) awaitFile(ctx context.Context, sum string) error {
	path := filepath.Join(s.dir, "data", "files", sum[:2], sum)
	return s.await(ctx, "file "+sum, func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// hasMD5 wants the mirror to know the md5 of a file: sha1 alone decides, and a cold run is over with all digests.
func hasMD5(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.Header.Get("Content-MD5") == "" {
		return fmt.Errorf("HEAD %s: status %d without Content-MD5", url, resp.StatusCode)
	}
	return nil
}

// direct is one client that asks the source itself.
func direct(rate int64) contender {
	return contender{"direct, 1 client", func(ctx context.Context, l *lab, round int) (sample, error) {
		source, err := l.source(ctx, rate)
		if err != nil {
			return nil, err
		}
		img := l.data.cold[round+1]
		got, err := l.under(ctx, source, request{url: source.url + img.path(), clients: 1, length: img.size}, nil)
		if err == nil && round < 0 {
			err = check(ctx, source.url+img.path(), "", img.size, img.sha1)
		}
		return got, err
	}}
}
