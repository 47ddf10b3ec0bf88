package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// oddManifests are members that sources give and imgadm's validator refuses, or crashes on.
var oddManifests = map[string]map[string]any{
	"channels":     {"channels": []string{"dev", "release"}},
	"unknown":      {"x_vendor_note": map[string]any{"a": 1}},
	"v1-left-over": {"creator_name": "sdc", "platform_type": "smartos"},
	"requirements": {"requirements": map[string]any{"max_age": 7, "brand": "joyent", "networks": []any{map[string]any{"name": "net0"}}}},
	"platform":     {"requirements": map[string]any{"min_platform": map[string]any{"7.0": "today"}, "bootrom": "uefi", "min_ram": 512, "max_ram": 256}},
	"null":         {"requirements": nil, "tags": nil, "users": nil, "acl": nil, "error": nil, "homepage": nil},
	"users":        {"users": []any{map[string]any{"name": "root", "shell": "/bin/sh"}}},
	"urls":         {"homepage": "file:///etc/passwd", "eula": "gopher://example.com"},
	"drivers":      {"nic_driver": "virtio", "disk_driver": "virtio", "cpu_type": "host", "image_size": 10240},
	"flags":        {"generate_passwords": "perhaps", "inherited_directories": "/usr"},
	"tags":         {"tags": []any{"a", "b"}},
	"owner":        {"owner": "nobody"},
	"right": {"tags": map[string]any{"a": 1, "b": map[string]any{"c": true}}, "homepage": "https://example.com/", "description": "é – right",
		"requirements": map[string]any{"min_ram": 256, "max_ram": 512, "ssh_key": true, "min_platform": map[string]any{"7.0": "20210114T163038Z"},
			"networks": []any{map[string]any{"name": "net0", "description": "public"}}}, "users": []any{map[string]any{"name": "root"}}},
}

// TestBundleManifests: the official validator takes each manifest.json of a bundle as `imgadm install -m` would, and a
// mirror that imports the bundle has each manifest as the first mirror had, channels and unknown members included.
func TestBundleManifests(t *testing.T) {
	t.Parallel()
	var images []image
	for name, members := range oddManifests {
		images = append(images, newImage("odd-"+name, 1000+len(name), members))
	}
	channels := settings{"channels": []map[string]any{{"name": "dev"}, {"name": "release", "default": true}}}
	with := func(source map[string]any) *mirror {
		source["as_channels"] = []string{"dev", "release"}
		return startMirror(t, channels, source)
	}
	m := with(from(newSource(t, images...).URL(), settings{"channel": "*"}))
	m.awaitList(len(images))
	m.verb("fetch", "-q", "os=smartos").want(t)
	dir, tree := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "odd.tar")
	m.verb("bundle", "export", "-q", "-o", file, "name=~odd").want(t)
	if out, err := exec.Command(need(t, "tar"), "-xf", file, "-C", tree).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}

	var paths []string
	for _, img := range images {
		paths = append(paths, filepath.Join(tree, img.uuid, "manifest.json"))
	}
	for i, verdict := range validated(t, paths) {
		if string(verdict) != "null" {
			text, err := os.ReadFile(paths[i])
			t.Errorf("%s: imgadm's validator says %s of %s (%v)", images[i].name, verdict, text, err)
		}
	}

	far := startMirror(t, channels)
	wantAll(t, far.verb("bundle", "import", "-j", file).importStates(t), images, "added")
	for _, img := range images {
		path := "/images/" + img.uuid
		is, want := get(t, far.url+path, "Accept-Version", "~2").body, get(t, m.url+path, "Accept-Version", "~2").body
		if !bytes.Equal(is, want) {
			t.Errorf("%s: the manifest behind the gap is\n%s\nwant\n%s", img.name, is, want)
		}
	}
}

// validated gives what the official validator says of each manifest.
func validated(t *testing.T, paths []string) []json.RawMessage {
	t.Helper()
	program := need(t, "node")
	if _, err := os.Stat("node/node_modules/imgmanifest"); err != nil {
		missing(t, "the npm package imgmanifest in e2e/node")
	}
	cmd := exec.Command(program, append([]string{"validate.js"}, paths...)...)
	cmd.Dir, cmd.Env = "node", cleanEnv()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var verdicts []json.RawMessage
	if err == nil {
		err = json.Unmarshal(out, &verdicts)
	}
	if err != nil || len(verdicts) != len(paths) {
		t.Fatalf("validate.js: %v, %d verdicts on %d manifests\n%s", err, len(verdicts), len(paths), stderr.Bytes())
	}
	return verdicts
}
