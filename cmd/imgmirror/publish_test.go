package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// verb runs a verb and gives its exit code and what it wrote.
func verb(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func createArgs(file string, more ...string) []string {
	return append([]string{"manifest", "create", "-f", file, "--name", "mine", "--version", "1", "--os", "smartos", "--type", "zone-dataset"}, more...)
}

// An all zero origin is no origin: the manifest would be that of a full image.
func TestManifestCreateZeroOrigin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.zfs")
	if err := os.WriteFile(file, []byte("a stream"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := verb(createArgs(file, "--origin", "00000000-0000-0000-0000-000000000000")...)
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "--origin") {
		t.Errorf("exit %d, stdout %q, stderr %q; want %d, nothing, and a word on --origin", code, stdout, stderr, exitUsage)
	}
}

// A folder is told from a file before a mirror is asked.
func TestPublishFolder(t *testing.T) {
	dir := t.TempDir()
	file, text, data := filepath.Join(dir, "mine.zfs"), filepath.Join(dir, "mine.json"), filepath.Join(dir, "data")
	if err := os.WriteFile(file, []byte("a stream"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := verb(createArgs(file)...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if err := os.WriteFile(text, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = verb("publish", "-m", text, "-f", dir, "--data-dir", data)
	if code != exitFailure || !strings.Contains(stderr, "error (InvalidParameter): "+dir+" is a folder") {
		t.Errorf("exit %d, stderr %q; want %d and that it is a folder", code, stderr, exitFailure)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a data folder was made")
	}
}

// Ctrl-C ends a publish that waits for a pipe: for its writer, or for what that
// has to write.
func TestPublishFromPipeIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	file, text, pipe := filepath.Join(dir, "mine.zfs"), filepath.Join(dir, "mine.json"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte("a stream"), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, stdout, _ := verb(createArgs(file)...)
	if err := os.WriteFile(text, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	ends := func(phase string, during func(), args ...string) {
		t.Helper()
		ctx, interrupt := context.WithCancel(t.Context())
		root := newRootCmd()
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		root.SetArgs(append([]string{"publish", "--data-dir", filepath.Join(dir, "data")}, args...))
		done := make(chan error, 1)
		go func() { done <- root.ExecuteContext(ctx) }()
		during()
		interrupt()
		if err := <-done; asVerbError(err).code != "Interrupted" {
			t.Errorf("%s: %v", phase, err)
		}
	}
	var writer *os.File
	write := func() {
		var err error
		if writer, err = os.OpenFile(pipe, os.O_WRONLY, 0); err != nil { // waits for the reader
			t.Fatal(err)
		}
	}
	ends("its file has no writer", func() {}, "-m", text, "-f", pipe)
	ends("its manifest has no writer", func() {}, "-m", pipe, "-f", file)
	ends("its file's writer writes nothing", write, "-m", text, "-f", pipe)
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
}

// full is a standard output on a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
}

// A verb whose lines get lost has failed.
func TestOutputIsFull(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "imgmirror.yaml")
	text := fmt.Sprintf("data_dir: %s\nsources: [{name: samples, url: %s, kind: directory}]\n", filepath.Join(dir, "data"), sampleSource(t).URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--help"}, {"fetch", "--help"}, {"version"}, {"config", "check"},
		{"pin", "--config", file, sampleBase.String()}, {"fetch", "--config", file, sampleBase.String()},
	} {
		if code, stdout, stderr := verb(args...); code != 0 || stdout == "" {
			t.Errorf("%v: exit %d, stdout %q, %s", args, code, stdout, stderr)
		}
		var stderr bytes.Buffer
		if code := run(args, full{}, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "(FileSystemError): write /dev/stdout") {
			t.Errorf("%v: exit %d, want %d; %s", args, code, exitFailure, stderr.String())
		}
	}
}

// What goes wrong with a file on this machine is no fault of the mirror's.
func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	code, _, stderr := verb("publish", "-m", filepath.Join(dir, "none"), "-f", dir)
	if code != exitFailure || !strings.Contains(stderr, "error (FileSystemError): open "+dir) {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	code, _, stderr = verb("list", "--server", "http://127.0.0.1:1/foo?x")
	if code != exitUsage || !strings.Contains(stderr, "?x") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}
