package imported

import (
	"context"
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

// world is a Source and what its catalogue was given last.
type world struct {
	*Source
	t      *testing.T
	dir    string
	served []string
	fails  error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "imported")}
	w.open()
	return w
}

// open makes the Source as a start of the mirror does.
func (w *world) open() {
	w.t.Helper()
	s, err := New(Options{Dir: w.dir, Changed: func(ctx context.Context) error {
		l, err := w.List(ctx, manifest.Listing{})
		if err != nil || w.fails != nil {
			return errors.Join(err, w.fails)
		}
		w.served = nil
		for _, m := range l.Images {
			w.served = append(w.served, m.UUID.String())
		}
		return nil
	}})
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

func (w *world) serves(ids ...uuid.UUID) {
	w.t.Helper()
	var want []string
	for _, id := range ids {
		want = append(want, id.String())
	}
	if diff := cmp.Diff(want, w.served); diff != "" {
		w.t.Errorf("the catalogue has (-want +got):\n%s", diff)
	}
}

func TestAddAndForget(t *testing.T) {
	w := newWorld(t)
	base, child := image(t, baseID, "base"), image(t, childID, "child")
	w.add(child, monday)
	w.add(base, monday)
	w.serves() // nobody was told yet
	if err := w.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.serves(baseID, childID)
	for range 2 {
		got, err := w.Get(t.Context(), childID)
		if err != nil || string(got.Raw()) != string(child.Raw()) || !got.Listable() {
			t.Errorf("%s, listable %t, %v", got.Raw(), got.Listable(), err)
		}
		if from, ok := w.Provenance(childID); !ok || from != monday {
			t.Errorf("from %+v", from)
		}
		w.open() // and after a restart
	}

	forgotten, err := w.Forget(t.Context(), childID, uuid.New())
	if err != nil || len(forgotten) != 1 || forgotten[0] != childID {
		t.Errorf("forgotten: %v, %v", forgotten, err)
	}
	w.serves(baseID)
	w.open()
	if _, err := w.Get(t.Context(), childID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := w.File(t.Context(), base, 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file: %v", err)
	}
	if forgotten, err := w.Forget(t.Context(), childID); err != nil || forgotten != nil {
		t.Errorf("once more: %v, %v", forgotten, err)
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
	first, second := w.Expect([]uuid.UUID{baseID}), w.Expect([]uuid.UUID{baseID, childID})
	f(true)
	first()
	first()
	f(true)
	second()
	f(false)
	w.add(image(t, baseID, "base"), monday)
	f(true)
	third := w.Release([]uuid.UUID{baseID})
	f(false)
	third()
	f(true)
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
	if images := w.Images(); len(images) != 1 || images[0].UUID != baseID {
		t.Errorf("images: %v", images)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", half, err)
	}
	w.add(image(t, childID, "child"), tuesday)
	w.open()
	if n := len(w.Images()); n != 2 {
		t.Errorf("%d images after the repair", n)
	}
}

func TestCatalogFails(t *testing.T) {
	w := newWorld(t)
	w.add(image(t, baseID, "base"), monday)
	w.fails = errors.New("no room")
	if err := w.Publish(t.Context()); !errors.Is(err, w.fails) {
		t.Errorf("%v", err)
	}
	if forgotten, err := w.Forget(t.Context(), baseID); !errors.Is(err, w.fails) || len(forgotten) != 1 {
		t.Errorf("%v, %v", forgotten, err)
	}
}
