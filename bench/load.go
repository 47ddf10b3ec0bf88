//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// request is what clients ask for.
type request struct {
	url     string
	clients int
	header  string        // "Name: value"; "": none
	status  int           // 0: 200
	length  int64         // of the body; -1: any
	seconds time.Duration // 0: each client asks once
}

// loaded is what load.c prints: times in seconds, latencies in milliseconds.
type loaded struct {
	Requests, Bytes, Errors, Reconnects int64
	Seconds, CPU, P50, P99, Max         float64
	FirstP50                            float64 `json:"first_p50"`
	FirstMax                            float64 `json:"first_max"`
	Fault                               string
}

// ask runs the load generator.
func (l *lab) ask(ctx context.Context, r request) (loaded, error) {
	args := []string{"-clients", strconv.Itoa(r.clients), "-length", strconv.FormatInt(r.length, 10)}
	if r.seconds == 0 {
		args = append(args, "-once")
	} else {
		args = append(args, "-seconds", fmt.Sprintf("%.3f", r.seconds.Seconds()))
	}
	if r.header != "" {
		args = append(args, "-header", r.header)
	}
	if r.status != 0 {
		args = append(args, "-status", strconv.Itoa(r.status))
	}
	cmd := exec.CommandContext(ctx, l.tools.load, append(args, r.url)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return loaded{}, fmt.Errorf("load %s: %w: %s", r.url, err, stderr.String())
	}
	var got loaded
	if err := json.Unmarshal(out, &got); err != nil {
		return loaded{}, fmt.Errorf("load %s: %w: %s", r.url, err, out)
	}
	if got.Errors > 0 {
		return got, fmt.Errorf("load %s: %s", r.url, got.Fault)
	}
	return got, nil
}

// under puts a server under load. settled, which may be nil, waits for what the server does after the last byte:
// that work counts as the server's, too.
func (l *lab) under(ctx context.Context, s *server, r request, settled func(context.Context) error) (sample, error) {
	s.forgetPeak()
	before := s.cpu()
	got, err := l.ask(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, s.tail())
	}
	if settled != nil {
		if err := settled(ctx); err != nil {
			return nil, err
		}
	}
	cpu := s.cpu() - before
	return sample{
		megabytes.name:  float64(got.Bytes) / 1e6 / got.Seconds,
		perSecond.name:  float64(got.Requests) / got.Seconds,
		seconds.name:    got.Seconds,
		median50.name:   got.P50,
		p99.name:        got.P99,
		firstByte.name:  got.FirstMax,
		cpuGiB.name:     cpu / (float64(got.Bytes) / (1 << 30)),
		cpuRequest.name: cpu / float64(max(got.Requests, 1)) * 1e6,
		memory.name:     s.peak(),
		generator.name:  got.CPU / got.Seconds * 100,
	}, nil
}
