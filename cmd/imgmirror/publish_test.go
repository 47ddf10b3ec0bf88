package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgmirror/cmd/imgmirror/failure"
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

// streamOf is what begins as a ZFS stream does and goes on with text.
func streamOf(text string) []byte {
	return append([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\xac\xcb\xba\xf5\x02\x00\x00\x00"), text...)
}

// gzipOf is data in gzip.
func gzipOf(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Files that no node can receive are refused, by manifest create and by publish, before a mirror is asked, with what
// they look like; the same files are taken for types that may be anything.
func TestFileOfAnImage(t *testing.T) {
	dir := t.TempDir()
	file, text, data := filepath.Join(dir, "mine"), filepath.Join(dir, "mine.json"), filepath.Join(dir, "data")
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	manifestOf := func(content []byte, compression, imageType string) {
		t.Helper()
		m := fmt.Sprintf(`{"v":2,"uuid":"11111111-1111-4111-8111-111111111111","owner":"00000000-0000-0000-0000-000000000000","name":"mine",`+
			`"version":"1","state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z","type":%q,"os":"smartos",`+
			`"files":[{"sha1":"%x","size":%d,"compression":%q}]}`, imageType, sha1.Sum(content), len(content), compression)
		if err := os.WriteFile(text, []byte(m), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	random := make([]byte, 3000)
	rand.NewChaCha8([32]byte{}).Read(random) //nolint:errcheck // never fails
	refused := func(content []byte, compression, want string) {
		t.Helper()
		write(content)
		code, stdout, stderr := verb(createArgs(file)...)
		if code != failure.ExitFailure || stdout != "" || !strings.Contains(stderr, "(InvalidParameter): "+file+": ") || !strings.Contains(stderr, want) {
			t.Errorf("manifest create: exit %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
		}
		manifestOf(content, compression, "zone-dataset")
		code, _, stderr = verb("publish", "-m", text, "-f", file, "--data-dir", data)
		if code != failure.ExitFailure || !strings.Contains(stderr, "(InvalidParameter): "+file+": ") || !strings.Contains(stderr, want) {
			t.Errorf("publish: exit %d, stderr %q; want %q", code, stderr, want)
		}
		if _, err := os.Stat(data); err == nil {
			t.Error("a data folder was made")
		}
	}
	zstd := append([]byte("\x28\xb5\x2f\xfd"), random...)
	html := []byte("<!DOCTYPE html><html><head><title>Sign in</title>")
	refused(zstd, "none", "the file is zstd-compressed data, not a ZFS stream: type zone-dataset")
	refused(append([]byte("\x04\x22\x4d\x18"), random...), "none", "the file is lz4-compressed data")
	refused(append([]byte("PK\x03\x04"), random...), "none", "the file is a zip archive")
	refused(html, "none", "the file is a saved web page")
	refused(random, "none", "the file is data of an unknown kind")
	refused(gzipOf(t, html), "gzip", "the file is gzip of a saved web page")
	refused(gzipOf(t, gzipOf(t, streamOf("mine"))), "gzip", "the file is gzip of gzip-compressed data")
	refused(gzipOf(t, random)[:900], "gzip", "the file is gzip-compressed data that does not decompress")

	for _, imageType := range []string{"lx-dataset", "zvol"} {
		write(zstd)
		args := append(createArgs(file), "--type", imageType, "--nic-driver", "virtio", "--disk-driver", "virtio", "--cpu-type", "host", "--image-size", "1")
		if imageType != "zvol" {
			args = append(createArgs(file), "--type", imageType)
		}
		if code, _, stderr := verb(args...); code != failure.ExitFailure || !strings.Contains(stderr, "type "+imageType+" needs") {
			t.Errorf("%s: exit %d, stderr %q", imageType, code, stderr)
		}
	}
	for _, imageType := range []string{"lxd", "other"} {
		for _, content := range [][]byte{zstd, html, gzipOf(t, html)} {
			write(content)
			if code, stdout, stderr := verb(append(createArgs(file), "--type", imageType)...); code != 0 || stderr != "" || !strings.Contains(stdout, `"compression"`) {
				t.Errorf("%s: exit %d, stderr %q", imageType, code, stderr)
			}
		}
	}

	// What is given must be what is there.
	for _, c := range []struct {
		content     []byte
		says, found string
	}{
		{streamOf("mine"), "gzip", "compression is none by the file's first bytes, the manifest says gzip"},
		{gzipOf(t, streamOf("mine")), "none", "compression is gzip by the file's first bytes, the manifest says none"},
		{gzipOf(t, streamOf("mine")), "xz", "compression is gzip by the file's first bytes, the manifest says xz"},
	} {
		write(c.content)
		manifestOf(c.content, c.says, "zone-dataset")
		if code, _, stderr := verb("publish", "-m", text, "-f", file, "--data-dir", data); code != failure.ExitFailure || !strings.Contains(stderr, c.found) {
			t.Errorf("publish: exit %d, stderr %q; want %q", code, stderr, c.found)
		}
	}

	// And what is right is found.
	for want, content := range map[string][]byte{"none": streamOf("mine"), "gzip": gzipOf(t, streamOf("mine"))} {
		write(content)
		code, stdout, stderr := verb(createArgs(file)...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, fmt.Sprintf(`"compression": %q`, want)) || !strings.Contains(stdout, fmt.Sprintf("%x", sha1.Sum(content))) {
			t.Errorf("%s: exit %d, stdout %s, stderr %q", want, code, stdout, stderr)
		}
	}
	write(gzipOf(t, random))
	if code, stdout, stderr := verb(createArgs(file)...); code != 0 || stdout == "" || !strings.Contains(stderr, "warning: "+file) {
		t.Errorf("gzip of data of an unknown kind: exit %d, stderr %q; want a warning", code, stderr)
	}
}

// An all zero origin is no origin: the manifest would be that of a full image.
func TestManifestCreateZeroOrigin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.zfs")
	if err := os.WriteFile(file, streamOf("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := verb(createArgs(file, "--origin", "00000000-0000-0000-0000-000000000000")...)
	if code != failure.ExitUsage || stdout != "" || !strings.Contains(stderr, "--origin") {
		t.Errorf("exit %d, stdout %q, stderr %q; want %d, nothing, and a word on --origin", code, stdout, stderr, failure.ExitUsage)
	}
}

// A folder is told from a file before a mirror is asked.
func TestPublishFolder(t *testing.T) {
	dir := t.TempDir()
	file, text, data := filepath.Join(dir, "mine.zfs"), filepath.Join(dir, "mine.json"), filepath.Join(dir, "data")
	if err := os.WriteFile(file, streamOf("mine"), 0o600); err != nil {
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
	if code != failure.ExitFailure || !strings.Contains(stderr, "error (InvalidParameter): "+dir+" is a folder") {
		t.Errorf("exit %d, stderr %q; want %d and that it is a folder", code, stderr, failure.ExitFailure)
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
	if err := errors.Join(os.WriteFile(file, streamOf("mine"), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
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
		if err := <-done; failure.Of(err).Code != "Interrupted" {
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
	data := filepath.Join(dir, "data")
	text := fmt.Sprintf("data_dir: %s\nsources: [{name: samples, url: %s, kind: directory}]\n", data, sampleSource(t).URL)
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
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
		if code := run(args, full{}, &stderr); code != failure.ExitFailure || !strings.Contains(stderr.String(), "(FileSystemError): write /dev/stdout") {
			t.Errorf("%v: exit %d, want %d; %s", args, code, failure.ExitFailure, stderr.String())
		}
	}
}

// What goes wrong with a file on this machine is no fault of the mirror's.
func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	code, _, stderr := verb("publish", "-m", filepath.Join(dir, "none"), "-f", dir)
	if code != failure.ExitFailure || !strings.Contains(stderr, "error (FileSystemError): open "+dir) {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	code, _, stderr = verb("list", "--server", "http://127.0.0.1:1/foo?x")
	if code != failure.ExitUsage || !strings.Contains(stderr, "?x") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}
