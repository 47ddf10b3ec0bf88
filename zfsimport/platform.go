package zfsimport

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgmirror/manifest"
)

const (
	// brandDir holds a folder for each of the platform's brands of zones.
	brandDir = "/usr/lib/brand"
	// sdcVersion is the version of a SmartOS that tells none (6.5 ended in 2012).
	sdcVersion = "7.0"
	// platformPrefix stands before the stamp in uname's version.
	platformPrefix = "joyent_"
)

// requirements are the requirements of an image on its machine.
type requirements struct {
	MinPlatform map[string]string `json:"min_platform"`
	MaxPlatform map[string]string `json:"max_platform"`
	Brand       string            `json:"brand"`
}

// platform is a SmartOS machine's description of itself.
type platform struct {
	Version string `json:"SDC Version"` // "7.0"
	Stamp   string `json:"Live Image"`  // "20240418T003405Z"
	KVM     *bool  `json:"VM Capable"`
	Bhyve   *bool  `json:"Bhyve Capable"`
}

// runnable tells why an image can not run on this machine; the error matches ErrPlatform. Any image
// can run on a machine that does not tell its platform.
func (im *Importer) runnable(ctx context.Context, image manifest.Manifest) error {
	var m struct {
		Requirements requirements `json:"requirements"`
	}
	// A requirement of another type counts as none: imgadm does not look at the types.
	json.Unmarshal(image.V2(), &m) //nolint:errcheck // see above
	r := m.Requirements
	if len(r.MinPlatform) == 0 && len(r.MaxPlatform) == 0 && r.Brand == "" {
		return nil
	}
	p, ok := im.platform(ctx)
	if !ok {
		return nil
	}
	if reason := r.unmet(p); reason != "" {
		return fmt.Errorf("%w: %s", ErrPlatform, reason)
	}
	if r.Brand == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(brandDir, r.Brand)); os.IsNotExist(err) {
		return fmt.Errorf("%w: this platform has no brand %s", ErrPlatform, r.Brand)
	}
	return nil
}

// unmet is the first requirement that p does not meet, "" for none (spec 1.2).
func (r requirements) unmet(p platform) string {
	if p.beyond(r.MinPlatform, -1) {
		return fmt.Sprintf("it needs a platform of %s or later, this one is %s of %s", describe(r.MinPlatform), p.Stamp, p.Version)
	}
	if p.beyond(r.MaxPlatform, +1) {
		return fmt.Sprintf("it needs a platform of %s or earlier, this one is %s of %s", describe(r.MaxPlatform), p.Stamp, p.Version)
	}
	if r.Brand == "kvm" && p.KVM != nil && !*p.KVM || r.Brand == "bhyve" && p.Bhyve != nil && !*p.Bhyve {
		return "this machine can not run virtual machines of brand " + r.Brand
	}
	return ""
}

// beyond tells that the platform is older (-1) or newer (+1) than the stamp of its version, or for a
// version without a stamp, than the versions of all stamps.
func (p platform) beyond(stamps map[string]string, side int) bool {
	if stamp, ok := stamps[p.Version]; ok {
		return cmp.Compare(p.Stamp, stamp) == side
	}
	for version := range stamps {
		if cmp.Compare(p.Version, version) != side {
			return false
		}
	}
	return len(stamps) > 0
}

// describe writes the stamps by version: "20150218T000000Z (7.0)".
func describe(stamps map[string]string) string {
	var s []string
	for _, version := range slices.Sorted(maps.Keys(stamps)) {
		s = append(s, stamps[version]+" ("+version+")")
	}
	return strings.Join(s, ", ")
}

// platform asks sysinfo, as imgadm does, or else uname. ok is false on a machine without SmartOS.
func (im *Importer) platform(ctx context.Context) (p platform, ok bool) {
	if program, err := exec.LookPath("sysinfo"); err == nil {
		out, err := output(ctx, program)
		if err == nil {
			err = json.Unmarshal([]byte(out), &p)
		}
		if err == nil && p.Stamp != "" {
			if p.Version == "" {
				p.Version = sdcVersion
			}
			return p, true
		}
		im.log.Debug("sysinfo does not tell this machine's platform", "error", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return platform{}, false
	}
	return parseUname(unix.ByteSliceToString(name.Version[:]))
}

// parseUname reads "joyent_20240418T003405Z".
func parseUname(version string) (p platform, ok bool) {
	stamp, ok := strings.CutPrefix(version, platformPrefix)
	return platform{Version: sdcVersion, Stamp: stamp}, ok && stamp != ""
}
