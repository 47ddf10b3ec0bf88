//go:build linux

// Command bench measures the built mirror beside nginx, Varnish and a minimal C server, on this machine:
// hits, small answers and cold files. Contenders run in turns, round by round, so that a slow minute of the
// machine meets all of them; what counts is the median of the ratios of the rounds.
//
//	usage: go run ./bench [-quick] [-only REGEXP] [-rounds N] [-old REVISION|BINARY] [-o FILE] [-json FILE]
//
// README: docs/performance.md. The programs come from `e2e/install.sh bench`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// plan is how much is measured.
type plan struct {
	rounds   int
	hit      time.Duration // of one run against a cached file
	small    time.Duration // of one run of small answers
	hitSize  int64         // of the file of hits, in bytes
	coldSize int64         // of each cold file, in bytes
	images   int           // in the list

	grownImages, grownFiles []int // sizes of the mirrors that grow
	startFiles, startImages int   // of the mirror that starts
	connections             int   // that are open and idle
	few                     int   // rounds of what takes long
	cold, ranges            int   // rounds of cold files, and of ranges; 0: as many as of the others
	rest                    bool  // the disk comes to rest before each cold run
	lean                    bool  // only the contenders of ratios and goals

	timed    []string // the benchmarks of e2e that run too
	bundleMB int      // of the bundle in timed
}

var (
	full = plan{rounds: 5, hit: 2 * time.Second, small: 2 * time.Second, hitSize: 256 << 20, coldSize: 256 << 20, images: 1000,
		grownImages: []int{1000, 10_000, 100_000}, grownFiles: []int{1000, 10_000, 100_000}, startFiles: 10_000, startImages: 100_000, connections: 2000, few: 3, rest: true,
		timed: []string{"bundle", "install", "crowd", "pages", "dashboards"}, bundleMB: 512}
	// All groups together take less than three minutes, on two cores that do nothing else.
	quick = plan{rounds: 3, hit: 300 * time.Millisecond, small: 250 * time.Millisecond, hitSize: 128 << 20, coldSize: 64 << 20, images: 1000,
		grownImages: []int{300, 1000, 3000}, grownFiles: []int{100, 300, 1000}, startFiles: 300, startImages: 3000, connections: 2000, few: 1, cold: 1, ranges: 1, rest: true, lean: true,
		timed: []string{"bundle", "crowd"}, bundleMB: 64}
)

// options are those of the command line.
type options struct {
	plan
	only   *regexp.Regexp
	mirror string // a built mirror; "": the bench builds one
	old    string // a revision or a binary: compare the mirror with this one only; "": compare with other servers
	report string // file of the report; "": none
	json   string // file of all figures; "": none
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	results, err := compare(ctx, o)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		if len(results) == 0 {
			return err
		}
		o.report = "" // no document gets half a report
	}
	// What was measured before an error is told all the same; the machine has nothing to do with the error.
	return errors.Join(err, report{describeMachine(context.WithoutCancel(ctx)), o.describe(time.Since(began)), results}.publish(o, stdout))
}

// compare runs the scenarios that the options pick.
func compare(ctx context.Context, o options) ([]groupResult, error) {
	began := time.Now()
	l, err := newLab(ctx, o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	tell("programs and data", began)
	all := groups(o.plan)
	if o.old != "" {
		began := time.Now()
		binary, err := l.revision(ctx, o.old)
		if err != nil {
			return nil, err
		}
		tell("the mirror of "+o.old, began)
		all = l.pairs(all, filepath.Base(o.old), binary)
	}
	return l.measure(ctx, all, o.only)
}

// describe tells what was run, in how long.
func (p plan) describe(took time.Duration) string {
	text := count(p.rounds, "round") + ", "
	if p.lean {
		text = fmt.Sprintf("quick, %s at most, hits of %s, cold files of %s; goals are those of %s and %s, ", count(p.rounds, "round"),
			mebibytes(p.hitSize), mebibytes(p.coldSize), mebibytes(full.hitSize), mebibytes(full.coldSize))
	}
	return text + took.Round(time.Second).String() + " in all"
}

// tell tells on stderr how long a part of the run took.
func tell(part string, began time.Time) {
	fmt.Fprintf(os.Stderr, "%s: %.1f s\n", part, time.Since(began).Seconds())
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func parse(args []string) (options, error) {
	o := options{plan: full}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	isQuick := flags.Bool("quick", false, "fewer and shorter rounds")
	only := flags.String("only", "", "the scenarios whose name matches this `REGEXP`, such as ^small/list")
	rounds := flags.Int("rounds", 0, "`N` rounds")
	flags.StringVar(&o.mirror, "mirror", "", "a built imgmirror, instead of one of this checkout")
	flags.StringVar(&o.old, "old", "", "compare with this `REVISION` of the mirror, or with this binary")
	flags.StringVar(&o.report, "o", "", "write the report to `FILE` too, between its markers")
	flags.StringVar(&o.json, "json", "", "write all figures to `FILE`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q", flags.Arg(0))
	}
	if *isQuick {
		o.plan = quick
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}
	var err error
	o.only, err = regexp.Compile(*only)
	return o, err
}
