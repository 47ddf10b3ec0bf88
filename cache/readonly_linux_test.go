package cache

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is read-only, and without the folders that hold nothing of worth, lets the
// mirror start: what is on it is served.
func TestStartOnReadOnlyDisk(t *testing.T) {
	s := openStore(t, Options{})
	one, two := newSample(t, 1, 1000, nil), newSample(t, 2, 1000, nil)
	one.store(t, s)
	s.Idle()
	closeStore(t, s)
	dir := string(s.dir)
	if err := errors.Join(os.RemoveAll(s.dir.partials()), os.RemoveAll(s.dir.manifests())); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		lack(t, "no mounts: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) //nolint:errcheck // it was mounted just before
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		lack(t, "no read-only mounts: %v", err)
	}
	s = reopen(t, s)
	wantData(t, s, one.blob, one.data, Hit)
	_, _, err := get(s, two.blob, two.src)
	wantError(t, err, ErrDisk)
	if down, _ := s.Look(); down != nil {
		t.Errorf("files cannot be served: %v", down)
	}
	closeStore(t, s)
}
