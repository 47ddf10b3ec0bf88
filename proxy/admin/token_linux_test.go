package admin

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that takes nothing keeps no mirror from its start: each run has a token of its own.
func TestTokenOnReadOnlyDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no mounts: %v", err)
		}
		t.Skipf("no mounts: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) //nolint:errcheck // it was mounted just before
	path := filepath.Join(dir, "admin.token")
	one, warnings, err := ReadToken(path)
	if err != nil || len(one) < minToken || len(warnings) != 1 {
		t.Fatalf("%d characters, %q, %v", len(one), warnings, err)
	}
	if two, _, _ := ReadToken(path); two == one {
		t.Error("the token can be foreseen")
	}
}
