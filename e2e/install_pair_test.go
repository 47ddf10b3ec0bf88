package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// pairOf writes an image as two files.
func pairOf(t *testing.T, img image) (manifest, file string) {
	t.Helper()
	dir := t.TempDir()
	manifest, file = filepath.Join(dir, "manifest.json"), filepath.Join(dir, "file")
	for name, data := range map[string][]byte{manifest: img.manifest, file: img.file} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return manifest, file
}

// TestInstallPair: a manifest and its file go into the pool with no mirror and no data folder, origins by
// hand, and with the record that imgadm install writes. Wrong bytes never get the image's name.
func TestInstallPair(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	m := newMirror(t, p.settings())
	install := func(img image, more ...string) said {
		manifest, file := pairOf(t, img)
		return m.verb(append([]string{"install", "-m", manifest, "-f", file}, more...)...)
	}
	base, web, _ := newChain(t)

	got := install(web)
	got.wantError(t, "install", "OriginNotInstalled")
	if !strings.Contains(got.stderr, "image "+web.uuid+" is built on image "+base.uuid+", which is not in the pool: install that image first") {
		t.Errorf("it says %s", got.stderr)
	}
	install(base, "-n", "-H", "-o", "name,state").want(t, base.name+"  waiting\n")
	p.holds()

	// The last byte is another one; imgadm reads the file to its end before it refuses, and so does this.
	wrong := base
	wrong.file = bytes.Clone(base.file)
	wrong.file[len(wrong.file)-1] ^= 1
	got = install(wrong)
	got.wantError(t, "install", "ChecksumError")
	if !strings.Contains(got.stderr, "is not the file of the manifest") {
		t.Errorf("it says %s", got.stderr)
	}
	p.holds()
	short := base
	short.file = base.file[:len(base.file)-1]
	install(short).wantError(t, "install", "InvalidParameter")
	p.holds()

	install(base).want(t, base.uuid+" "+base.name+"@1.0.0: installed, 134 kB\n")
	install(base).want(t, "is installed already")
	disabled := asNew(t, sampleWeb, nil, map[string]any{"origin": base.uuid, "disabled": true, "state": "disabled", "colour": "red"})
	install(disabled, "-q").want(t)
	install(web, "-P", p.name).want(t, ": installed")
	p.holds(base.uuid, web.uuid, disabled.uuid)
	for id, r := range p.records() {
		if r.Source != "" {
			t.Errorf("record of %s: source %q", id, r.Source)
		}
	}
	var kept struct{ Colour string }
	if err := json.Unmarshal(p.records()[disabled.uuid].Manifest, &kept); err != nil || kept.Colour != "red" {
		t.Errorf("the record lacks a field of the manifest: %v, %s", err, p.records()[disabled.uuid].Manifest)
	}
	m.verb("installed", "-H", "-o", "uuid", "-s", "uuid").want(t, base.uuid, web.uuid)

	lost := asNew(t, sampleWeb, nil, map[string]any{"origin": uuid.NewString()})
	install(lost).wantError(t, "install", "OriginNotInstalled")
	p.holds(base.uuid, web.uuid, disabled.uuid)
	if _, err := os.Stat(m.data()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a data folder: %v", err)
	}
}
