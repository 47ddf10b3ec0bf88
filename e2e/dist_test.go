package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// distribution is what deploy/dist.sh made of a version.
type distribution struct {
	dir     string
	version string
}

// checkouts are copies of this checkout, in folders that differ in name and depth, and made with different umasks.
var checkouts = sync.OnceValues(func() (dirs [2]string, err error) {
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = ".."
	names, err := list.Output()
	if err != nil {
		return dirs, fmt.Errorf("git ls-files: %w", err)
	}
	for i, name := range []string{"a", "another/folder"} {
		dirs[i] = filepath.Join(workDir, "dist", name)
		for file := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
			err := copyFile(filepath.Join("..", file), filepath.Join(dirs[i], file))
			if errors.Is(err, fs.ErrNotExist) { // removed, and not committed yet
				continue
			}
			if i > 0 && err == nil {
				err = ownerOnly(filepath.Join(dirs[i], file))
			}
			if err != nil {
				return dirs, err
			}
		}
	}
	return dirs, nil
})

// copyFile copies a file with its mode.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, info.Mode()))
}

// ownerOnly takes a file's rights from all but its owner.
func ownerOnly(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Chmod(name, info.Mode()&0o700)
}

// The distributions that more than one test looks at. distSMF has the binary of this machine.
var (
	distOne = sync.OnceValues(func() (distribution, error) { return dist(0, "1.0.0", "linux/"+runtime.GOARCH) })
	distSMF = sync.OnceValues(func() (distribution, error) { return dist(0, "1.0.0", "illumos/amd64", "BINARY="+imgmirror) })
	distTwo = sync.OnceValues(func() (distribution, error) { return dist(1, "1.1.0", "linux/"+runtime.GOARCH) })
)

// dist runs deploy/dist.sh in one of the checkouts.
func dist(checkout int, version, platforms string, env ...string) (distribution, error) {
	dirs, err := checkouts()
	if err != nil {
		return distribution{}, err
	}
	d := distribution{filepath.Join(dirs[checkout], "dist", version+strings.ReplaceAll(platforms, "/", "-")), version}
	cmd := exec.Command("deploy/dist.sh", d.dir)
	cmd.Dir = dirs[checkout]
	cmd.Env = append(os.Environ(), "VERSION="+version, "PLATFORMS="+platforms, "SOURCE_DATE_EPOCH=1790000000",
		"TOOLS="+filepath.Join(dirs[0], "tools"))
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return d, fmt.Errorf("deploy/dist.sh: %w\n%s", err, out)
	}
	return d, nil
}

// made is the distribution that do makes; the test fails where it cannot be made.
func made(t *testing.T, do func() (distribution, error)) distribution {
	t.Helper()
	for _, program := range []string{"git", "sha256sum", "gzip", "tar"} {
		need(t, program)
	}
	d, err := do()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sums are those of all files.
func (d distribution) sums(t *testing.T) map[string]string {
	t.Helper()
	sums := make(map[string]string)
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(d.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return sums
}

// The same sources give the same bytes in two folders; the sums say so, and the list of modules is whole.
func TestDistSameBytes(t *testing.T) {
	d := made(t, distOne)
	again := made(t, func() (distribution, error) { return dist(1, "1.0.0", "linux/"+runtime.GOARCH) })
	one, two := d.sums(t), again.sums(t)
	for name := range maps.Keys(one) {
		if one[name] != two[name] {
			t.Errorf("%s differs between two folders", name)
		}
	}
	arch := runtime.GOARCH
	rpmArch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	want := []string{
		"SHA256SUMS",
		"imgmirror-1.0.0-1." + rpmArch + ".rpm",
		"imgmirror-1.0.0-linux-" + arch, "imgmirror-1.0.0-linux-" + arch + ".cdx.json", "imgmirror-1.0.0-linux-" + arch + ".tar.gz",
		"imgmirror_1.0.0_" + arch + ".deb",
	}
	if names := slices.Sorted(maps.Keys(one)); !slices.Equal(names, want) || len(two) != len(one) {
		t.Errorf("made are %q, want %q", names, want)
	}
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = d.dir
	if out, err := check.Output(); err != nil || strings.Count(string(out), ": OK\n") != len(want)-1 {
		t.Errorf("sha256sum --check: %v\n%s", err, out)
	}
	var bom struct {
		BOMFormat  string
		Components []struct{ Name, Version string }
		Metadata   struct{ Component struct{ Version string } }
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "imgmirror-1.0.0-linux-"+arch+".cdx.json"))
	if err := errors.Join(err, json.Unmarshal(text, &bom)); err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(bom.Components))
	for _, c := range bom.Components {
		names = append(names, c.Name)
	}
	if bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Version != "1.0.0" || !slices.Contains(names, "github.com/valyala/fasthttp") || !slices.Contains(names, "std") {
		t.Errorf("the list of modules: %q of version %q with %q", bom.BOMFormat, bom.Metadata.Component.Version, names)
	}
}

// The archive for illumos is laid out for /opt/imgmirror.
func TestDistIllumos(t *testing.T) {
	d := made(t, distSMF)
	data, err := os.ReadFile(filepath.Join(d.dir, "imgmirror-1.0.0-illumos-amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	modes := make(map[string]fs.FileMode)
	for tr := tar.NewReader(unpacked); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1790000000 {
			t.Errorf("%s is of %d:%d, from %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		modes[h.Name] = h.FileInfo().Mode().Perm()
	}
	for name, mode := range map[string]fs.FileMode{
		"bin/imgmirror": 0o755, "smf/setup": 0o755, "smf/method": 0o755, "smf/imgmirror.xml": 0o644, "smf/imgmirror-gz.xml": 0o644,
		"etc/imgmirror.yaml": 0o644, "share/doc/imgmirror.yaml": 0o644, "share/doc/README.md": 0o644, "share/doc/docs/operations.md": 0o644,
		"share/man/man8/imgmirror.8.gz": 0o644, "share/man/man5/imgmirror.yaml.5.gz": 0o644, "LICENSE": 0o644,
	} {
		if got, ok := modes["imgmirror/"+name]; !ok || got != mode {
			t.Errorf("%s: there %t, mode %v, want %v", name, ok, got, mode)
		}
	}
}
