package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

const someID = "11111111-1111-4111-8111-111111111111"

// blobSource is a source that gives files and icons.
type blobSource struct {
	catalog.Source
	name string
	file func(context.Context, manifest.Manifest, int, int64) (*verify.Stream, error)
	icon func(context.Context, manifest.Manifest) (*verify.Stream, error)
}

func (s *blobSource) Name() string { return s.name }

func (s *blobSource) File(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	return s.file(ctx, m, index, offset)
}

func (s *blobSource) Icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error) {
	return s.icon(ctx, m)
}

// Sources know of no offset in an icon.
func TestIconFromTheMiddle(t *testing.T) {
	source := &blobSource{name: "one", icon: func(context.Context, manifest.Manifest) (*verify.Stream, error) {
		return &verify.Stream{ReadCloser: io.NopCloser(bytes.NewReader([]byte("0123456789"))), Size: 10}, nil
	}}
	e := catalog.Entry{Holders: []catalog.Holder{
		{Source: &blobSource{name: "none"}, Manifest: manifest.Manifest{}},
		{Source: source, Manifest: manifest.Manifest{Icon: true}},
	}}
	_, sources := iconOf(e)
	if len(sources) != 1 || sources[0].Name != "one" {
		t.Fatalf("%v", sources)
	}
	stream, err := sources[0].Open(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(stream); err != nil || string(b) != "456789" || stream.Size != 10 {
		t.Errorf("%q %d %v", b, stream.Size, err)
	}
	if _, err := sources[0].Open(t.Context(), 11); err == nil {
		t.Error("opened behind its end")
	}
}

func TestBlobOf(t *testing.T) {
	sum, err := verify.ParseSum("11f6ad8ec52a2984abaafd7c3b516503785c2072")
	if err != nil {
		t.Fatal(err)
	}
	m := manifest.Manifest{UUID: uuid.MustParse(someID), Files: []manifest.File{{}, {SHA1: sum, Size: 1, MD5: make([]byte, 16)}}}
	var asked string
	holder := func(name string, m manifest.Manifest) catalog.Holder {
		return catalog.Holder{Manifest: m, Source: &blobSource{name: name, file: func(_ context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
			asked = fmt.Sprintf("%s %s %d %d", name, m.Name, index, offset)
			return nil, errors.New("no")
		}}}
	}
	theirs := m
	theirs.Name = "theirs"
	e := catalog.Entry{Manifest: m, Source: "a", Holders: []catalog.Holder{
		holder("a", m), holder("short", manifest.Manifest{Files: m.Files[:1]}), holder("b", theirs),
	}}
	blob, sources := blobOf(e, 1)
	if blob.Want.SHA1 != sum || blob.Want.Size != 1 || len(blob.Want.MD5) != 16 || blob.Key != "file/"+someID+"/1" ||
		blob.Image != m.UUID || blob.Index != 1 || blob.Source != "a" || blob.Manifest.UUID != m.UUID {
		t.Errorf("%+v", blob)
	}
	if len(sources) != 2 || sources[0].Name != "a" || sources[1].Name != "b" {
		t.Fatalf("%+v", sources)
	}
	// Each is asked by its own manifest.
	if _, err := sources[1].Open(t.Context(), 7); err == nil || asked != "b theirs 1 7" {
		t.Errorf("%q %v", asked, err)
	}
}

// storeFunc is a Store that asks the sources of a blob.
type storeFunc func(ctx context.Context, sources []cache.Source)

func (f storeFunc) File(ctx context.Context, _ cache.Blob, sources []cache.Source) (*cache.Reader, error) {
	f(ctx, sources)
	return nil, errors.New("no store")
}

func (storeFunc) Peek(cache.Blob) (cache.Info, bool) { return cache.Info{}, false }

// A source that asks by uuid before it gives a file does so for the client that wants the file, and
// on behalf of the mirrors that ask.
func TestOthersAreAskedForTheClient(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.1")
	asked := make(map[string]string)
	source := func(name string) catalog.Source {
		return &blobSource{name: name, file: func(ctx context.Context, _ manifest.Manifest, _ int, _ int64) (*verify.Stream, error) {
			by, ok := catalog.Client(ctx)
			asked[name] = fmt.Sprint(by, ok, via.From(ctx))
			return nil, errors.New("no file")
		}}
	}
	image := manifest.Manifest{UUID: uuid.MustParse(someID), Files: make([]manifest.File, 1)}
	e := catalog.Entry{Manifest: image, Holders: []catalog.Holder{{Source: source("holder"), Manifest: image}}, Others: []catalog.Holder{{Source: source("other"), Manifest: image}}}
	files := Files{storeFunc(func(_ context.Context, sources []cache.Source) {
		for _, s := range sources {
			_, _ = s.Open(t.Context(), 0) // as a fill does, which has a context of its own
		}
	})}
	for _, mirrors := range [][]string{nil, {"imgmirror-0123456789abcdef"}} {
		_, _ = files.Open(via.With(catalog.ForClient(t.Context(), client), mirrors), e, 0, cache.Client, cache.ByClient)
		if want := fmt.Sprint(client, true, mirrors); asked["other"] != want {
			t.Errorf("asked for %s, want %s", asked["other"], want)
		}
	}
	_, _ = files.Open(t.Context(), e, 0, cache.Job, cache.ByFetch)
	if want := fmt.Sprint(netip.Addr{}, false, []string(nil)); asked["other"] != want {
		t.Errorf("a job: asked for %s, want %s", asked["other"], want)
	}
}
