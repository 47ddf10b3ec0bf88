package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// TestBusy: a dataset that ZFS calls busy, as it does for a moment while another
// program looks at it, is tried again: an image is not given up for that.
func TestBusy(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 64)
	image := s.base.image(t, "none")
	im := newImporter(t, p, newFiles(image))
	bin := t.TempDir()
	// Each kind of command is refused the first time.
	script := fmt.Sprintf(`#!/bin/sh
if { [ "$1" = rename ] || [ "$1" = destroy ]; } && [ ! -e %[1]s/$1 ]; then
	: >%[1]s/$1
	echo "cannot $1 '$2': dataset is busy" >&2
	exit 1
fi
exec %[2]s "$@"
`, bin, need(t, "zfs"))
	if err := os.WriteFile(filepath.Join(bin, "zfs"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(need(t, "zpool"), filepath.Join(bin, "zpool")); err != nil {
		t.Fatal(err)
	}
	im.o.ZFSPath = bin
	p.run("zfs", "create", p.name+"/"+image.UUID.String()+partial) // in the way: it is destroyed
	if outcome, err := im.Install(t.Context(), "", image.Manifest, nil); err != nil || outcome != Done {
		t.Fatalf("%v, %v", outcome, err)
	}
	p.wantImages(im, s.base)
	for _, command := range []string{"rename", "destroy"} {
		if _, err := os.Stat(filepath.Join(bin, command)); err != nil {
			t.Errorf("zfs %s was never called", command)
		}
	}
}

// TestKilledReceive: a zfs receive that was killed ends the install also when
// something else has its stdin, and does not read it: the daemon of zfs-fuse does.
func TestKilledReceive(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 64)
	image := s.base.image(t, "none")
	im := newImporter(t, p, newFiles(image))
	im.o.ZFSPath = t.TempDir()
	pid := filepath.Join(im.o.ZFSPath, "pid")
	script := fmt.Sprintf(`#!/bin/sh
[ "$1" = receive ] || exec %s "$@"
exec 3<&0
sleep 1000 <&3 2>/dev/null &
echo $! >%s
kill -9 $$
`, need(t, "zfs"), pid)
	if err := os.WriteFile(filepath.Join(im.o.ZFSPath, "zfs"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(need(t, "zpool"), filepath.Join(im.o.ZFSPath, "zpool")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		text, _ := os.ReadFile(pid)
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			syscall.Kill(n, syscall.SIGKILL) //nolint:errcheck // it may have ended
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if _, err := im.Install(ctx, "", image.Manifest, nil); !errors.Is(err, ErrReceive) || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
}

// TestNoEndBeforeTheVerdict: zfs is not told that its input has ended before the file was
// read to its end and was right, also where the file goes on behind what was compressed.
func TestNoEndBeforeTheVerdict(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 64)
	image := s.other.image(t, "gzip")
	image.file = append(image.file, make([]byte, 100_000)...)
	f := newFiles(image)
	f.end = verify.ErrMismatch
	im := newImporter(t, p, f)
	bin := t.TempDir()
	ended := filepath.Join(bin, "ended")
	script := fmt.Sprintf(`#!/bin/sh
[ "$1" = receive ] || exec %[2]s "$@"
cat >%[1]s/stream && : >%[1]s/ended
exec %[2]s "$@" <%[1]s/stream
`, bin, need(t, "zfs"))
	if err := os.WriteFile(filepath.Join(bin, "zfs"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(need(t, "zpool"), filepath.Join(bin, "zpool")); err != nil {
		t.Fatal(err)
	}
	im.o.ZFSPath = bin
	im.o.Open = func(ctx context.Context, m manifest.Manifest) (io.ReadCloser, error) {
		file, err := f.open(ctx, m)
		return &lateVerdict{file, func() {
			for range 100 { // time for zfs to see an end, if it was told of one
				if _, err := os.Stat(ended); err == nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}}, err
	}
	if _, err := im.Install(t.Context(), "", image.Manifest, nil); !errors.Is(err, verify.ErrMismatch) {
		t.Error(err)
	}
	if _, err := os.Stat(ended); err == nil {
		t.Error("zfs was told of the end of a file that is wrong")
	}
}

// lateVerdict is a file that does something before it tells how it ended.
type lateVerdict struct {
	io.ReadCloser
	before func()
}

func (f *lateVerdict) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil {
		f.before()
	}
	return n, err
}
