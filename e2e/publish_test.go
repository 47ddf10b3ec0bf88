package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// create is `imgmirror manifest create` for a sample's file, into a file.
func (m *mirror) create(img image, more ...string) (manifestFile string) {
	m.t.Helper()
	fields := img.fields(m.t)
	args := append([]string{"manifest", "create", "-f", abs(m.t, img.path), "--uuid", img.uuid, "--name", img.name,
		"--version", "1.0.0", "--os", "smartos", "--type", "zone-dataset"}, more...)
	said := m.imgmirror(args...)
	said.want(m.t)
	var got map[string]any
	if err := json.Unmarshal([]byte(said.stdout), &got); err != nil {
		m.t.Fatalf("%v: %s", err, said.stdout)
	}
	for _, key := range []string{"uuid", "name", "origin", "state", "type"} {
		if got[key] != fields[key] {
			m.t.Errorf("manifest create: %s is %v, want %v", key, got[key], fields[key])
		}
	}
	file := filepath.Join(m.t.TempDir(), "manifest.json")
	if err := os.WriteFile(file, []byte(said.stdout), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return file
}

func abs(t testing.TB, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPublish: private images in two commands, over the socket, from afar and
// with no mirror running; node clients import them, increments included; they
// outlive restarts; what others depend on cannot be taken back.
func TestPublish(t *testing.T) {
	t.Parallel()
	m := newMirror(t, nil)
	base, web, app := sample(t, sampleBase), sample(t, sampleWeb), sample(t, sampleApp)
	baseManifest, webManifest := m.create(base), m.create(web, "--origin", sampleBase)
	appManifest := m.create(app, "--origin", sampleWeb)
	publish := func(by func(...string) said, manifest string, img image) said {
		return by("publish", "-m", manifest, "-f", abs(t, img.path))
	}

	publish(m.verb, baseManifest, base).want(t, "published image "+sampleBase+" (sample-base@1.0.0)") // no mirror runs
	m.start()
	publish(m.verb, appManifest, app).wantError(t, "publish", "OriginDoesNotExist")
	publish(m.verb, webManifest, web).want(t, sampleWeb)
	publish(m.remote, appManifest, app).want(t, sampleApp)
	publish(m.verb, appManifest, app).wantError(t, "publish", "ImageUuidAlreadyExists")
	publish(m.verb, appManifest, base).wantError(t, "publish", "InvalidParameter") // told by its size

	for _, when := range []string{"at once", "after a restart", "after a power cut"} {
		for _, kind := range []string{"imgapi", "dsapi"} {
			c := newImgadm(t, m, kind)
			if err := c.addSource(); err != nil {
				t.Fatal(err)
			}
			if list, err := c.avail(); err != nil || len(list) != 3 {
				t.Errorf("%s, %s: %d images listed, %v", kind, when, len(list), err)
			}
			got, err := c.importImage(sampleApp)
			if err != nil {
				t.Fatalf("%s, %s: %v", kind, when, err)
			}
			wantImport(t, got, []string{sampleBase, sampleWeb, sampleApp})
		}
		if when == "at once" {
			m.restart()
		} else {
			m.kill()
			m.start()
		}
	}

	m.verb("unpublish", sampleWeb).wantError(t, "unpublish", "ImageHasDependentImages")
	m.verb("unpublish", sampleXZ).wantError(t, "unpublish", "ResourceNotFound")
	m.verb("unpublish", sampleApp).want(t, app.sha1(), sampleApp)
	m.remote("unpublish", sampleWeb).want(t, web.sha1())
	m.awaitStored(1)
	get(t, m.url+"/images/"+sampleApp).wantError(t, 404, "ResourceNotFound")
	get(t, m.url+filePath(base)).wantFile(t, base)
}

// TestPublishedToNodeClient: the official node client gets a published image
// and its incremental child, Content-MD5 and all.
func TestPublishedToNodeClient(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil)
	base, web := sample(t, sampleBase), sample(t, sampleWeb)
	m.verb("publish", "-m", m.create(base), "-f", abs(t, base.path)).want(t)
	m.verb("publish", "-m", m.create(web, "--origin", sampleBase), "-f", abs(t, web.path)).want(t)
	dir := t.TempDir()
	replies := node(t, m.url,
		[]any{"listImages", map[string]any{}},
		[]any{"getImage", sampleWeb},
		[]any{"getImageFile", sampleBase, filepath.Join(dir, "base")},
		[]any{"getImageFile", sampleWeb, filepath.Join(dir, "web")},
	)
	var list []map[string]any
	replies[0].want(t, "listImages", &list)
	if len(list) != 2 {
		t.Errorf("listImages: %d images", len(list))
	}
	var got map[string]any
	replies[1].want(t, "getImage", &got)
	if got["origin"] != sampleBase {
		t.Errorf("getImage: %v", got)
	}
	replies[2].want(t, "getImageFile", nil)
	replies[3].want(t, "getImageFile", nil)
	wantOnDisk(t, filepath.Join(dir, "base"), base.file)
	wantOnDisk(t, filepath.Join(dir, "web"), web.file)
}

// TestPublishWrong: what does not fit together is refused, and leaves nothing.
func TestPublishWrong(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil)
	base := sample(t, sampleBase)
	manifest := m.create(base)
	flipped := bytes.Clone(base.file)
	flipped[len(flipped)/2] ^= 0x10
	file := filepath.Join(t.TempDir(), "flipped")
	if err := os.WriteFile(file, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	said := m.verb("publish", "-m", manifest, "-f", file)
	if said.code != 1 || !strings.Contains(said.stderr, base.sha1()) {
		t.Errorf("exit %d: %s", said.code, said.stderr)
	}
	get(t, m.url+"/images/"+sampleBase).wantError(t, 404, "ResourceNotFound")
	if files := append(m.files(), m.walk("partial")...); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	for _, args := range [][]string{
		{"publish", "-m", manifest}, {"publish", "-f", file}, {"manifest", "create", "-f", file, "--name", "x"},
		{"unpublish"}, {"unpublish", "x"},
	} {
		if said := m.verb(args...); said.code != 2 {
			t.Errorf("%v: exit %d, want 2: %s", args, said.code, said.stderr)
		}
	}
	m.imgmirror("manifest", "create", "-f", file, "--name", "a;b", "--version", "1", "--os", "smartos", "--type", "other").
		wantError(t, "manifest create", "InvalidParameter")
}
