//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// memories are what the mirror takes of the memory under its clients.
func memories(p plan) group {
	return group{
		title: "Memory",
		text: "64 clients that download the cached file, and many connections that have each been answered one manifest and stay open. The memory at 100,000 images is " +
			"in the part on growth.",
		scenarios: []scenario{
			{
				name: "memory/64 hits", fresh: true, rounds: p.few, base: "nginx", measures: []measure{memory}, goals: []goal{{measure: memory, limit: 90}},
				contenders: []contender{
					hit(ours, 64, func(ctx context.Context, l *lab) (*server, error) { return l.startMirror(ctx, 0, "") }),
					hit("nginx", 64, func(ctx context.Context, l *lab) (*server, error) { return l.nginx(ctx, l.data.dir, plain) }),
				},
			},
			{
				name: "memory/open connections", fresh: true, rounds: p.few, measures: []measure{memory, resting}, goals: []goal{{measure: memory, limit: 150}},
				contenders: []contender{{ours, openConnections}},
			},
		},
	}
}

// openConnections measures a mirror with connections between their requests.
func openConnections(ctx context.Context, l *lab, _ int) (got sample, err error) {
	s, err := l.startMirror(ctx, 0, "clients: {max_per_address: 0}")
	if err != nil {
		return nil, err
	}
	s.forgetPeak()
	path := "/images/" + l.data.hit.uuid
	for range l.connections {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", path); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close() //nolint:errcheck // read only
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d, %w", path, resp.StatusCode, err)
		}
	}
	if open := s.metric(ctx, "imgmirror_http_connections"); open < float64(l.connections) {
		return nil, fmt.Errorf("%g connections are open, of %d", open, l.connections)
	}
	return sample{memory.name: s.peak(), resting.name: s.resident("VmRSS:")}, nil
}
