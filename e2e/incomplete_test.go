package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgmirror/proxy/upstream/upstreamtest"
)

// without is a sample whose manifest tells another thing of its file; nil takes a key away.
func without(t testing.TB, uuid string, change map[string]any) image {
	t.Helper()
	img := sample(t, uuid)
	fields := img.fields(t)
	file := fields["files"].([]any)[0].(map[string]any)
	maps.Copy(file, change)
	maps.DeleteFunc(file, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	img.manifest = text
	return img
}

// incomplete are images whose sources do not tell of the file what imgadm cannot do without, and one that no node can
// receive.
func incomplete(t testing.TB) (told []image, unusable image) {
	unusable = newImage("zstd", 5000)
	file := append([]byte("\x28\xb5\x2f\xfd"), unusable.file[4:]...)
	unusable.file = file
	unusable = newImage("zstd", 5000, map[string]any{"files": []any{map[string]any{"sha1": unusable.sha1(), "size": 5000, "compression": "zstd"}}})
	unusable.file = file
	return []image{
		without(t, sampleBase, map[string]any{"compression": nil}),
		without(t, sampleWeb, map[string]any{"compression": "", "size": nil}),
		without(t, sampleApp, map[string]any{"compression": "zstd"}),
		without(t, sampleXZ, map[string]any{"size": 0}),
		without(t, samplePlain, map[string]any{"compression": nil, "size": nil}),
	}, unusable
}

// TestIncompleteImages: imgadm lists and imports images whose source tells neither size nor compression, of every
// kind of source; what no node can receive is not on the list, and it is said why. The source's files are not fetched for
// that, and not looked at again after a restart.
func TestIncompleteImages(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"imgapi", "static", "directory"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			images, unusable := incomplete(t)
			all := append(images, unusable)
			var src *source
			var url string
			if kind == "directory" {
				url = t.TempDir()
				for _, img := range all {
					folder := filepath.Join(url, img.uuid)
					for _, err := range []error{os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "manifest.json"), img.manifest, 0o644), os.WriteFile(filepath.Join(folder, "file"), img.file, 0o644)} {
						if err != nil {
							t.Fatal(err)
						}
					}
				}
			} else {
				src = newSourceWith(t, upstreamtest.Options{Dialect: upstreamtest.Dialect(kind)}, all...)
				url = src.URL()
			}
			m := startMirror(t, nil, from(url))
			wanted := func() {
				t.Helper()
				m.awaitList(len(images))
				c := newImgadm(t, m, "imgapi")
				list, err := c.avail()
				if err != nil || len(list) != len(images) {
					t.Fatalf("%d images listed, %v", len(list), err)
				}
				for _, id := range []string{sampleApp, sampleXZ, samplePlain} { // sampleApp is built on two others
					got, err := c.importImage(id)
					if err != nil {
						t.Fatal(err)
					}
					for _, im := range got {
						snapshotGUIDs(t, decompress(t, im.compression, im.file))
					}
				}
				if got, err := c.show(unusable.uuid); err != nil || got["uuid"] != unusable.uuid {
					t.Errorf("by uuid: %v, %v", got["uuid"], err)
				}
				get(t, m.url+filePath(unusable)).wantFile(t, unusable)
				if said := m.verb("show", unusable.uuid); !strings.Contains(said.stderr, "compression zstd: no node can receive it") {
					t.Errorf("show: %s", said.stderr)
				}
				m.verb("sources", "-j").want(t, `"unusable": 1`)
			}
			wanted()
			m.restart()
			wanted()
			if src == nil {
				return
			}
			asked := make(map[string]int)
			for _, r := range src.Requests() {
				asked[r.Path]++
			}
			for path, n := range asked {
				if strings.HasPrefix(path, "/") && strings.HasSuffix(path, "/file") && n > 3 {
					t.Errorf("%s was asked for %d times", path, n)
				}
			}
		})
	}
}

// TestIncompleteWhileDown: an image of whose file nothing can be learned is not listed, and it is said why; by uuid it
// is served to those who ask.
func TestIncompleteWhileDown(t *testing.T) {
	t.Parallel()
	images, _ := incomplete(t)
	whole := newImage("whole", 1000)
	src := newSource(t, append(images, whole)...)
	src.Inject(upstreamtest.Fault{Path: "/file", Status: 503})
	m := startMirror(t, nil, from(src.URL(), settings{"refresh": "1s"}))
	m.awaitList(1)
	said := m.verb("show", sampleXZ)
	if !strings.Contains(said.stdout, `"uuid": "`+sampleXZ+`"`) {
		t.Errorf("show: %s", said.stdout)
	}
	for _, part := range []string{"its size is not known yet", "503", "(incomplete)"} {
		if !strings.Contains(said.stderr, part) {
			t.Errorf("show: %q does not say %q", said.stderr, part)
		}
	}
	m.verb("sources", "-j").want(t, `"incomplete": 5`)
	get(t, m.url+"/images/"+sampleBase).has(t, sampleBase)
	get(t, m.url+"/images").has(t, whole.uuid)
}
