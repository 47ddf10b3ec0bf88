package e2e

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// formerImages are those of the data folders in cache/testdata/layouts, by name: uuid and sha1.
var formerImages = map[string][2]string{
	"kept":       {"00000001-1a70-4e0f-8a7d-000000000001", "012c00aabe19474dace7dd64c2359f59f73fceab"},
	"unfinished": {"00000002-1a70-4e0f-8a7d-000000000002", "1738a2620339cfef4b6110b8eff79b10289fca0d"},
	"published":  {"00000003-1a70-4e0f-8a7d-000000000003", "fbf4dd8784202d5968acee9a282245ad90bdab7a"},
	"imported":   {"00000004-1a70-4e0f-8a7d-000000000004", "8af8e1d695b0ef0604aed1ddf69fc3e5d22740d6"},
}

// The data folders of all former versions are opened as they are, and serve what they have, with every
// source down. They say their format from then on.
func TestFormerLayouts(t *testing.T) {
	layouts, err := filepath.Glob("../cache/testdata/layouts/*.tar.gz")
	if err != nil || len(layouts) < 4 {
		t.Fatalf("%d data folders of former versions: %v", len(layouts), err)
	}
	has := map[string][]string{
		"1-first.tar.gz":   {"kept", "unfinished"},
		"1-publish.tar.gz": {"kept", "published", "unfinished"},
		"1-bundles.tar.gz": {"imported", "kept", "published", "unfinished"},
		"1-packs.tar.gz":   {"imported", "kept", "published", "unfinished"},
	}
	for _, layout := range layouts {
		t.Run(filepath.Base(layout), func(t *testing.T) {
			t.Parallel()
			want := has[filepath.Base(layout)]
			m := newMirror(t, nil, from("http://"+freeAddr(t), settings{"name": "source"}))
			if err := os.Mkdir(m.data(), 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "tar", "-xzf", layout, "-C", m.data()).CombinedOutput(); err != nil {
				t.Fatalf("tar: %v\n%s", err, out)
			}
			left := m.walk("partial")
			if len(left) != 1 {
				t.Fatalf("partial files before: %q", left)
			}
			if err := os.Chtimes(m.data("partial", left[0]), time.Time{}, time.Now()); err != nil { // else it is stale
				t.Fatal(err)
			}
			for range 2 { // the second start finds what the first has made of the folder
				m.start()
				m.awaitList(len(want))
				wantFormer(t, m, want)
				m.stop()
				if got, err := os.ReadFile(m.data("format")); string(got) != "2\n" || err != nil {
					t.Errorf("the folder says %q, %v", got, err)
				}
				if now := m.walk("partial"); !slices.Equal(now, left) {
					t.Errorf("partial files were %q and are %q", left, now)
				}
			}
		})
	}
}

// wantFormer wants the images of a former data folder: listed, and their files but the unfinished one served.
func wantFormer(t *testing.T, m *mirror, want []string) {
	t.Helper()
	var list []struct{ Name string }
	if r := get(t, m.url+"/images"); r.status != http.StatusOK || json.Unmarshal(r.body, &list) != nil {
		t.Fatalf("GET /images: %d %.500s", r.status, r.body)
	}
	var names []string
	for _, image := range list {
		names = append(names, image.Name)
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("listed are %q, want %q", names, want)
	}
	for _, name := range want {
		if name == "unfinished" {
			continue
		}
		file := get(t, m.url+"/images/"+formerImages[name][0]+"/file")
		if sum := sha1.Sum(file.body); file.status != http.StatusOK || hex.EncodeToString(sum[:]) != formerImages[name][1] {
			t.Errorf("%s: %d, sha1 %x of %d bytes", name, file.status, sum, len(file.body))
		}
	}
	if slices.Contains(want, "published") { // that version had pins
		if said := m.verb("list", "-H", "-o", "name,pinned", "name=kept"); strings.Join(strings.Fields(said.stdout), " ") != "kept true" {
			t.Errorf("list: %q %s", said.stdout, said.stderr)
		}
	}
}

// A data folder of a later version is refused, by serve and by the verbs, and stays as it is.
func TestLaterFormat(t *testing.T) {
	m := newMirror(t, nil)
	m.start()
	m.stop()
	if err := os.WriteFile(m.data("format"), []byte("3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := m.walk("")
	for _, smf := range []string{"", "SMF_FMRI=svc:/application/imgmirror:default"} {
		m.env = append(cleanEnv(), smf)
		m.launch()
		want := 1
		if smf != "" {
			want = 95
		}
		if code := m.awaitExit(20 * time.Second); code != want {
			t.Errorf("serve, %q: exit %d, want %d", smf, code, want)
		}
	}
	m.env = cleanEnv()
	if log := m.log(); !strings.Contains(log, "error (DataFolderFormat): data folder of another format: "+m.data()+
		" is of format 3, and this imgmirror reads formats up to 2: nothing was changed; start the later version that wrote the folder") {
		t.Errorf("serve said:\n%s", tail(log, 2<<10))
	}
	for _, line := range []string{"list", "avail", "pin " + formerImages["kept"][0], "verify", "vacuum", "doctor"} {
		said := m.verb(strings.Fields(line)...)
		if verb, _, _ := strings.Cut(line, " "); verb == "doctor" {
			if !strings.Contains(said.stdout, "is of format 3") || said.code != 1 {
				t.Errorf("doctor: exit %d\n%s%s", said.code, said.stdout, said.stderr)
			}
		} else {
			said.wantError(t, verb, "DataFolderFormat")
		}
	}
	if after := m.walk(""); !slices.Equal(after, before) {
		t.Errorf("the folder had %q and has %q", before, after)
	}
}
