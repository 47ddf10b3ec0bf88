package zfsimport

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// leave puts a part of an image into the pool, as a killed process does.
func (p *pool) leave(t *testing.T, s sample) {
	t.Helper()
	im := newImporter(t, p, newFiles(s.image(t, "none")))
	r := &reception{im: im, image: s.image(t, "none").Manifest, dataset: p.name + "/" + s.id.String() + partial}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRecover(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	base, other := s.base.image(t, "gzip"), s.other.image(t, "gzip")
	im := newImporter(t, p, newFiles(base, other))
	for _, i := range []image{base, other} {
		if _, err := im.Install(t.Context(), "", i.Manifest, nil); err != nil {
			t.Fatal(err)
		}
	}
	p.leave(t, s.middle)
	release := lockedElsewhere(t, im, s.middle.id)

	ours, imgadms := uuid.New(), uuid.New()
	write := func(id uuid.UUID, source string) {
		o := im.o
		o.Source = source
		writer, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		r, err := writer.prepare(p.name, newImage(t, id, uuid.Nil, "none", []byte("x"), nil).Manifest)
		if err == nil {
			err = writer.commit(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(ours, "http://mirror.example:8080")
	write(imgadms, "https://images.example")
	if _, err := im.prepare(p.name, s.top.image(t, "none").Manifest); err != nil { // and no commit
		t.Fatal(err)
	}
	os.Remove(im.recordPath(p.name, base.UUID))
	if err := os.WriteFile(im.recordPath(p.name, other.UUID), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	im.o.Find = func(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
		if id == base.UUID {
			return base.Manifest, nil
		}
		return manifest.Manifest{}, fs.ErrNotExist
	}
	if err := im.Recover(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if !strings.Contains(p.list(), partial) {
		t.Error("what another process imports is destroyed")
	}
	wantGolden(t, im, p, base.Manifest)
	records := p.records(im)
	if strings.Contains(records, ours.String()) || !strings.Contains(records, imgadms.String()) || strings.Contains(records, ".new") {
		t.Errorf("records %s", records)
	}
	release()
	if err := im.Recover(t.Context(), ""); err != nil {
		t.Error(err)
	}
	os.Remove(im.recordPath(p.name, imgadms))
	p.wantImages(im, s.base, s.other)

	// The one that nobody knows is repaired by an install.
	if o, err := im.Install(t.Context(), "", other.Manifest, nil); err != nil || o != Repaired {
		t.Error(o, err)
	}
	wantGolden(t, im, p, other.Manifest)

	broken := errors.New("broken")
	im.o.Find = func(context.Context, uuid.UUID) (manifest.Manifest, error) { return manifest.Manifest{}, broken }
	os.Remove(im.recordPath(p.name, base.UUID))
	if err := im.Recover(t.Context(), ""); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := im.Recover(t.Context(), "imgmnosuchpool"); !errors.Is(err, ErrNoPool) {
		t.Error(err)
	}
}

// A record that can not be written is known before anything is received.
func TestRecordFails(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	base := s.base.image(t, "gzip")
	im := newImporter(t, p, newFiles(base))
	temp := tempRecord(im.recordPath(p.name, base.UUID))
	if err := os.MkdirAll(filepath.Join(temp, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := newFiles(base)
	im.o.Open = f.open
	if o, err := im.Install(t.Context(), "", base.Manifest, nil); err == nil || o != "" {
		t.Error(o, err)
	}
	if p.list() != "" || f.opened > 0 {
		t.Errorf("the pool holds %s, and the file was opened %d times", p.list(), f.opened)
	}
	os.RemoveAll(temp)
	// One that can not get its place leaves the image, which is repaired.
	path := im.recordPath(p.name, base.UUID)
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := im.Install(t.Context(), "", base.Manifest, nil); err == nil {
		t.Error("no error")
	}
	os.RemoveAll(path)
	if o, err := im.Install(t.Context(), "", base.Manifest, nil); err != nil || o != Repaired {
		t.Error(o, err)
	}
	p.wantImages(im, s.base)
	p.wantFiles(s.base)
}

// What an earlier install left of the same image is no hindrance.
func TestStalePartial(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	base := s.base.image(t, "gzip")
	im := newImporter(t, p, newFiles(base))
	p.leave(t, s.base)
	if o, err := im.Install(t.Context(), "", base.Manifest, nil); err != nil || o != Done {
		t.Error(o, err)
	}
	p.wantImages(im, s.base)
}

// What has an image's name and is none, an instance or an operator's own dataset,
// gets no record, and is left as it is.
func TestNotAnImage(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	base, middle, other := s.base.image(t, "none"), s.middle.image(t, "none"), s.other.image(t, "none")
	im := newImporter(t, p, newFiles(base, middle, other))
	if _, err := im.Install(t.Context(), "", base.Manifest, nil); err != nil {
		t.Fatal(err)
	}
	p.run("zfs", "clone", p.name+"/"+s.base.id.String()+final, p.name+"/"+s.middle.id.String())
	p.run("zfs", "create", p.name+"/"+s.other.id.String())
	before, records := p.list(), p.records(im)
	for _, i := range []image{middle, other} {
		if o, err := im.Install(t.Context(), "", i.Manifest, nil); !errors.Is(err, ErrNotImage) || o != "" {
			t.Error(o, err)
		}
	}
	im.o.Find = func(context.Context, uuid.UUID) (manifest.Manifest, error) { return other.Manifest, nil }
	if err := im.Recover(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if p.list() != before || p.records(im) != records {
		t.Errorf("the pool was\n%s\nand is\n%s\nrecords %s", before, p.list(), p.records(im))
	}
}
