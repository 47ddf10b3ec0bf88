package mirror

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Published images outlive restarts and the loss of the index; unpublished ones
// leave nothing behind.
func TestPublishedImagesSurvive(t *testing.T) {
	for _, offline := range []bool{false, true} {
		o := testOptions(t)
		o.Sources.Offline = offline
		m, stop := runMirror(t, o)
		for _, id := range []uuid.UUID{sampleBase, sampleWeb} {
			text, file := sampleFiles(t, id)
			if _, err := m.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
				t.Fatal(err)
			}
		}
		check := func(when string) {
			t.Helper()
			if got := listed(m); len(got) != 2 || !got[sampleBase] || !got[sampleWeb] {
				t.Errorf("%s: listed are %v", when, got)
			}
			if !cached(t, m, sampleBase) || !cached(t, m, sampleWeb) {
				t.Errorf("%s: a file is missing", when)
			}
			entry, _ := m.Current().Entry(sampleBase)
			text, _ := sampleFiles(t, sampleBase)
			want, err := manifest.Parse(text, manifest.ParseOptions{})
			if err != nil || !bytes.Equal(entry.Manifest.V2(), want.V2()) {
				t.Errorf("%s: the manifest is %s", when, entry.Manifest.V2())
			}
		}
		check("at once")
		stop()
		m, stop = runMirror(t, o)
		check("after a restart")
		stop()
		if err := os.RemoveAll(filepath.Join(o.Cache.Dir, "index")); err != nil {
			t.Fatal(err)
		}
		m, stop = runMirror(t, o)
		check("after the loss of the index")

		for _, id := range []uuid.UUID{sampleWeb, sampleBase} {
			if _, err := m.Unpublish(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if got := listed(m); len(got) != 0 {
			t.Errorf("listed after all were unpublished: %v", got)
		}
		if got := m.store.Files(); len(got) != 0 {
			t.Errorf("files after all were unpublished: %v", got)
		}
		stop()
		if err := os.RemoveAll(filepath.Join(o.Cache.Dir, "index")); err != nil {
			t.Fatal(err)
		}
		m, stop = runMirror(t, o)
		if got := listed(m); len(got) != 0 {
			t.Errorf("unpublished images came back: %v", got)
		}
		stop()
	}
}

// A wrong upload leaves nothing behind and does not stand in the way of a right one.
func TestPublishWrongFile(t *testing.T) {
	m, _ := runMirror(t, testOptions(t))
	text, file := sampleFiles(t, sampleBase)
	wrong := bytes.Clone(file)
	wrong[len(wrong)-1] ^= 1
	for name, data := range map[string][]byte{
		"one bit": wrong, "short": file[:len(file)/2], "long": append(bytes.Clone(file), 0), "nothing": nil,
	} {
		if _, err := m.Publish(t.Context(), text, bytes.NewReader(data)); err == nil {
			t.Errorf("%s: published", name)
		}
		if n, parts := len(m.store.Files()), m.store.Partials(); n != 0 || len(parts) != 0 {
			t.Errorf("%s: left %d files, partial %v", name, n, parts)
		}
	}
	if _, err := m.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
		t.Error(err)
	}
}

// The file of an unpublished image stays if another image has the same.
func TestUnpublishSharedFile(t *testing.T) {
	o := testOptions(t)
	m, _ := runMirror(t, o)
	text, file := sampleFiles(t, sampleBase)
	twin := bytes.ReplaceAll(text, []byte(sampleBase.String()), []byte(sampleApp.String()))
	for _, text := range [][]byte{text, twin} {
		if _, err := m.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Unpublish(t.Context(), sampleBase); err != nil {
		t.Fatal(err)
	}
	if !cached(t, m, sampleApp) {
		t.Error("the other image has lost its file")
	}
	// What is on disk, from which a lost index is made anew, tells of the other only.
	for id, want := range map[uuid.UUID]bool{sampleBase: false, sampleApp: true} {
		_, err := os.Stat(filepath.Join(o.Cache.Dir, "manifests", id.String()+".json"))
		if (err == nil) != want {
			t.Errorf("copy of the manifest of %s: %v", id, err)
		}
	}
	for _, f := range m.store.Files() {
		if slices.Contains(f.Images, sampleBase) {
			t.Errorf("file %s still belongs to what was unpublished", f.Sum)
		}
	}
}

// An upload that stalls is told so, leaves nothing behind, and can be sent again.
func TestPublishStalls(t *testing.T) {
	o := testOptions(t)
	usual := o
	o.Cache.StallTimeout = 50 * time.Millisecond
	m, stop := runMirror(t, o)
	text, file := sampleFiles(t, sampleBase)
	wait := readerFunc(func([]byte) (int, error) {
		for len(m.store.Fills()) > 0 {
			runtime.Gosched()
		}
		return 0, io.EOF
	})
	half := file[:len(file)/2]
	_, err := m.Publish(t.Context(), text, io.MultiReader(bytes.NewReader(half), wait, bytes.NewReader(file[len(half):])))
	if err == nil || !strings.Contains(err.Error(), "no byte for 50ms") {
		t.Errorf("stalled: %v", err)
	}
	if parts := m.store.Partials(); len(parts) != 0 {
		t.Errorf("left behind: %v", parts)
	}
	stop()
	m, _ = runMirror(t, usual)
	if _, err := m.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
