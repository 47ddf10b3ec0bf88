package zfsimport

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestInstalled(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	base, middle := s.base.image(t, "gzip"), s.middle.image(t, "gzip")
	im := newImporter(t, p, newFiles(base, middle))
	if images, err := im.Installed(t.Context(), ""); err != nil || len(images) != 0 {
		t.Errorf("an empty pool: %v, %v", images, err)
	}
	for _, i := range []image{base, middle} {
		if _, err := im.Install(t.Context(), "", i.Manifest, nil); err != nil {
			t.Fatal(err)
		}
	}
	instance, ignored, zone, old := uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	p.run("zfs", "clone", p.name+"/"+s.base.id.String()+final, p.name+"/"+instance)
	for _, name := range []string{ignored, zone, old, "data", "data/" + uuid.NewString(), uuid.NewString() + "-disk0"} {
		p.run("zfs", "create", p.name+"/"+name)
	}
	p.run("zfs", "set", "imgadm:ignore=yes", p.name+"/"+ignored)
	bin := t.TempDir() // a zoneadm of this machine
	script := fmt.Sprintf("#!/bin/sh\ntest \"$*\" = 'list -pc' || exit 1\necho '0:global:running:/::liveimg:shared:0'\necho '7:%s:running:%s/%s:%s:joyent:excl:7'\n", zone, p.dir, zone, zone)
	if err := os.WriteFile(filepath.Join(bin, "zoneadm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	p.leave(t, s.other)

	images, err := im.Installed(t.Context(), "")
	if err != nil || len(images) != 3 {
		t.Fatalf("%+v, %v", images, err)
	}
	byID := make(map[string]Installed)
	for _, i := range images {
		byID[i.UUID.String()] = i
	}
	if b := byID[s.base.id.String()]; b.Clones != 2 || b.Snapshot != final || !b.Mounted || !b.Record || b.Manifest.Name != "sample" ||
		b.Source != "http://mirror.example:8080" || b.Origin != uuid.Nil || b.Volume || b.Dataset != p.name+"/"+s.base.id.String() || b.Used < 2_000_000 {
		t.Errorf("%+v", b)
	}
	if m := byID[s.middle.id.String()]; m.Clones != 0 || m.Origin != s.base.id {
		t.Errorf("%+v", m)
	}
	if o := byID[old]; o.Snapshot != "" || o.Record || o.Manifest != nil {
		t.Errorf("%+v", o)
	}
}

// What zfs-fuse can not make: volumes.
func TestImagesAmong(t *testing.T) {
	const id = "2bd5facd-b07d-4ed2-af71-b6597162be18"
	images := imagesAmong("zones", []dataset{
		{"zones", map[string]string{"type": "filesystem", "origin": "-"}},
		{"zones/" + id, map[string]string{"type": "volume", "origin": "-", "mountpoint": "-", "mounted": "-", "imgadm:ignore": "-", "used": "5"}},
		{"zones/" + id + final, map[string]string{"type": "snapshot", "origin": "-"}},
		{"zones/" + strings.Replace(id, "2", "3", 1) + "-disk0", map[string]string{"type": "volume", "origin": "zones/" + id + final}},
		{"zones/cores/" + id, map[string]string{"type": "filesystem", "origin": "-"}},
	}, map[string]bool{"/zones/x": true})
	if len(images) != 1 || !images[0].Volume || images[0].Mounted || images[0].Clones != 1 || images[0].Used != 5 {
		t.Errorf("%+v", images)
	}
}

// TestIgnore: whatever says yes in imgadm:ignore hides an image; what says no, and what is not set, does not.
func TestIgnore(t *testing.T) {
	for value, want := range map[string]bool{
		"true": true, "yes": true, "on": true, "1": true, "TRUE": true, "Yes": true, "false": false, "no": false, "off": false, "0": false, "-": false, "": false,
	} {
		if isTrue(value) != want {
			t.Errorf("%q counts as %t", value, !want)
		}
	}
}
