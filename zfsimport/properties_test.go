package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// laden makes an image whose stream (zfs send -p) sets properties: set of the
// filesystem and marks of its snapshot. origin may be that of an image of the pool.
func (p *pool) laden(t *testing.T, origin uuid.UUID, set, marks []string) image {
	t.Helper()
	dataset, from := p.name+"/laden", p.name+"/"+origin.String()+final
	send := []string{"send", "-p"}
	if origin == uuid.Nil {
		p.run("zfs", "create", "-o", "canmount=noauto", dataset)
	} else {
		p.run("zfs", "clone", "-o", "canmount=noauto", from, dataset)
		send = append(send, "-i", from)
	}
	for _, kv := range set {
		exec.Command(need(t, "zfs"), "set", kv, dataset).Run() //nolint:errcheck // what is set and can not be shared is an error
		name, _, _ := strings.Cut(kv, "=")
		if source := p.run("zfs", "get", "-H", "-o", "source", name, dataset); source != "local\n" && source != "temporary\n" {
			t.Fatalf("%s: its source is %s", kv, source)
		}
	}
	p.run("zfs", "snapshot", dataset+"@v1")
	for _, kv := range marks {
		p.run("zfs", "set", kv, dataset+"@v1")
	}
	stream := p.run("zfs", append(send, dataset+"@v1")...)
	for range 100 {
		if exec.Command(need(t, "zfs"), "destroy", "-r", dataset).Run() == nil {
			break
		}
		time.Sleep(busyPoll)
	}
	return newImage(t, uuid.New(), origin, "none", []byte(stream), nil)
}

// mounts are the folders where datasets of the pool are mounted.
func (p *pool) mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/mounts")
	if err != nil {
		missing(t, "/proc/mounts")
	}
	var at []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.HasPrefix(f[0], p.name+"/") {
			at = append(at, f[1])
		}
	}
	return strings.Join(at, " ")
}

// What a stream sets is taken back before anything is mounted: the image is where its
// pool is mounted, and all of its properties are the defaults or the pool's.
func TestProperties(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	base := s.base.image(t, "none")
	f := newFiles(base)
	im := newImporter(t, p, f)
	if _, err := im.Install(t.Context(), "", base.Manifest, nil); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	for _, c := range []struct {
		name   string
		origin uuid.UUID
		set    []string
	}{
		{"mountpoint", uuid.Nil, []string{"mountpoint=" + elsewhere, "canmount=on"}},
		{"an absent folder", uuid.Nil, []string{"mountpoint=" + elsewhere + "/absent", "canmount=on"}},
		{"legacy", uuid.Nil, []string{"mountpoint=legacy"}},
		{"none", uuid.Nil, []string{"mountpoint=none"}},
		{"never mounted", uuid.Nil, []string{"canmount=off"}},
		{"shared", uuid.Nil, []string{"sharesmb=on", "sharenfs=rw", "mountpoint=" + elsewhere, "canmount=on"}},
		{"a zone's", uuid.Nil, []string{"mountpoint=" + elsewhere, "sharenfs=on", "zoned=on"}},
		{"hidden from imgadm", uuid.Nil, []string{"imgadm:ignore=true"}},
		{"limits", uuid.Nil, []string{"quota=50M", "refquota=40M", "reservation=2M", "refreservation=1M"}},
		{"the rest", base.UUID, []string{
			"setuid=off", "devices=off", "exec=off", "readonly=on", "snapdir=visible", "compression=on", "recordsize=8K", "atime=off",
			"xattr=off", "checksum=sha256", "copies=2", "nbmand=on", "vscan=on", "aclinherit=passthrough", "aclmode=passthrough",
			"primarycache=none", "secondarycache=none", "logbias=throughput", "user:x=1\n", "user:y=\t-\nmountpoint\t-",
			"mountpoint=" + elsewhere, "canmount=on",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := p.laden(t, c.origin, c.set, nil)
			f.images[image.UUID] = image.file
			dataset := p.name + "/" + image.UUID.String()
			if outcome, err := im.Install(t.Context(), "", image.Manifest, nil); err != nil || outcome != Done {
				t.Fatalf("%q, %v", outcome, err)
			}
			defer im.destroy(context.Background(), dataset)
			want := filepath.Join(p.dir, base.UUID.String()) + " " + filepath.Join(p.dir, image.UUID.String())
			if got := p.mounts(t); got != want {
				t.Errorf("mounted on %s\nwant %s", got, want)
			}
			of := func(id uuid.UUID) string {
				text := p.run("zfs", "get", "-H", "-o", "property,value", propertiesOf, p.name+"/"+id.String())
				return strings.ReplaceAll(text, id.String(), "UUID")
			}
			if got, plain := of(image.UUID), of(base.UUID); got != plain {
				t.Errorf("properties\n%s\nwant\n%s", got, plain)
			}
			own, err := im.ownProperties(t.Context(), dataset)
			for _, o := range own {
				if _, ok := resets[o.name]; !ok {
					t.Error("it has", o)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// propertiesOf are those that a stream can set.
const propertiesOf = "mountpoint,canmount,sharenfs,sharesmb,zoned,imgadm:ignore,quota,refquota,reservation,refreservation,setuid,devices,exec,readonly," +
	"snapdir,compression,recordsize,atime,xattr,checksum,copies,nbmand,vscan,aclinherit,aclmode,primarycache,secondarycache,logbias,user:x,user:y"

// A property that ZFS does not take back makes the image a refused one, by the name of
// the property; nothing stays, and nothing was mounted.
func TestPropertyStays(t *testing.T) {
	p := newPool(t, 64)
	elsewhere := t.TempDir()
	image := p.laden(t, uuid.Nil, []string{"mountpoint=" + elsewhere, "canmount=on"}, nil)
	im := newImporter(t, p, newFiles(image))
	for _, c := range []struct{ name, script string }{
		{"refused", `echo "cannot inherit" >&2; exit 1`},
		{"in vain", "exit 0"},
	} {
		bin := t.TempDir()
		script := fmt.Sprintf("#!/bin/sh\n[ \"$1 $2\" = 'inherit mountpoint' ] && { %s; }\nexec %s \"$@\"\n", c.script, need(t, "zfs"))
		if err := os.WriteFile(filepath.Join(bin, "zfs"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(need(t, "zpool"), filepath.Join(bin, "zpool")); err != nil {
			t.Fatal(err)
		}
		im.o.ZFSPath = bin
		_, err := im.Install(t.Context(), "", image.Manifest, nil)
		if !errors.Is(err, ErrProperty) || !strings.Contains(err.Error(), "mountpoint of "+p.name) {
			t.Errorf("%s: %v", c.name, err)
		}
		if p.list() != "" || p.records(im) != "" || p.mounts(t) != "" {
			t.Errorf("%s: the pool holds\n%s\nrecords %s, mounted on %s", c.name, p.list(), p.records(im), p.mounts(t))
		}
	}
}

// What a process leaves that is killed between the receive and the taking back is
// never mounted; nor is an image, mounted elsewhere by its stream, of another program
// that only lacks its record.
func TestPropertiesAfterAKill(t *testing.T) {
	p := newPool(t, 64)
	elsewhere := t.TempDir()
	image := p.laden(t, uuid.Nil, []string{"mountpoint=" + elsewhere, "canmount=on"}, nil)
	im := newImporter(t, p, newFiles(image))
	im.o.Find = func(context.Context, uuid.UUID) (manifest.Manifest, error) { return image.Manifest, nil }
	dataset := p.name + "/" + image.UUID.String()
	leave := func() {
		t.Helper()
		r := &reception{im: im, image: image.Manifest, dataset: dataset + partial}
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if at := p.mounts(t); at != "" {
			t.Error("received, and mounted on", at)
		}
	}
	leave()
	if err := im.Recover(t.Context(), ""); err != nil || p.list() != "" || p.mounts(t) != "" {
		t.Errorf("%v, the pool holds\n%s\nmounted on %s", err, p.list(), p.mounts(t))
	}
	leave()
	p.run("zfs", "rename", dataset+partial+"@v1", dataset+partial+final)
	p.run("zfs", "rename", dataset+partial, dataset)
	if err := im.Recover(t.Context(), ""); err != nil || p.mounts(t) != "" {
		t.Errorf("%v, mounted on %s", err, p.mounts(t))
	}
	if !strings.Contains(p.records(im), image.UUID.String()) {
		t.Error("it has no record")
	}
}
