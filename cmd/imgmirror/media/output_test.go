package media

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgmirror/cmd/imgmirror/failure"
)

// TestFolderOutputClears: of what lies in the folder only the beginnings of a
// bundle are removed.
func TestFolderOutputClears(t *testing.T) {
	dir := t.TempDir()
	kept := []string{"imgmirror-bundle-may.tar", "imgmirror-bundle.1.sha256", "imgmirror-bundle.json.bak", "imgmirror-bundle.key"}
	for _, name := range append([]string{"imgmirror-bundle.json", "imgmirror-bundle.json.minisig", "imgmirror-bundle.sha256", "imgmirror-bundle.001.sha256"}, kept...) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := folderOutput(dir).Unfinished(); h != nil || err != nil {
		t.Fatal(h, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, kept) {
		t.Errorf("left are %v, want %v", names, kept)
	}
}

// TestTarOutputPipe: what could make an export wait for ever is refused.
func TestTarOutputPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe.tar")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tarOutput(pipe).Unfinished(); err == nil || failure.Of(err).Code != "FileExists" || !strings.Contains(err.Error(), pipe) {
		t.Errorf("%v", err)
	}
}

// TestLockFile: a lock on a file that has another name by now is none.
func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.partial")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := lockFile(f); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".done"); err != nil {
		t.Fatal(err)
	}
	if err := lockFile(f); err == nil || failure.Of(err).Code != "Busy" {
		t.Errorf("a file that was renamed: %v", err)
	}
}

// TestFolderOutputLock: the lock is gone when it is given up.
func TestFolderOutputLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	unlock, err := folderOutput(dir).Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

func TestTarOutputPath(t *testing.T) {
	f := func(o tarOutput, volume, of int, want string) {
		t.Helper()
		if got := o.path(volume, of); got != want {
			t.Errorf("volume %d of %d of %s is %s, want %s", volume, of, o, got, want)
		}
	}
	f("may.tar", 1, 1, "may.tar")
	f("may.tar", 2, 12, "may.002.tar")
	f("/a.b/may", 3, 3, "/a.b/may.003")
	if got := escapeGlob("a[1]*"); got != `a\[1]\*` {
		t.Error(got)
	}
}
