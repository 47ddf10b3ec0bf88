//go:build linux

package main

import (
	"context"
	"fmt"
	"os/user"
	"path/filepath"
)

// The rates of sources that limit each connection, in bytes a second.
const (
	connectionRate = 20_000_000
	fastRate       = connectionRate / 2 // two connections: 20 MB/s in all
	slowRate       = fastRate / 4
)

// ranges are cold files of sources that limit each connection.
func ranges(p plan) group {
	one, fast := ours+", 1 stream", ours+", the faster source alone"
	return group{
		title: "Several ranges at once",
		text: "A cold file of nginx as the source, with a limit for each connection, and one client. The mirror asks for four ranges at the same time (`fill.streams: 4`), " +
			"or for the file in one request. Then the mirror has two sources, and asks each for two ranges at the same time: one source gives 20 MB/s with two connections, the other 5 MB/s.",
		scenarios: []scenario{
			{
				name: "ranges/20MB", fresh: true, rounds: p.ranges, base: one,
				measures:   []measure{seconds, firstByte, cpuGiB, memory},
				contenders: []contender{ranged(ours, 4, connectionRate), ranged(one, 1, connectionRate)},
				goals:      []goal{{measure: seconds, to: one, limit: 0.263}},
			},
			{
				name: "ranges/20MB+5MB", fresh: true, rounds: p.ranges, base: fast,
				measures:   []measure{seconds, firstByte, cpuGiB, memory},
				contenders: []contender{ranged(ours, 2, fastRate, slowRate), ranged(fast, 2, fastRate)},
				goals:      []goal{{measure: seconds, to: fast, limit: 0.869}},
			},
		},
	}
}

// ranged is the mirror with so many streams, on sources that limit each connection to these rates.
func ranged(name string, streams int, rates ...int64) contender {
	return cold(name, 1, func(ctx context.Context, l *lab) (*server, error) {
		var sources []string
		for _, rate := range rates {
			s, err := l.limited(ctx, rate)
			if err != nil {
				return nil, err
			}
			sources = append(sources, s.url)
		}
		return l.mirrorOf(ctx, sources, fmt.Sprintf("fill: {streams: %d}", streams))
	})
}

// limited starts an image server that limits each connection to that many bytes a second.
func (l *lab) limited(ctx context.Context, rate int64) (*server, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	return l.once(fmt.Sprintf("limited %d", rate), func(s *server) error {
		config, err := s.fill("limited.conf", map[string]any{"User": me.Username, "Root": l.data.dir, "Rate": rate})
		if err != nil {
			return err
		}
		return launch(ctx, s, s.url+"/ping", "nginx", "-e", filepath.Join(s.dir, "error.log"), "-c", config)
	})
}
