package mirror

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
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

var (
	ownBase  = uuid.MustParse("11111111-1111-4111-8111-111111111111")
	ownChild = uuid.MustParse("22222222-2222-4222-8222-222222222222")
)

// gzipped is a file of about n bytes that begins as gzip does.
func gzipped(t *testing.T, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	data[0] = 0 // by chance a few bytes are all letters, and plain text is no image
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
func text(id uuid.UUID, file []byte, replace ...string) []byte {
	s := strings.ReplaceAll(string(ownManifest(file)), ownImage.String(), id.String())
	return []byte(strings.NewReplacer(replace...).Replace(s))
}

func withOrigin(id uuid.UUID) []string {
	return []string{`"type"`, `"origin":"` + id.String() + `","type"`}
}

func publish(t *testing.T, m *Mirror, text, file []byte) {
	t.Helper()
	if _, err := m.Publish(t.Context(), text, bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
}

// publishes tells whether these and no other images are published, listed and recorded.
func publishes(t *testing.T, m *Mirror, o Options, ids ...uuid.UUID) {
	t.Helper()
	var published, recorded, listed []uuid.UUID
	for _, image := range m.published.Images() {
		published = append(published, image.UUID)
	}
	for _, image := range m.Current().Images() {
		if e, _ := m.Current().Entry(image.UUID); e.Source == "published" {
			listed = append(listed, image.UUID)
		}
	}
	entries, _ := os.ReadDir(filepath.Join(o.Cache.Dir, "published"))
	for _, e := range entries {
		recorded = append(recorded, uuid.MustParse(strings.TrimSuffix(e.Name(), ".json")))
	}
	want := fmt.Sprint(ids)
	if fmt.Sprint(published) != want || fmt.Sprint(listed) != want || fmt.Sprint(recorded) != want {
		t.Errorf("published are %v, listed %v, recorded %v, want %s", published, listed, recorded, want)
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
	o := testOptions(t, sampleSource(t))
	m := newMirror(t, o)
	for _, c := range []struct {
		name string
		text []byte
		file []byte
		want error
	}{
		{"disabled", text(ownBase, file, `"disabled":false`, `"disabled":true`), file, manifest.ErrInvalid},
		{"one byte less", text(ownBase, file), short, verify.ErrMismatch},
		{"one byte more", text(ownBase, file), long, verify.ErrMismatch},
		{"one bit off", text(ownBase, file), flipped, verify.ErrMismatch},
		{"nothing at all", text(ownBase, file), nil, verify.ErrMismatch},
		{"not gzip", text(ownBase, plain), plain, verify.ErrMismatch},
		{"not xz", text(ownBase, file, `"gzip"`, `"xz"`), file, verify.ErrMismatch},
		{"gzip after all", text(ownBase, file, `"gzip"`, `"none"`), file, verify.ErrMismatch},
		{"zstd", text(ownBase, zstd, `"gzip"`, `"none"`), zstd, verify.ErrNoStream},
		{"zstd, lx", text(ownBase, zstd, `"gzip"`, `"none"`, "zone-dataset", "lx-dataset"), zstd, verify.ErrNoStream},
		{"a web page in gzip", text(ownBase, page), page, verify.ErrNoStream},
		{"another source's", text(sampleBase, file), file, ErrExists},
		{"no origin", text(ownBase, file, withOrigin(ownChild)...), file, ErrOrigin},
	} {
		if _, err := m.Publish(t.Context(), c.text, bytes.NewReader(c.file)); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
		publishes(t, m, o)
	}
}

// What cannot be told of a file passes, and so does everything for types whose file may be anything.
func TestPublishTakes(t *testing.T) {
	zstd := append([]byte("\x28\xb5\x2f\xfd"), gzipped(t, 1000)...)
	page := packed(t, []byte("<html><body>502 Bad Gateway</body></html>"))
	m := newMirror(t, testOptions(t))
	for name, c := range map[string]struct{ text, file []byte }{
		"broken gzip": {text(uuid.New(), []byte("\x1f\x8b\x08pppppppppp")), []byte("\x1f\x8b\x08pppppppppp")},
		"other: zstd": {text(uuid.New(), zstd, `"gzip"`, `"none"`, "zone-dataset", "other"), zstd},
		"lxd: a page": {text(uuid.New(), page, "zone-dataset", "lxd"), page},
	} {
		if _, err := m.Publish(t.Context(), c.text, bytes.NewReader(c.file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Private images, and those of `imgadm create`, are served as they were published after a restart.
func TestPublishCreated(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := gzipped(t, 10)
	publish(t, m, text(ownBase, file, `"public":true`, `"public":false`), file)
	publish(t, m, text(ownChild, file, `"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z",`, ``), file)
	was := make(map[uuid.UUID][]byte)
	for _, id := range []uuid.UUID{ownBase, ownChild} {
		image := entryOf(t, m, id).Manifest
		was[id] = image.V2()
		if !image.Listable() {
			t.Errorf("not listable: %s", was[id])
		}
	}
	stop()
	m, _ = runMirror(t, o)
	publishes(t, m, o, ownBase, ownChild)
	for id, want := range was {
		if image := entryOf(t, m, id).Manifest; !bytes.Equal(image.V2(), want) || !image.Listable() {
			t.Errorf("after a restart: %s, want %s", image.V2(), want)
		}
	}
}

func TestPublishTwice(t *testing.T) {
	m := newMirror(t, testOptions(t))
	file := gzipped(t, 10)
	var inner error
	during := readerFunc(func([]byte) (int, error) {
		_, inner = m.Publish(t.Context(), text(ownBase, file), bytes.NewReader(file))
		return 0, io.EOF
	})
	if _, err := m.Publish(t.Context(), text(ownBase, file), io.MultiReader(bytes.NewReader(file), during)); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(inner, ErrExists) {
		t.Errorf("side by side: %v", inner)
	}
	if _, err := m.Publish(t.Context(), text(ownBase, file), bytes.NewReader(file)); !errors.Is(err, ErrExists) {
		t.Errorf("one after the other: %v", err)
	}
}

// A store that fails ends an upload, however much of it is still to come.
func TestPublishWithoutRoom(t *testing.T) {
	o := testOptions(t)
	o.Rules.MaxSize = 1000
	m := newMirror(t, o)
	file := gzipped(t, 300_000)
	endless := io.MultiReader(bytes.NewReader(file), rand.NewChaCha8([32]byte{}))
	if _, err := m.Publish(t.Context(), text(ownBase, file), endless); !errors.Is(err, cache.ErrNoSpace) {
		t.Errorf("a store without room: %v", err)
	}
	publishes(t, m, o)
}

// lists are saved lists that can fail to be saved.
type lists struct {
	cache.Lists
	fails error // of SaveListing
}

func (l *lists) SaveListing(list manifest.Listing) error {
	if l.fails != nil {
		return l.fails
	}
	return l.Lists.SaveListing(list)
}

// withLists gives m a catalogue of the published images alone, over lists that can fail.
func withLists(t *testing.T, m *Mirror) *lists {
	t.Helper()
	l := &lists{Lists: m.store.Lists()}
	c, err := catalog.New(catalog.Options{
		Sources: []catalog.SourceOptions{{Source: m.published, Refresh: ownRefresh, ServePrivate: true, Withdraws: true}},
		Index:   l, Cached: m.cached, Stored: m.stored,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.now.Store(&generation{Catalog: c, registry: prometheus.NewRegistry()})
	return l
}

// A publish or an unpublish whose list cannot be saved has not happened.
func TestListNotSaved(t *testing.T) {
	o := testOptions(t)
	m := newMirror(t, o)
	l := withLists(t, m)
	full := errors.New("disk is full")
	file := gzipped(t, 300_000)

	l.fails = full
	if _, err := m.Publish(t.Context(), text(ownBase, file), bytes.NewReader(file)); !errors.Is(err, full) {
		t.Errorf("publish: %v", err)
	}
	publishes(t, m, o)
	if files := m.store.Files(); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
	l.fails = nil
	publish(t, m, text(ownBase, file), file)
	publishes(t, m, o, ownBase)

	l.fails = full
	if _, err := m.Unpublish(t.Context(), ownBase); !errors.Is(err, full) {
		t.Errorf("unpublish: %v", err)
	}
	publishes(t, m, o, ownBase)
	if ids := owners(m, verify.Sum(sha1.Sum(file))); len(ids) != 1 {
		t.Errorf("the file is that of %v", ids)
	}
}

func TestUnpublish(t *testing.T) {
	o := testOptions(t)
	m, _ := runMirror(t, o)
	base, child := gzipped(t, 10), gzipped(t, 20)
	publish(t, m, text(ownBase, base), base)
	publish(t, m, text(ownChild, child, withOrigin(ownBase)...), child)
	unpublish := func(id uuid.UUID) error {
		_, err := m.Unpublish(t.Context(), id)
		return err
	}
	if err := unpublish(ownBase); !errors.Is(err, ErrDependent) || !strings.Contains(err.Error(), ownChild.String()) {
		t.Errorf("with a child: %v", err)
	}
	if err := unpublish(sampleBase); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "file") {
		t.Errorf("never published: %v", err)
	}

	// A record that cannot be removed leaves all as it was.
	records := filepath.Join(o.Cache.Dir, "published")
	if err := os.Rename(records, records+".away"); err != nil {
		t.Fatal(err)
	}
	if err := unpublish(ownChild); !errors.Is(err, cache.ErrDisk) {
		t.Errorf("with a record that stays: %v", err)
	}
	if err := os.Rename(records+".away", records); err != nil {
		t.Fatal(err)
	}
	publishes(t, m, o, ownBase, ownChild)
	if ids := owners(m, verify.Sum(sha1.Sum(child))); len(ids) != 1 || !copied(o, ownChild) || !m.store.Kept(ownChild) {
		t.Errorf("the file is that of %v; a copy: %t; kept: %t", ids, copied(o, ownChild), m.store.Kept(ownChild))
	}

	if err := unpublish(ownChild); err != nil {
		t.Fatal(err)
	}
	publishes(t, m, o, ownBase)
	if err := unpublish(ownBase); err != nil {
		t.Fatal(err)
	}
	publishes(t, m, o)
	if files := m.store.Files(); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

// An image may not lose its origin while it is being published.
func TestUnpublishOriginOfUpload(t *testing.T) {
	o := testOptions(t)
	m := newMirror(t, o)
	base, child := gzipped(t, 10), gzipped(t, 20)
	publish(t, m, text(ownBase, base), base)
	var inner error
	during := readerFunc(func([]byte) (int, error) {
		_, inner = m.Unpublish(t.Context(), ownBase)
		return 0, io.EOF
	})
	_, err := m.Publish(t.Context(), text(ownChild, child, withOrigin(ownBase)...), io.MultiReader(bytes.NewReader(child), during))
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(inner, ErrDependent) {
		t.Errorf("its origin's unpublish: %v", inner)
	}
	publishes(t, m, o, ownBase, ownChild)
}

// The sum counts of what was sent, and not of what was on disk before.
func TestPublishOnDisk(t *testing.T) {
	o := testOptions(t)
	m := newMirror(t, o)
	file := gzipped(t, 300_000)
	publish(t, m, text(ownBase, file), file)
	wrong := bytes.Clone(file)
	wrong[len(wrong)-1] ^= 1
	for _, sent := range [][]byte{wrong, file[:200_000], append(bytes.Clone(file), 0)} {
		if _, err := m.Publish(t.Context(), text(ownChild, file), bytes.NewReader(sent)); !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("%d bytes: %v", len(sent), err)
		}
		publishes(t, m, o, ownBase)
	}
	publish(t, m, text(ownChild, file), file)
	publishes(t, m, o, ownBase, ownChild)
}

// A sender that breaks off is told so, and leaves nothing behind.
func TestPublishBreaksOff(t *testing.T) {
	o := testOptions(t)
	m := newMirror(t, o)
	file := gzipped(t, 300_000)
	broke := readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })
	_, err := m.Publish(t.Context(), text(ownBase, file), io.MultiReader(bytes.NewReader(file[:200_000]), broke))
	if !errors.Is(err, ErrBroke) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken off: %v", err)
	}
	if parts := m.store.Partials(); len(parts) != 0 {
		t.Errorf("left behind: %v", parts)
	}
	publish(t, m, text(ownBase, file), file)
	publishes(t, m, o, ownBase)
}

// The end of the store's context ends a read for which no bytes come, and the sending.
func TestDeliveryMindsContext(t *testing.T) {
	d := newDelivery("file", 0, 10, 10)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := d.open(ctx, 0)
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
	d.send(strings.NewReader("0123456789"))
	if _, err := d.open(t.Context(), 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a second open: %v", err)
	}
}
