package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
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
