package zfsimport

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestUnmet(t *testing.T) {
	p := platform{Version: "7.0", Stamp: "20200101T000000Z"}
	no := false
	f := func(r requirements, want string) {
		t.Helper()
		if got := r.unmet(p); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
	stamps := func(s ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(s); i += 2 {
			m[s[i]] = s[i+1]
		}
		return m
	}
	f(requirements{}, "")
	f(requirements{MinPlatform: stamps("7.0", "20200101T000000Z")}, "")
	f(requirements{MinPlatform: stamps("7.0", "20200101T000001Z")}, "20200101T000001Z (7.0) or later, this one is 20200101T000000Z of 7.0")
	f(requirements{MinPlatform: stamps("6.5", "20990101T000000Z")}, "")
	f(requirements{MinPlatform: stamps("8.0", "20000101T000000Z", "9.0", "20000101T000000Z")}, "or later")
	f(requirements{MinPlatform: stamps("6.5", "20000101T000000Z", "9.0", "20000101T000000Z")}, "")
	f(requirements{MaxPlatform: stamps("7.0", "20200101T000000Z")}, "")
	f(requirements{MaxPlatform: stamps("7.0", "20191231T000000Z")}, "or earlier")
	f(requirements{MaxPlatform: stamps("8.0", "20000101T000000Z")}, "")
	f(requirements{MaxPlatform: stamps("6.5", "20990101T000000Z")}, "or earlier")
	f(requirements{Brand: "bhyve"}, "")
	p.Bhyve = &no
	f(requirements{Brand: "bhyve"}, "brand bhyve")
	f(requirements{Brand: "kvm"}, "")
	p.KVM = &no
	f(requirements{Brand: "kvm"}, "brand kvm")
	f(requirements{Brand: "joyent"}, "")
}

func TestParseUname(t *testing.T) {
	f := func(version, stamp string) {
		t.Helper()
		if p, ok := parseUname(version); p.Stamp != stamp && ok || ok != (stamp != "") {
			t.Errorf("%q: %+v, %v", version, p, ok)
		}
	}
	f("joyent_20240418T003405Z", "20240418T003405Z")
	f("#1 SMP PREEMPT_DYNAMIC Debian 6.1", "")
	f("omnios-r151046", "")
	f("joyent_", "")
}

// An image that can not run here is skipped, and says why; where the machine does
// not tell what it is, and where the image asks for nothing that is understood, it is not.
func TestSkipped(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	needs := func(requirements any) image {
		return newImage(t, s.base.id, uuid.Nil, "gzip", s.base.stream, map[string]any{"requirements": requirements})
	}
	young := needs(map[string]any{"min_platform": map[string]any{"7.0": "20990101T000000Z"}})
	im := newImporter(t, p, newFiles(young))
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	sysinfo := func(script string) {
		if err := os.WriteFile(filepath.Join(bin, "sysinfo"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sysinfo(`echo '{"SDC Version": "7.0", "Live Image": "20240418T003405Z", "VM Capable": true}'`)
	before := p.list()
	if o, err := im.Install(t.Context(), "", young.Manifest, nil); o != Skipped || !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "this one is 20240418T003405Z") {
		t.Error(o, err)
	}
	if p.list() != before {
		t.Error("the pool changed")
	}
	if o, err := im.Install(t.Context(), "", needs(map[string]any{"brand": "nosuchbrand"}).Manifest, nil); o != Skipped || !errors.Is(err, ErrPlatform) {
		t.Error(o, err)
	}
	if err := im.runnable(t.Context(), needs(map[string]any{"min_platform": "late"}).Manifest); err != nil {
		t.Error(err)
	}
	sysinfo("exit 1")
	if o, err := im.Install(t.Context(), "", young.Manifest, nil); err != nil || o != Done {
		t.Error(o, err)
	}
}
