//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// group is scenarios that share servers: the servers that a lab has started are stopped when the group is over.
type group struct {
	title     string
	text      string // of the report, one paragraph
	scenarios []scenario
	more      func([]result) string // what stands below the table of the report; nil: nothing
}

// scenario is one situation, in which each contender runs once a round.
type scenario struct {
	name       string // such as hit/64: -only picks by this name
	fresh      bool   // servers of the scenario before are stopped: caches begin empty
	rounds     int    // at most so many, for what takes long; 0: as many as the plan has
	base       string // the contender that the others are compared with
	measures   []measure
	goals      []goal
	contenders []contender
}

// contender is one server, or one way to ask it.
type contender struct {
	name string // a contender of the mirror has a name that begins with ours
	// run measures once. Round -1 comes first and is for starting, checking bytes and warming up: its sample is dropped.
	run func(ctx context.Context, l *lab, round int) (sample, error)
}

// ours begins the names of the contenders that are the mirror.
const ours = "imgmirror"

// sample is what one run gave: the figure of each measure, by the measure's name. A measure may be missing.
type sample map[string]float64

// measure is a figure that scenarios report.
type measure struct {
	name   string
	digits int // behind the point
}

var (
	megabytes  = measure{"MB/s", 0}
	perSecond  = measure{"requests/s", 0}
	seconds    = measure{"s", 2}
	median50   = measure{"p50 ms", 3}
	p99        = measure{"p99 ms", 3}
	firstByte  = measure{"first byte ms", 1} // of the client that waits longest
	cpuGiB     = measure{"CPU s/GiB", 3}
	cpuRequest = measure{"CPU µs/request", 1}
	memory     = measure{"RSS MB", 0}
	generator  = measure{"load CPU %", 0} // of one core: the load generator has one thread
)

// goal is what a ratio of the mirror shall be.
type goal struct {
	measure measure
	to      string  // the contender that the mirror is compared with; "": the figure itself counts
	limit   float64 // at least, if atLeast; else at most
	atLeast bool
	// minus has the difference count instead of the ratio.
	minus bool
}

// result is what the rounds of a scenario gave.
type result struct {
	scenario scenario
	samples  map[string][]sample // by contender, one a round
}

// values are the figures of one contender, one a round; none if the contender has no such measure.
func (r result) values(contender string, m measure) (all []float64) {
	for _, s := range r.samples[contender] {
		if v, ok := s[m.name]; ok {
			all = append(all, v)
		}
	}
	return all
}

// groupResult is what a group gave.
type groupResult struct {
	group   group
	results []result
}

// measure runs the scenarios whose names match only. With an error come the results before it.
func (l *lab) measure(ctx context.Context, all []group, only *regexp.Regexp) (done []groupResult, err error) {
	for _, g := range all {
		r, began := groupResult{group: g}, time.Now()
		for _, s := range g.scenarios {
			if !only.MatchString(s.name) {
				continue
			}
			if s.fresh {
				l.stop()
			}
			fmt.Fprintf(os.Stderr, "%s ", s.name)
			one, err := l.run(ctx, s)
			fmt.Fprintln(os.Stderr)
			if err != nil {
				return with(done, r), fmt.Errorf("%s: %w", s.name, err)
			}
			r.results = append(r.results, one)
		}
		l.stop()
		if len(r.results) > 0 {
			tell(g.title, began)
		}
		done = with(done, r)
	}
	return done, nil
}

// with adds a group that has results.
func with(done []groupResult, g groupResult) []groupResult {
	if len(g.results) == 0 {
		return done
	}
	return append(done, g)
}

// run runs each contender once a round, another one first in each round.
func (l *lab) run(ctx context.Context, s scenario) (result, error) {
	r := result{s, map[string][]sample{}}
	rounds := l.rounds
	if s.rounds > 0 {
		rounds = min(rounds, s.rounds)
	}
	for round := -1; round < rounds; round++ {
		all := r.scenario.contenders
		if len(all) == 0 {
			break
		}
		first := max(round, 0) % len(all)
		for _, c := range slices.Concat(all[first:], all[:first]) {
			got, err := c.run(ctx, l, round)
			if round <= 0 && errors.Is(err, errUnsupported) {
				fmt.Fprintf(os.Stderr, "(without %s: %s) ", c.name, strings.Join(strings.Fields(err.Error()), " "))
				r.scenario.contenders = slices.DeleteFunc(slices.Clone(r.scenario.contenders), func(o contender) bool { return o.name == c.name })
				continue
			}
			if err != nil {
				return r, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= 0 {
				r.samples[c.name] = append(r.samples[c.name], got)
			}
		}
		fmt.Fprint(os.Stderr, ".")
	}
	return r, nil
}

// isOurs tells whether a contender is the mirror.
func (c contender) isOurs() bool { return strings.HasPrefix(c.name, ours) }

// groups are all scenarios, in the order of the report. Each group has a file of its own.
func groups(p plan) []group {
	all := []group{hits(p), smalls(), colds(p), ranges(p), tails(p), memories(p), growths(p), timed(p)}
	if p.lean {
		for _, g := range all {
			for i := range g.scenarios {
				g.scenarios[i].contenders = g.scenarios[i].compared()
			}
		}
	}
	return all
}

// compared are the contenders that a ratio or a goal of the mirror is about; all, if there is no base.
func (s scenario) compared() []contender {
	return slices.DeleteFunc(slices.Clone(s.contenders), func(c contender) bool {
		return s.base != "" && c.name != ours && c.name != s.base && !slices.ContainsFunc(s.goals, func(g goal) bool { return g.to == c.name })
	})
}
