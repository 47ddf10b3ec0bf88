package own

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

var (
	baseID  = uuid.MustParse("11111111-1111-4111-8111-111111111111")
	childID = uuid.MustParse("22222222-2222-4222-8222-222222222222")
	monday  = Provenance{Bundle: "b1", Created: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC), Mirror: "here/1.0", Key: "AB", Imported: time.Date(2026, 1, 7, 0, 0, 0, 0, time.UTC)}
	tuesday = Provenance{Bundle: "b2", Created: time.Date(2026, 1, 6, 0, 0, 0, 0, time.UTC), Mirror: "here/1.0", Imported: time.Date(2026, 1, 8, 0, 0, 0, 0, time.UTC)}
	here    Provenance // of published images
)

// image is a private one, as a source of its own is allowed to have it. Its
// manifest has an order and white space of its own.
func image(t *testing.T, id uuid.UUID, description string) manifest.Manifest {
	t.Helper()
	m, err := Parse(fmt.Appendf(nil, `{"v":2, "uuid":"%s","name":"mine","version":"1.0.0","state":"active","disabled":false,"public":false,`+
		`"published_at":"2026-01-02T03:04:05.000Z","type":"zone-dataset","os":"smartos","description":%q,`+
		`"files":[{"size":3,"sha1":"a9993e364706816aba3e25717850c26c9cd0d89d","compression":"gzip"}]}`, id, description))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// world is a Source and its folder.
type world struct {
	*Source
	t      *testing.T
	dir    string
	former func() ([]manifest.Manifest, error)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: filepath.Join(t.TempDir(), Imported)}
	w.open()
	return w
}

// open makes the Source as a start of the mirror does.
func (w *world) open() {
	w.t.Helper()
	s, err := Open(Imported, w.dir, w.former, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Source = s
}

func (w *world) add(m manifest.Manifest, from Provenance) {
	w.t.Helper()
	if err := w.Add(m, from); err != nil {
		w.t.Fatal(err)
	}
}

// lists tells whether the catalogue is given these images and no others.
func (w *world) lists(ids ...uuid.UUID) {
	w.t.Helper()
	l, err := w.List(w.t.Context(), manifest.Listing{})
	if err != nil {
		w.t.Fatal(err)
	}
	var got []uuid.UUID
	for _, m := range l.Images {
		got = append(got, m.UUID)
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		w.t.Errorf("the catalogue has (-want +got):\n%s", diff)
	}
}

// Images outlive a restart, with their manifests byte for byte, whether a bundle brought them or not.
func TestAddAndRemove(t *testing.T) {
	for _, from := range []Provenance{monday, here} {
		w := newWorld(t)
		base, child := image(t, baseID, "base"), image(t, childID, "child")
		w.add(child, from)
		w.add(base, from)
		for range 2 {
			w.lists(baseID, childID)
			got, err := w.Get(t.Context(), childID)
			if err != nil || string(got.Raw()) != string(child.Raw()) || !got.Listable() {
				t.Errorf("%s, listable %t, %v", got.Raw(), got.Listable(), err)
			}
			if is, ok := w.Provenance(childID); !ok || is != from {
				t.Errorf("from %+v", is)
			}
			w.open() // and after a restart
		}

		removed, err := w.Remove(childID, uuid.New())
		if err != nil || len(removed) != 1 || removed[0] != childID {
			t.Errorf("removed: %v, %v", removed, err)
		}
		w.lists(baseID)
		w.open()
		w.lists(baseID)
		if _, err := w.Get(t.Context(), childID); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after a restart: %v", err)
		}
		if _, err := w.File(t.Context(), base, 0, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file: %v", err)
		}
		if removed, err := w.Remove(childID); err != nil || removed != nil {
			t.Errorf("once more: %v, %v", removed, err)
		}
	}
}

// TestAddAgain: the newer bundle has the last word, in whatever order they come.
func TestAddAgain(t *testing.T) {
	w := newWorld(t)
	old, fresh := image(t, baseID, "old"), image(t, baseID, "fresh")
	f := func(want manifest.Manifest, from Provenance) {
		t.Helper()
		w.open()
		got, err := w.Get(t.Context(), baseID)
		if err != nil || string(got.Raw()) != string(want.Raw()) {
			t.Errorf("%s, %v", got.Raw(), err)
		}
		if is, _ := w.Provenance(baseID); is != from {
			t.Errorf("from %+v, want %+v", is, from)
		}
	}
	w.add(old, monday)
	f(old, monday)
	w.add(fresh, tuesday)
	f(fresh, tuesday)
	w.add(old, monday)
	f(fresh, tuesday)
	again := tuesday
	again.Bundle, again.Created = "b3", again.Created.Add(time.Hour)
	w.add(fresh, again) // the same once more is no news
	f(fresh, tuesday)
}

func TestKeeps(t *testing.T) {
	w := newWorld(t)
	f := func(want bool) {
		t.Helper()
		if got := w.Keeps(baseID); got != want {
			t.Errorf("kept: %t, want %t", got, want)
		}
	}
	f(false)
	first, second := w.Expect(baseID), w.Expect(baseID, childID)
	f(true)
	first()
	first()
	f(true)
	second()
	f(false)
	w.add(image(t, baseID, "base"), monday)
	f(true)
	third := w.Release(baseID)
	f(false)
	third()
	f(true)
}

// An image that is withdrawn is not listed, and is again when the removal is called off or cut short.
func TestWithdraw(t *testing.T) {
	w := newWorld(t)
	w.add(image(t, baseID, "base"), here)
	restore := w.Withdraw(baseID)
	w.lists()
	if _, err := w.Get(t.Context(), baseID); !errors.Is(err, fs.ErrNotExist) || !w.Keeps(baseID) {
		t.Errorf("withdrawn: %v; kept: %t", err, w.Keeps(baseID))
	}
	restore()
	w.lists(baseID)
	w.Withdraw(baseID)
	w.open()
	w.lists(baseID)
	restore = w.Withdraw(baseID)
	if removed, err := w.Remove(baseID); err != nil || len(removed) != 1 {
		t.Errorf("removed: %v, %v", removed, err)
	}
	restore()
	w.lists()
}

// TestDamage: a record that cannot be read harms no other, and a write that never
// ended leaves nothing.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	w.add(image(t, baseID, "base"), monday)
	w.add(image(t, childID, "child"), monday)
	half := filepath.Join(w.dir, disk.NewPrefix+"123")
	for path, text := range map[string]string{
		filepath.Join(w.dir, childID.String()+".json"): `{"bundle":`,
		half:                               `{`,
		filepath.Join(w.dir, "README.txt"): "not ours",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	w.lists(baseID)
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", half, err)
	}
	w.add(image(t, childID, "child"), tuesday)
	w.open()
	w.lists(baseID, childID)
}

// A folder begins with the records of all former images or is not there: those that could not be
// written, or were written by half, are written by the next Add.
func TestFormer(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.former = func() ([]manifest.Manifest, error) {
		asked++
		return []manifest.Manifest{image(t, baseID, "base")}, nil
	}
	cut := w.dir + ".new" // as a process leaves it that ends meanwhile
	err := errors.Join(os.Mkdir(cut, 0o755), os.WriteFile(filepath.Join(cut, uuid.NewString()+".json"), nil, 0o600),
		os.Symlink("nowhere", w.dir)) // no folder takes its place
	if err != nil {
		t.Fatal(err)
	}
	w.open()
	w.lists(baseID)
	if _, err := w.Remove(baseID); !errors.Is(err, disk.ErrUnusable) {
		t.Errorf("remove: %v", err)
	}
	if err := w.Add(image(t, childID, "child"), here); !errors.Is(err, disk.ErrUnusable) {
		t.Errorf("add: %v", err)
	}
	if err := os.Remove(w.dir); err != nil {
		t.Fatal(err)
	}
	w.add(image(t, childID, "child"), here)
	for range 2 {
		w.open()
		w.lists(baseID, childID)
	}
	if asked != 1 {
		t.Errorf("asked %d times for the former images", asked)
	}
	if _, err := os.Stat(cut); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", cut, err)
	}

	// A folder that is lost while the mirror runs is made anew by the next Add, with all that is known.
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Remove(childID); !errors.Is(err, disk.ErrUnusable) {
		t.Errorf("remove without the folder: %v", err)
	}
	w.add(image(t, uuid.MustParse("33333333-3333-4333-8333-333333333333"), "third"), monday)
	w.open()
	if n := len(w.Images()); n != 3 {
		t.Errorf("%d images", n)
	}
}
