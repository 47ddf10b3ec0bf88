// Command imgmirror is a caching pull-through mirror for SmartOS and Triton
// images. This package is the process: flags, wiring, signals, exit codes.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "0.0.0-dev"

// Exit codes (docs/design.md, "Commands"). The last two are what SMF takes for
// "do not restart me".
const (
	exitFailure   = 1
	exitUsage     = 2
	exitSMFFatal  = 95
	exitSMFConfig = 96
)

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
	e := asVerbError(err)
	name := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "imgmirror"), " ")
	if name == "" {
		fmt.Fprintf(stderr, "imgmirror: error (%s): %s\n", e.code, printableLines(e.Error()))
	} else {
		fmt.Fprintf(stderr, "imgmirror %s: error (%s): %s\n", name, e.code, printableLines(e.Error()))
	}
	return e.exit(cmd.Name() == "serve" && os.Getenv("SMF_FMRI") != "")
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

func (o *checkedOutput) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// newRootCmd builds the command tree. One file a verb.
func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:           "imgmirror",
		Short:         "A caching pull-through mirror for SmartOS and Triton images",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetVersionTemplate("imgmirror {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &verbError{code: codeUsage, err: err}
	})
	flags := root.PersistentFlags()
	flags.String("config", "", "configuration `FILE` (default "+config.DefaultFile+" if it exists)")
	flags.String("data-dir", "", "data `FOLDER`")
	root.AddCommand(
		newServeCmd(), newDemoCmd(),
		newSourcesCmd(), newAvailCmd(), newShowCmd(), newAncestryCmd(),
		newListCmd(), newFetchCmd(), newPinCmd(), newUnpinCmd(), newDeleteCmd(), newVacuumCmd(), newVerifyCmd(),
		newPublishCmd(), newUnpublishCmd(), newManifestCmd(),
		newBundleCmd(),
		newInstallCmd(), newInstalledCmd(),
		newDoctorCmd(), newConfigCmd(), newVersionCmd(), newCompletionCmd(), newManCmd(), newHealthcheckCmd(),
	)
	return root
}

// Error codes printed in parentheses, in imgadm's manner.
const (
	codeUsage    = "Usage"
	codeConfig   = "InvalidConfig"
	codeFile     = "FileSystemError"
	codeInternal = "InternalError"
)

// verbError is an error with the code it is printed with.
type verbError struct {
	code string
	err  error
}

func (e *verbError) Error() string { return e.err.Error() }
func (e *verbError) Unwrap() error { return e.err }

// exit is the process's exit code for e; smf tells that SMF started us.
func (e *verbError) exit(smf bool) int {
	switch {
	case e.code == codeUsage:
		return exitUsage
	case smf && e.code == codeConfig:
		return exitSMFConfig
	case smf:
		return exitSMFFatal
	default:
		return exitFailure
	}
}

func asVerbError(err error) *verbError {
	var e *verbError
	if errors.As(err, &e) {
		return e
	}
	// What the mirror answered.
	if told := (*admin.Error)(nil); errors.As(err, &told) {
		return &verbError{code: told.Code, err: told}
	}
	if errors.Is(err, context.Canceled) {
		return &verbError{code: "Interrupted", err: err}
	}
	if gone := (*url.Error)(nil); errors.As(err, &gone) {
		return &verbError{code: "NoAnswer", err: err}
	}
	if file := (*fs.PathError)(nil); errors.As(err, &file) {
		return &verbError{code: codeFile, err: err}
	}
	// What cobra itself refuses (an unknown verb) reaches us untyped.
	if strings.HasPrefix(err.Error(), "unknown command") {
		return &verbError{code: codeUsage, err: err}
	}
	return &verbError{code: codeInternal, err: err}
}

// failure is an error with its code.
func failure(code, format string, args ...any) error {
	return &verbError{code: code, err: fmt.Errorf(format, args...)}
}

// noArgs refuses positional arguments as a usage error.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &verbError{code: codeUsage, err: fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// sameSignal is how soon after the first a signal is taken for the same wish:
// timeout(1), for one, signals its child and then the group that it is in.
const sameSignal = 200 * time.Millisecond

// signalContext ends at the first SIGINT or SIGTERM; a second one ends the
// process at once, for an operator who will not wait for open replies.
func signalContext(stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
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
			fmt.Fprintf(stderr, "imgmirror: %v again: ending at once\n", s)
			os.Exit(exitFailure)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}
