// Command imgmirror is a caching pull-through mirror for SmartOS and Triton
// images. This package is the process: flags, wiring, signals, exit codes.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "0.0.0-dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code, so that every
// deferred call below it has run before the process ends.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signalContext(stderr)
	defer stop()

	root := newRootCmd()
	out := &checkedOutput{to: stdout}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.failed()
	}
	if err == nil {
		return 0
	}
	e := failure.Of(err)
	lines := strings.Split(strings.ReplaceAll(e.Error(), "\t", " "), "\n")
	for i, l := range lines {
		lines[i] = table.Printable(l)
	}
	tellError(cmd, stderr, fmt.Sprintf("%s: error (%s): %s\n", cmd.CommandPath(), e.Code, strings.Join(lines, "\n")))
	return e.Exit(manager(cmd))
}

// tellError writes the text of an error. A verb waits as long as a pager, or a stopped terminal, takes nothing. serve
// does not wait for a log that nothing reads.
func tellError(cmd *cobra.Command, stderr io.Writer, text string) {
	if cmd.Name() == "serve" {
		tell(stderr, text)
		return
	}
	_, _ = io.WriteString(stderr, text) // there is no other place to tell
}

// manager is what has started this process: no verb but serve is a service.
func manager(cmd *cobra.Command) failure.Manager {
	switch {
	case cmd.Name() != "serve":
		return failure.NoManager
	case os.Getenv("SMF_FMRI") != "":
		return failure.SMF
	case os.Getenv("NOTIFY_SOCKET") != "":
		return failure.Systemd
	default:
		return failure.NoManager
	}
}

// checkedOutput is the standard output. It remembers its first failure: a verb
// whose lines got lost has not done what it was asked to.
type checkedOutput struct {
	to io.Writer

	mu  sync.Mutex // guards err
	err error
}

func (o *checkedOutput) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = cmp.Or(o.err, err)
	}
	return n, err
}

// File is the file that the output goes to; nil: to none.
func (o *checkedOutput) File() *os.File {
	f, _ := o.to.(*os.File)
	return f
}

func (o *checkedOutput) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// newRootCmd builds the command tree. One file a verb.
func newRootCmd() *cobra.Command {
	root := verbGroup("imgmirror", "A caching pull-through mirror for SmartOS and Triton images")
	root.Version, root.SilenceErrors, root.SilenceUsage = version, true, true
	root.SetVersionTemplate("imgmirror {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &failure.Error{Code: failure.CodeUsage, Err: nearFlag(cmd, err)}
	})
	flags := root.PersistentFlags()
	flags.String("config", "", "configuration `FILE` (default "+config.DefaultFile+" if it exists)")
	flags.String("data-dir", "", "data `FOLDER`")
	root.AddCommand(
		newServeCmd(), newDemoCmd(),
		newSourcesCmd(), newRefreshCmd(), newAvailCmd(), newShowCmd(), newAncestryCmd(),
		newStatusCmd(), newFillsCmd(), newJobsCmd(), newNodesCmd(),
		newListCmd(), newFetchCmd(), newPinCmd(), newUnpinCmd(), newDeleteCmd(), newVacuumCmd(), newVerifyCmd(),
		newPublishCmd(), newUnpublishCmd(), newManifestCmd(),
		newBundleCmd(),
		newInstallCmd(), newInstalledCmd(),
		newDoctorCmd(), newConfigCmd(), newTokenCmd(), newVersionCmd(), newCompletionCmd(), newManCmd(), newHealthcheckCmd(),
	)
	return root
}

// verbGroup is a command that only has verbs below it: without one of them the command prints its help.
func verbGroup(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return failure.Usage("%s", unknownVerb(cmd, args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(verbs...)
	return cmd
}

// imgadmVerbs are the verbs of imgadm that have another name here, and the verbs that do the like.
var imgadmVerbs = map[string]string{
	"import": "fetch (into the mirror) or install (into the zpool)",
	"get":    "show",
	"info":   "show",
	"images": "avail (all that is offered) or list (what is on disk)",
	"ls":     "list",
	"update": "refresh",
	"create": "manifest create and publish",
	"ping":   "doctor",
}

// unknownVerb says that cmd has no such verb, with the way on: imgadm's verb by its name here, the
// nearest name, or the command that lists all.
func unknownVerb(cmd *cobra.Command, typed string) string {
	if like := imgadmVerbs[typed]; like != "" && !cmd.HasParent() {
		return fmt.Sprintf("no verb %q: see %s", typed, like)
	}
	verbs := verbNames(cmd)
	text := table.Unknown("verb", typed, verbs)
	if table.Nearest(typed, verbs) == "" {
		text += fmt.Sprintf(": %s --help lists the verbs", cmd.CommandPath())
	}
	return text
}

// verbNames are the verbs below cmd that help shows.
func verbNames(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// nearFlag is err, of the flags of cmd, with the flag that was most likely meant.
func nearFlag(cmd *cobra.Command, err error) error {
	unknown := (*pflag.NotExistError)(nil)
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 { // of one letter: anything is near
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := table.Nearest(unknown.GetSpecifiedName(), names); near != "" {
		return fmt.Errorf("%w: did you mean --%s?", err, near)
	}
	return err
}

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "imgmirror %s (%s %s/%s)\n",
				version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// sameSignal is how soon after the first a signal is taken for the same wish:
// timeout(1), for one, signals its child and then the group that it is in.
const sameSignal = 200 * time.Millisecond

// stuckStderr is how long the end of the process waits for a pipe that nothing reads.
const stuckStderr = time.Second

// tell writes text, but waits for a pipe that nothing reads no longer than stuckStderr.
func tell(stderr io.Writer, text string) {
	told := make(chan struct{})
	go func() { // ends with the process, if the pipe is stuck
		defer close(told)
		_, _ = io.WriteString(stderr, text) // there is no other place to tell
	}()
	select {
	case <-told:
	case <-time.After(stuckStderr):
	}
}

// exitKey is the key of the function that beforeExit sets.
type exitKey struct{}

// beforeExit has f called before a second signal ends the process. f must not wait long. ctx is that of signalContext;
// another ctx knows no signals.
func beforeExit(ctx context.Context, f func() bool) {
	if before, ok := ctx.Value(exitKey{}).(*atomic.Pointer[func() bool]); ok {
		before.Store(&f)
	}
}

// signalContext ends at the first SIGINT or SIGTERM; a second one ends the
// process at once, for an operator who will not wait for open replies.
func signalContext(stderr io.Writer) (context.Context, func()) {
	var before atomic.Pointer[func() bool]
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), exitKey{}, &before))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		first := time.Now()
		cancel()
		for s := range signals {
			if time.Since(first) < sameSignal {
				continue
			}
			if end := before.Load(); end == nil || (*end)() {
				tell(stderr, fmt.Sprintf("imgmirror: %v again: ending at once\n", s))
			}
			os.Exit(failure.ExitFailure)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}
