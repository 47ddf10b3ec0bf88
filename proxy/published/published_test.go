package published

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

const (
	baseID  = "11111111-1111-4111-8111-111111111111"
	childID = "22222222-2222-4222-8222-222222222222"
	otherID = "33333333-3333-4333-8333-333333333333"
)

// gzipped is a file of about n bytes that begins as gzip does.
func gzipped(t *testing.T, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return packed(t, data)
}

// packed is data in gzip.
func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if _, err := zw.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// text is the manifest of file; replace are pairs of old and new text.
func text(id string, file []byte, replace ...string) []byte {
	s := fmt.Sprintf(`{"v":2,"uuid":"%s","owner":"00000000-0000-0000-0000-000000000000","name":"mine","version":"1.0.0",`+
		`"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z","type":"zone-dataset","os":"smartos",`+
		`"files":[{"sha1":"%x","size":%d,"compression":"gzip"}]}`, id, sha1.Sum(file), len(file))
	return []byte(strings.NewReplacer(replace...).Replace(s))
}

func withOrigin(id string) []string { return []string{`"type"`, `"origin":"` + id + `","type"`} }

// world is what a Source is plugged into: a store that keeps files by their
// sha1, a catalogue that takes the list.
type world struct {
	*Source
	listed map[uuid.UUID]string                                         // by other sources
	store  func(ctx context.Context, m manifest.Manifest, o Open) error // nil: keep
	change func() error                                                 // nil: works
	own    error                                                        // of Own
	disown error                                                        // of Disown

	mu       sync.Mutex
	files    map[verify.Sum][]byte
	saved    []manifest.Manifest
	owned    []uuid.UUID
	disowned []uuid.UUID
	removed  []uuid.UUID
	held     int // files that must stay
}

func newWorld(images ...manifest.Manifest) *world {
	w := &world{listed: make(map[uuid.UUID]string), files: make(map[verify.Sum][]byte)}
	w.Source = New(Options{
		Images: images,
		Listed: func(id uuid.UUID) string { return w.listed[id] },
		Find: func(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
			if m, err := w.Get(ctx, id); err == nil {
				return m, nil
			}
			if w.listed[id] == "" {
				return manifest.Manifest{}, fs.ErrNotExist
			}
			return manifest.Manifest{UUID: id, Files: make([]manifest.File, 1)}, nil
		},
		Store: func(ctx context.Context, m manifest.Manifest, o Open) (func(), error) {
			store := w.store
			if store == nil {
				store = w.keep
			}
			if err := store(ctx, m, o); err != nil {
				return nil, err
			}
			w.held++
			return func() { w.held-- }, nil
		},
		Own: func(m manifest.Manifest) error {
			if w.held == 0 {
				return errors.New("the file may be gone")
			}
			w.owned = append(w.owned, m.UUID)
			return w.own
		},
		Disown: func(m manifest.Manifest) error {
			if w.disown != nil {
				return w.disown
			}
			w.disowned = append(w.disowned, m.UUID)
			return nil
		},
		Changed: func(ctx context.Context) error {
			if w.change != nil {
				if err := w.change(); err != nil {
					return err
				}
			}
			l, err := w.List(ctx, manifest.Listing{})
			w.mu.Lock()
			defer w.mu.Unlock()
			w.saved = l.Images
			return err
		},
		Remove: func(_ context.Context, m manifest.Manifest) error {
			w.removed = append(w.removed, m.UUID)
			return nil
		},
	})
	return w
}

// keep reads an upload as the cache does: to its end, and once more when that
// was not the end it should have been.
func (w *world) keep(ctx context.Context, m manifest.Manifest, o Open) error {
	s, err := o(ctx, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	data, err := io.ReadAll(io.LimitReader(s, s.Size+1))
	if err != nil {
		return err
	}
	if int64(len(data)) < s.Size {
		if _, err := o(ctx, int64(len(data))); err != nil {
			return err
		}
	}
	if sum := verify.Sum(sha1.Sum(data)); sum != m.Files[0].SHA1 {
		return fmt.Errorf("%w: sha1 is %s", verify.ErrMismatch, sum)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[m.Files[0].SHA1] = data
	return nil
}

// holds tells whether these and no other images are listed and saved.
func (w *world) holds(t *testing.T, ids ...string) {
	t.Helper()
	got := func(images []manifest.Manifest) (ids []string) {
		for _, m := range images {
			ids = append(ids, m.UUID.String())
		}
		return ids
	}
	if s, want := fmt.Sprint(got(w.Images())), fmt.Sprint(ids); s != want {
		t.Errorf("published are %s, want %s", s, want)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, want := fmt.Sprint(got(w.saved)), fmt.Sprint(ids); s != want {
		t.Errorf("saved are %s, want %s", s, want)
	}
}

func TestPublish(t *testing.T) {
	w := newWorld()
	file := gzipped(t, 300_000)
	m, err := w.Publish(t.Context(), text(baseID, file), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if m.UUID.String() != baseID || !m.Listable() {
		t.Errorf("published %s, listable %t", m.UUID, m.Listable())
	}
	if !bytes.Equal(w.files[m.Files[0].SHA1], file) {
		t.Error("the store has other bytes than were sent")
	}
	child := gzipped(t, 1000)
	if _, err := w.Publish(t.Context(), text(childID, child, withOrigin(baseID)...), bytes.NewReader(child)); err != nil {
		t.Fatal(err)
	}
	w.holds(t, baseID, childID)

	// What was saved makes the same source again.
	again := newWorld(w.saved...)
	if got, err := again.Get(t.Context(), m.UUID); err != nil || !bytes.Equal(got.Raw(), m.Raw()) {
		t.Errorf("after a restart: %s, %v", got.Raw(), err)
	}
}

// Private images are published to be served.
func TestPublishPrivate(t *testing.T) {
	w := newWorld()
	file := gzipped(t, 10)
	m, err := w.Publish(t.Context(), text(baseID, file, `"public":true`, `"public":false`), bytes.NewReader(file))
	if err != nil || !m.Listable() {
		t.Fatalf("listable %t, %v", m.Listable(), err)
	}
	again := newWorld(w.saved...)
	if got, err := again.Get(t.Context(), m.UUID); err != nil || !got.Listable() {
		t.Errorf("after a restart: listable %t, %v", got.Listable(), err)
	}
}

// TestPublishCreated: what `imgadm create` writes, and what is not activated yet, is published as of now; the same
// manifest comes back after a restart.
func TestPublishCreated(t *testing.T) {
	file := gzipped(t, 10)
	bare := []string{`"owner":"00000000-0000-0000-0000-000000000000",`, ``, `"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z",`, ``}
	for name, replace := range map[string][]string{
		"created":                        bare,
		"created with a numeric version": append(bare, `"1.0.0"`, `1.10`),
		"unactivated":                    {`"active"`, `"unactivated"`, `"published_at":"2026-01-02T03:04:05.000Z",`, ``},
		"not activated":                  {`"state":"active"`, `"activated":false`, `"published_at":"2026-01-02T03:04:05.000Z",`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			begun := time.Now().Truncate(time.Second)
			m, err := w.Publish(t.Context(), text(baseID, file, replace...), bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			if !m.Listable() || m.Published.Before(begun) || m.Published.After(time.Now()) || m.Owner != uuid.Nil.String() {
				t.Errorf("published as %s", m.V2())
			}
			for _, member := range []string{`"state":"active"`, `"disabled":false`, `"public":true`, `"owner":"00000000-0000-0000-0000-000000000000"`} {
				if !bytes.Contains(m.V2(), []byte(member)) {
					t.Errorf("no %s in %s", member, m.V2())
				}
			}
			got, err := newWorld(w.saved...).Get(t.Context(), m.UUID)
			if err != nil || !bytes.Equal(got.V2(), m.V2()) {
				t.Errorf("after a restart: %s, %v", got.V2(), err)
			}
		})
	}
}

func TestPublishRefuses(t *testing.T) {
	file := gzipped(t, 200_000)
	short, long := file[:len(file)-1], append(bytes.Clone(file), 0)
	flipped := bytes.Clone(file)
	flipped[len(flipped)/2] ^= 1
	plain := bytes.Repeat([]byte("no magic"), 100)
	zstd := append([]byte("\x28\xb5\x2f\xfd"), file...)
	page := packed(t, []byte("<html><body>502 Bad Gateway</body></html>"))
	for _, c := range []struct {
		name string
		text []byte
		file []byte
		want error
	}{
		{"not JSON", []byte("{"), file, manifest.ErrInvalid},
		{"no file", text(baseID, file, `"files":[{`, `"files":[],"was":[{`), file, manifest.ErrInvalid},
		{"failed", text(baseID, file, `"active"`, `"failed"`), file, manifest.ErrInvalid},
		{"disabled by its state", text(baseID, file, `"active"`, `"disabled"`, `"disabled":false,`, ``), file, manifest.ErrInvalid},
		{"disabled", text(baseID, file, `"disabled":false`, `"disabled":true`), file, manifest.ErrInvalid},
		{"bad name", text(baseID, file, `"mine"`, `"mine;"`), file, manifest.ErrInvalid},
		{"a version that is none", text(baseID, file, `"1.0.0"`, `true`), file, manifest.ErrInvalid},
		{"zvol without drivers", text(baseID, file, `zone-dataset`, `zvol`), file, manifest.ErrInvalid},
		{"its own origin", text(baseID, file, withOrigin(baseID)...), file, manifest.ErrInvalid},
		{"one byte less", text(baseID, file), short, verify.ErrMismatch},
		{"one byte more", text(baseID, file), long, verify.ErrMismatch},
		{"one bit off", text(baseID, file), flipped, verify.ErrMismatch},
		{"nothing at all", text(baseID, file), nil, verify.ErrMismatch},
		{"not gzip", text(baseID, plain), plain, verify.ErrMismatch},
		{"not xz", text(baseID, file, `"gzip"`, `"xz"`), file, verify.ErrMismatch},
		{"gzip after all", text(baseID, file, `"gzip"`, `"none"`), file, verify.ErrMismatch},
		{"zstd", text(baseID, zstd, `"gzip"`, `"none"`), zstd, verify.ErrNoStream},
		{"zstd that says zstd", text(baseID, zstd, `"gzip"`, `"zstd"`), zstd, manifest.ErrInvalid},
		{"no compression", text(baseID, file, `,"compression":"gzip"`, ``), file, manifest.ErrInvalid},
		{"zstd, lx", text(baseID, zstd, `"gzip"`, `"none"`, "zone-dataset", "lx-dataset"), zstd, verify.ErrNoStream},
		{"a web page in gzip", text(baseID, page), page, verify.ErrNoStream},
		{"another source's", text(otherID, file), file, ErrExists},
		{"no origin", text(baseID, file, withOrigin(childID)...), file, ErrOrigin},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.listed[uuid.MustParse(otherID)] = "joyent"
			_, err := w.Publish(t.Context(), c.text, bytes.NewReader(c.file))
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			w.holds(t)
		})
	}
}

// What cannot be told of a file passes, and so does everything for types whose file may be anything.
func TestPublishTakes(t *testing.T) {
	zstd := append([]byte("\x28\xb5\x2f\xfd"), gzipped(t, 1000)...)
	page := packed(t, []byte("<html><body>502 Bad Gateway</body></html>"))
	for name, c := range map[string]struct{ text, file []byte }{
		"broken gzip": {text(baseID, []byte("\x1f\x8b\x08pppppppppp")), []byte("\x1f\x8b\x08pppppppppp")},
		"other: zstd": {text(baseID, zstd, `"gzip"`, `"none"`, "zone-dataset", "other"), zstd},
		"lxd: a page": {text(baseID, page, "zone-dataset", "lxd"), page},
	} {
		w := newWorld()
		if _, err := w.Publish(t.Context(), c.text, bytes.NewReader(c.file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.holds(t, baseID)
	}
}

func TestPublishTwice(t *testing.T) {
	w := newWorld()
	file := gzipped(t, 10)
	publish := func() error {
		_, err := w.Publish(t.Context(), text(baseID, file), bytes.NewReader(file))
		return err
	}
	var inner error
	w.store = func(ctx context.Context, m manifest.Manifest, o Open) error {
		inner = publish() // while the first is under way
		return w.keep(ctx, m, o)
	}
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(inner, ErrExists) {
		t.Errorf("side by side: %v", inner)
	}
	if err := publish(); !errors.Is(err, ErrExists) {
		t.Errorf("one after the other: %v", err)
	}
}

// The store may have the bytes already and never open the upload, or lose
// interest in it: the file is hashed all the same.
func TestPublishOfKnownBytes(t *testing.T) {
	file := gzipped(t, 300_000)
	stores := map[string]func(ctx context.Context, m manifest.Manifest, o Open) error{
		"never opened": func(context.Context, manifest.Manifest, Open) error { return nil },
		"left halfway": func(ctx context.Context, _ manifest.Manifest, o Open) error {
			s, err := o(ctx, 1000)
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = io.CopyN(io.Discard, s, 1000)
			return err
		},
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.store = store
			for _, cut := range []io.Reader{
				bytes.NewReader(file[1:]), io.MultiReader(bytes.NewReader(file[:2000]), iotest.ErrReader(verify.ErrMismatch)),
			} {
				if _, err := w.Publish(t.Context(), text(baseID, file), cut); !errors.Is(err, verify.ErrMismatch) {
					t.Errorf("wrong bytes: %v", err)
				}
			}
			w.holds(t)
			if len(w.owned) != 0 || w.held != 0 {
				t.Errorf("the file is noted as that of %v, and held by %d", w.owned, w.held)
			}
			if _, err := w.Publish(t.Context(), text(baseID, file), bytes.NewReader(file)); err != nil {
				t.Errorf("right bytes: %v", err)
			}
		})
	}
}

func TestPublishFails(t *testing.T) {
	full, gone := errors.New("disk is full"), errors.New("connection lost")
	file := gzipped(t, 300_000)

	w := newWorld()
	w.store = func(context.Context, manifest.Manifest, Open) error { return full }
	endless := io.MultiReader(bytes.NewReader(file), rand.NewChaCha8([32]byte{}))
	if _, err := w.Publish(t.Context(), text(baseID, file), endless); !errors.Is(err, full) {
		t.Errorf("a store that fails: %v", err)
	}
	w.holds(t)

	w = newWorld()
	w.own = gone
	if _, err := w.Publish(t.Context(), text(baseID, file), bytes.NewReader(file)); !errors.Is(err, gone) {
		t.Errorf("a file that was removed at the last moment: %v", err)
	}
	w.holds(t)
	if len(w.saved) > 0 {
		t.Errorf("saved are %v", w.saved)
	}

	w = newWorld()
	lost := io.MultiReader(bytes.NewReader(file[:100_000]), iotest.ErrReader(gone))
	if _, err := w.Publish(t.Context(), text(baseID, file), lost); !errors.Is(err, gone) {
		t.Errorf("a sender that fails: %v", err)
	}
	w.holds(t)

	w = newWorld()
	calls := 0
	w.change = func() error {
		if calls++; calls == 1 {
			return full
		}
		return nil
	}
	if _, err := w.Publish(t.Context(), text(baseID, file), bytes.NewReader(file)); !errors.Is(err, full) {
		t.Errorf("a list that cannot be saved: %v", err)
	}
	w.holds(t)
	if got := fmt.Sprint(w.removed); got != "["+baseID+"]" {
		t.Errorf("removed %s, want the file that is of no use", got)
	}
	if _, err := w.Publish(t.Context(), text(baseID, file), bytes.NewReader(file)); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// The store's context ends a read for which no bytes come.
func TestUploadMindsContext(t *testing.T) {
	u := newUpload(10)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := u.open(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n, err := u.Write([]byte("more")); n != 4 || err != nil {
		t.Errorf("write without a reader: %d, %v", n, err)
	}
	u.over(errors.New("stalled"))
	if _, err := u.Write([]byte("more")); !errors.Is(err, errNotStored) {
		t.Errorf("write after the store gave up: %v", err)
	}
}

func TestUnpublish(t *testing.T) {
	w := newWorld()
	base, child := gzipped(t, 10), gzipped(t, 20)
	for _, p := range []struct{ text, file []byte }{
		{text(baseID, base), base}, {text(childID, child, withOrigin(baseID)...), child},
	} {
		if _, err := w.Publish(t.Context(), p.text, bytes.NewReader(p.file)); err != nil {
			t.Fatal(err)
		}
	}
	unpublish := func(id string) error {
		_, err := w.Unpublish(t.Context(), uuid.MustParse(id))
		return err
	}
	if err := unpublish(baseID); !errors.Is(err, ErrDependent) || !strings.Contains(err.Error(), childID) {
		t.Errorf("with a child: %v", err)
	}
	if err := unpublish(otherID); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "file") {
		t.Errorf("never published: %v", err)
	}
	w.change = func() error { return errors.New("disk is full") }
	if err := unpublish(childID); err == nil {
		t.Error("a list that could not be saved is no error")
	}
	w.change = nil
	w.holds(t, baseID, childID)
	w.disown = errors.New("the folder of manifests cannot be written")
	if err := unpublish(childID); !errors.Is(err, w.disown) {
		t.Errorf("an image that a start would find again: %v", err)
	}
	w.holds(t, baseID, childID)
	if len(w.removed) > 0 {
		t.Errorf("removed %s, although it stays published", w.removed)
	}
	w.disown = nil
	if err := unpublish(childID); err != nil {
		t.Fatal(err)
	}
	w.holds(t, baseID)
	if err := unpublish(baseID); err != nil {
		t.Fatal(err)
	}
	w.holds(t)
	if got := fmt.Sprint(w.removed); got != fmt.Sprintf("[%s %s]", childID, baseID) {
		t.Errorf("removed %s", got)
	}
}

// An image may not lose its origin while it is being published.
func TestUnpublishOriginOfUpload(t *testing.T) {
	w := newWorld()
	base, child := gzipped(t, 10), gzipped(t, 20)
	if _, err := w.Publish(t.Context(), text(baseID, base), bytes.NewReader(base)); err != nil {
		t.Fatal(err)
	}
	var during error
	w.store = func(ctx context.Context, m manifest.Manifest, o Open) error {
		_, during = w.Unpublish(ctx, uuid.MustParse(baseID))
		return w.keep(ctx, m, o)
	}
	if _, err := w.Publish(t.Context(), text(childID, child, withOrigin(baseID)...), bytes.NewReader(child)); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(during, ErrDependent) {
		t.Errorf("its origin's unpublish: %v", during)
	}
	w.holds(t, baseID, childID)
}

func FuzzCheck(f *testing.F) {
	f.Add(text(baseID, []byte("file")))
	f.Add(text(baseID, []byte("file"), `zone-dataset`, `zvol`))
	f.Add([]byte(`{"uuid":"x","creator_uuid":"y"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Check(data)
		if err != nil {
			if !errors.Is(err, manifest.ErrInvalid) {
				t.Errorf("%v does not match ErrInvalid", err)
			}
			return
		}
		if !m.Listable() || len(m.Files) != 1 {
			t.Errorf("taken, but not listable: %s", data)
		}
	})
}
