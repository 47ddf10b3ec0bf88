package zfsimport

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// A manifest of version 1 is recorded as imgadm records it, upgraded; unknown members,
// letters of any language and large numbers stay as they are.
func TestRecord(t *testing.T) {
	const v1 = `{"uuid":"2bd5facd-b07d-4ed2-af71-b6597162be18","name":"old","version":"1","type":"zvol","os":"linux","creator_uuid":"",
		"published_at":"2011-04-11T08:45Z","image_size":"16384","odd":{"n":12345678901234567890,"e":{},"s":"caf\u00e9 \u0001 <&>"},
		"files":[{"path":"a.zfs.gz","sha1":"DA39A3EE5E6B4B0D3255BFEF95601890AFD80709","size":"7"}]}`
	m, err := manifest.Parse([]byte(v1), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := record{Manifest: m, Pool: "zones"}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/record-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(golden) {
		t.Errorf("got\n%s\nwant\n%s", text, golden)
	}
	r, err := parseRecord(text)
	if err != nil || r.Pool != "zones" || r.Source != "" || r.Manifest.UUID != m.UUID {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUnusableRecord(t *testing.T) {
	im := newImporter(t, nil, nil)
	id := uuid.New()
	if err := os.MkdirAll(im.imagesDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	right, err := record{Manifest: newImage(t, id, uuid.Nil, "none", []byte("x"), nil).Manifest, Pool: "zones"}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", "[]", "{}", `{"manifest":{}}`, strings.ReplaceAll(string(right), id.String(), uuid.NewString())} {
		if err := os.WriteFile(im.recordPath("zones", id), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := im.record("zones", id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	if err := os.WriteFile(im.recordPath("zones", id), right, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := im.record("zones", id); err != nil {
		t.Error(err)
	}
}

// A record is on disk whole before the image gets its name, and has its place for good
// when the install returns.
func TestRecordIsSynced(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	base := s.base.image(t, "none")
	im := newImporter(t, p, newFiles(base))
	path := im.recordPath(p.name, base.UUID)
	var events []string
	im.sync = func(f *os.File) error {
		name, err := filepath.Rel(im.imagesDir(), f.Name())
		if err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(f.Name())
		_, parseErr := parseRecord(text)
		there, existsErr := im.exists(t.Context(), p.name+"/"+base.UUID.String())
		_, placeErr := os.Stat(path)
		if existsErr != nil {
			t.Error(existsErr)
		}
		events = append(events, fmt.Sprintf("%s: whole %t, image %t, in its place %t", name, err == nil && parseErr == nil, there, placeErr == nil))
		return f.Sync()
	}
	if _, err := im.Install(t.Context(), "", base.Manifest, nil); err != nil {
		t.Fatal(err)
	}
	temp := filepath.Base(tempRecord(path))
	want := []string{
		temp + ": whole true, image false, in its place false", // whether it can be written at all
		temp + ": whole true, image false, in its place false",
		".: whole false, image true, in its place true",
	}
	if !slices.Equal(events, want) {
		t.Errorf("synced\n%s\nwant\n%s", strings.Join(events, "\n"), strings.Join(want, "\n"))
	}

	// What can not be synced is no image.
	broken := errors.New("input/output error")
	im.sync = func(*os.File) error { return broken }
	other := s.other.image(t, "none")
	im.o.Open = newFiles(other).open
	if _, err := im.Install(t.Context(), "", other.Manifest, nil); !errors.Is(err, broken) {
		t.Error(err)
	}
	p.wantImages(im, s.base)
}
