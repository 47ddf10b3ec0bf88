//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// byE2E names the mirror as the harness of e2e runs it. The harness is the checkout's: comparisons of revisions leave it out.
const byE2E = "the mirror in e2e"

// timed are the timed tests of the folder e2e, which need its harness: pools, browsers' requests, bundles. Each
// compares two things within one run. All of them together take minutes: a plan names its benchmarks.
func timed(p plan) group {
	g := group{
		title: "Whole ways",
		text: "Benchmarks of the folder e2e, each once a round. bundle: " + fmt.Sprint(p.bundleMB) + " MB out and in again, to the time that `cp` and `sha1sum` of the same bytes take. install: an image " +
			"that is not cached, to the slower of its two steps, download and receive, by itself. crowd: clients that come together for one cold file, the last of them to one client of " +
			"the source itself. pages: the web page, of 100,000 images and 10,000 nodes. dashboards: hits and manifests while ten browsers watch, to a mirror without page and journal.",
	}
	for _, t := range []struct {
		name, benchmark string
		units           []string
	}{
		{"bundle", "Bundle", []string{"export/cp+sha1sum", "import/cp+sha1sum"}},
		{"install", "Install", []string{"install/slower-step"}},
		{"crowd", "Crowd", []string{"last/direct", "ms-to-last-first-byte"}},
		{"pages", "Pages", []string{"ms-images", "ms-images-last", "ms-search", "ms-search-uuid", "ms-image", "ms-overview", "ms-op-nodes"}},
		{"dashboards", "Dashboards", []string{"hits-watched/bare", "small-watched/bare"}},
	} {
		if !slices.Contains(p.timed, t.name) {
			continue
		}
		s := scenario{name: "timed/" + t.name}
		if p.lean {
			s.rounds = 1
		}
		for _, unit := range t.units {
			s.measures = append(s.measures, measure{unit, 2})
		}
		s.contenders = []contender{{byE2E, func(ctx context.Context, l *lab, round int) (sample, error) {
			if round < 0 { // a benchmark warms up by itself
				return nil, nil
			}
			return l.benchmark(ctx, t.benchmark)
		}}}
		g.scenarios = append(g.scenarios, s)
	}
	return g
}

// benchmark runs one benchmark of e2e on the mirror of the lab, and gives what the benchmark reports. The tests are
// compiled once.
func (l *lab) benchmark(ctx context.Context, name string) (sample, error) {
	root, err := moduleRoot(ctx, ".")
	if err != nil {
		return nil, err
	}
	program := filepath.Join(l.dir, "e2e.test")
	if _, err := os.Stat(program); err != nil {
		build := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./e2e")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", build, err, out)
		}
	}
	cmd := together(exec.CommandContext(ctx, program, "-test.run", "^$", "-test.bench", "^Benchmark"+name+"$", "-test.benchtime", "1x", "-test.v"))
	cmd.Dir = filepath.Join(root, "e2e")
	cmd.Env = append(os.Environ(), "E2E_IMGMIRROR="+l.mirror, fmt.Sprintf("E2E_BUNDLE_MB=%d", l.bundleMB))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	if strings.Contains(string(out), "--- SKIP: Benchmark"+name) {
		return nil, fmt.Errorf("%w:\n%s", errUnsupported, out) // a program is missing; -test.v has the reason
	}
	got := reported(string(out), name)
	if len(got) == 0 {
		return nil, fmt.Errorf("%s reports nothing:\n%s", cmd, out)
	}
	return got, nil
}

// together has the end of cmd's context end all that cmd has started: go test by itself leaves its test behind, and the
// test its servers.
func together(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	return cmd
}

// reported reads the line of a benchmark: its name, how often it ran, then values with their units.
func reported(text, name string) sample {
	got := sample{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || strings.SplitN(fields[0], "-", 2)[0] != "Benchmark"+name {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				got[fields[i+1]] = v
			}
		}
	}
	return got
}
