package zfsimport

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
