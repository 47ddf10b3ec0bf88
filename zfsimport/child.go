package zfsimport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// child is a running program. The end of its context kills the program with all that the program
// has started. Where the system can see to this, the program ends with this process.
type child struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{} // closed when the program has ended and err is set
	err    error
}

// newChild prepares a program, whose messages are in English.
func newChild(ctx context.Context, program string, args ...string) *child {
	c := &child{cmd: exec.CommandContext(ctx, program, args...), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "LC_ALL=C")
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = childAttributes()
	c.cmd.Cancel = func() error { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }
	c.cmd.WaitDelay = 5 * time.Second // for programs that the child left behind with its stderr
	return c
}

// start starts the program. wait must follow, unless start fails.
func (c *child) start() error {
	started := make(chan error, 1)
	go func() {
		// The system tells a child of the end of the thread that made the child, and not of the
		// process: the thread must stay as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
		}
	}()
	return <-started
}

// wait waits for the program's end. The error is a *failure, or the cause of the end of ctx.
func (c *child) wait(ctx context.Context) error {
	<-c.done
	if c.err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	command := filepath.Base(c.cmd.Path) + " " + strings.Join(c.cmd.Args[1:], " ")
	return &failure{command: command, said: strings.TrimSpace(c.stderr.String()), err: c.err}
}

// output runs a program to its end and gives its stdout.
func output(ctx context.Context, program string, args ...string) (string, error) {
	c := newChild(ctx, program, args...)
	var out strings.Builder
	c.cmd.Stdout = &out
	if err := c.start(); err != nil {
		return "", err
	}
	err := c.wait(ctx)
	return out.String(), err
}

// failure is the error of a program that ended with one.
type failure struct {
	command string
	said    string // all of its stderr
	err     error
}

// Error gives the first line of what the program said.
func (f *failure) Error() string {
	line, _, _ := strings.Cut(f.said, "\n")
	if line == "" {
		line = f.err.Error()
	}
	return f.command + ": " + line
}

func (f *failure) Unwrap() error { return f.err }

// saidBy tells whether err is the failure of a program that said one of words.
func saidBy(err error, words ...string) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && slices.ContainsFunc(words, func(w string) bool { return strings.Contains(f.said, w) })
}

// sbin are the usual folders of zfs beside PATH.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// program finds zfs or zpool.
func (im *Importer) program(name string) (string, error) {
	folders := append([]string{""}, sbin...) // "" is PATH
	if p := im.o.ZFSPath; p != "" {
		if info, err := os.Stat(p); err == nil && !info.IsDir() {
			p = filepath.Dir(p)
		}
		folders = []string{p}
	}
	var fault error
	for _, folder := range folders {
		path, err := exec.LookPath(filepath.Join(folder, name))
		if err == nil {
			return path, nil
		}
		fault = err
	}
	if im.o.ZFSPath == "" {
		fault = fmt.Errorf("the program %s is neither in PATH nor in %s", name, strings.Join(sbin, ", "))
	}
	return "", fmt.Errorf("%w: %w", ErrNoZFS, fault)
}
