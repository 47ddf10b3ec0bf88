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
	"strings"
	"syscall"
	"time"
)

// child is a program that we run. It does not outlive us where the system can see
// to that, and is killed with all that it started when its context ends.
type child struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{} // closed when it has ended and err is set
	err    error
}

// newChild prepares a program; it speaks English.
func newChild(ctx context.Context, program string, args ...string) *child {
	c := &child{cmd: exec.CommandContext(ctx, program, args...), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "LC_ALL=C")
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = childAttributes()
	c.cmd.Cancel = func() error { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }
	c.cmd.WaitDelay = 5 * time.Second // for what it started and left behind with its stderr
	return c
}

// start starts the program. Unless it fails, wait must follow.
func (c *child) start() error {
	started := make(chan error, 1)
	go func() {
		// A child is told of the death of the thread that made it, not of the
		// process: the thread must be there as long as the child.
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

// wait waits for the program's end. The error is a *failure, or why ctx ended.
func (c *child) wait(ctx context.Context) error {
	<-c.done
	if c.err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &failure{command: commandLine(c.cmd), said: strings.TrimSpace(c.stderr.String()), err: c.err}
}

// output runs a program to its end and gives what it wrote.
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

// failure is a program that ended with an error.
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

func commandLine(cmd *exec.Cmd) string {
	return filepath.Base(cmd.Path) + " " + strings.Join(cmd.Args[1:], " ")
}

// saidBy tells whether err is of a program that said one of these.
func saidBy(err error, words ...string) bool {
	var f *failure
	if !errors.As(err, &f) {
		return false
	}
	for _, w := range words {
		if strings.Contains(f.said, w) {
			return true
		}
	}
	return false
}

// sbin are the folders that hold zfs, and need not be in PATH.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// program finds zfs or zpool.
func (im *Importer) program(name string) (string, error) {
	if p := im.o.ZFSPath; p != "" {
		if info, err := os.Stat(p); err == nil && !info.IsDir() {
			p = filepath.Dir(p)
		}
		path, err := exec.LookPath(filepath.Join(p, name))
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoZFS, err)
		}
		return path, nil
	}
	path, err := exec.LookPath(name)
	for _, dir := range sbin {
		if err == nil {
			return path, nil
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%w: the program %s is neither in PATH nor in %s", ErrNoZFS, name, strings.Join(sbin, ", "))
}
