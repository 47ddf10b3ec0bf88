package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// A chain of three in each compression: datasets, snapshots, origins, contents and
// records are what imgadm would have left.
func TestInstall(t *testing.T) {
	s := needSamples(t)
	for _, format := range []string{"gzip", "bzip2", "xz", "none"} {
		t.Run(format, func(t *testing.T) {
			p := newPool(t, 128)
			base, middle, top := s.base.image(t, format), s.middle.image(t, format), s.top.image(t, format)
			im := newImporter(t, p, newFiles(base, middle, top))
			for _, image := range []image{base, middle, top} {
				var reports []Progress
				outcome, err := im.Install(t.Context(), "", image.Manifest, func(p Progress) { reports = append(reports, p) })
				if err != nil || outcome != Done {
					t.Fatalf("%v, %v", outcome, err)
				}
				size, last := int64(len(image.file)), reports[len(reports)-1]
				if reports[0] != (Progress{}) || len(reports) < 3 || last.Read != size || last.Written == 0 {
					t.Errorf("%+v of %d", reports, size)
				}
			}
			p.wantImages(im, s.base, s.middle, s.top)
			for _, sample := range []sample{s.base, s.middle, s.top} {
				p.wantFiles(sample)
			}
			before := p.list()
			outcome, err := im.Install(t.Context(), p.name, top.Manifest, nil)
			if err != nil || outcome != Present || p.list() != before {
				t.Errorf("again: %v, %v", outcome, err)
			}
			wantGolden(t, im, p, base.Manifest)
		})
	}
}

// wantGolden compares the record of an image with what imgadm would have written.
func wantGolden(t *testing.T, im *Importer, p *pool, m manifest.Manifest) {
	t.Helper()
	golden, err := os.ReadFile("testdata/record.json")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("POOL", p.name, "UUID", m.UUID.String(), "SHA1", m.Files[0].SHA1.String(),
		`"SIZE"`, fmt.Sprint(m.Files[0].Size), "COMPRESSION", m.Files[0].Compression).Replace(string(golden))
	got, err := os.ReadFile(im.recordPath(p.name, m.UUID))
	if err != nil || string(got) != want {
		t.Errorf("record: %v\n%s\nwant\n%s", err, got, want)
	}
}

// What can not be installed is refused with the right words, and the pool, its
// records and its mounts are as they were.
func TestRefused(t *testing.T) {
	s := needSamples(t)
	flipped := errors.New("the sum")
	flip := func(b []byte, at int) []byte {
		b = append([]byte(nil), b...)
		b[at] ^= 4
		return b
	}
	one := func(stream []byte, format string, members map[string]any) image {
		return newImage(t, uuid.New(), uuid.Nil, format, stream, members)
	}
	file := func(i image, data []byte) image {
		i.file = data
		return i
	}
	good := s.other.image(t, "gzip")
	labelled := func(format string) map[string]any {
		return map[string]any{"files": []any{map[string]any{"sha1": good.Files[0].SHA1, "size": len(good.file), "compression": format}}}
	}
	for _, c := range []struct {
		name  string
		image image
		end   error
		is    error
		says  string
	}{
		{"a flipped bit in gzip", file(good, flip(good.file, len(good.file)/2)), verify.ErrMismatch, verify.ErrMismatch, "read the file"},
		{"a flipped bit in the first byte", file(good, flip(good.file, 0)), verify.ErrMismatch, verify.ErrMismatch, "read the file"},
		{"a flipped bit in none", file(one(s.other.stream, "none", nil), flip(s.other.stream, 1000)), flipped, flipped, "read the file"},
		{"all bytes, and the sum is wrong", good, verify.ErrMismatch, verify.ErrMismatch, "read the file"},
		{"a truncated file", file(good, good.file[:len(good.file)/2]), verify.ErrMismatch, verify.ErrMismatch, "read the file"},
		{"a truncated file whose sum is right", one(s.other.stream, "gzip", nil).cut(), nil, ErrDecompress, "gzip: unexpected EOF"},
		{"a truncated stream", one(s.other.stream[:500_000], "bzip2", nil), nil, ErrReceive, "invalid backup stream"},
		{"a wrong stream whose sum is right", one(flip(s.other.stream, 500_000), "none", nil), nil, ErrReceive, "checksum mismatch"},
		{"two snapshots", one(s.two, "gzip", nil), nil, ErrSnapshots, "has 2 (@v1 @v2), want one"},
		{"no stream", one([]byte("#!/bin/sh\necho this is no stream\n"), "gzip", nil), nil, ErrNotZFS, `it begins with "#!/bin/sh\necho t"`},
		{"an empty stream", one(nil, "gzip", nil), nil, ErrNotZFS, `it begins with ""`},
		{"xz said, gzip is", file(one(nil, "none", labelled("xz")), good.file), nil, ErrCompression, "it says xz, the file begins as with gzip"},
		{"none said, gzip is", file(one(nil, "none", labelled("none")), good.file), nil, ErrCompression, "it says none, the file begins as with gzip"},
		{"gzip said, none is", file(one(nil, "none", labelled("gzip")), s.other.stream), nil, ErrCompression, "it says gzip, the file begins as with none"},
		{"an origin that is not there", newImage(t, uuid.New(), uuid.New(), "gzip", s.middle.stream, nil), nil, ErrNoOrigin, "which is not in the pool"},
		{"an origin that is another", newImage(t, uuid.New(), s.other.id, "gzip", s.middle.stream, nil), nil, ErrNoOrigin, "made from"},
		{"an origin whose snapshot is another", newImage(t, uuid.New(), s.base.id, "gzip", s.top.stream, nil), nil, ErrNoOrigin, "local origin"},
		{"an origin that the manifest hides", newImage(t, uuid.New(), uuid.Nil, "gzip", s.middle.stream, nil), nil, ErrNoOrigin, "names none"},
		{"an origin that the stream has not", newImage(t, uuid.New(), s.base.id, "gzip", s.other.stream, nil), nil, ErrNoOrigin, "the stream is a whole one"},
		{"docker", one(s.other.stream, "gzip", map[string]any{"type": "docker", "tags": map[string]any{}}), nil, ErrType, "type docker"},
		{"other", one(s.other.stream, "gzip", map[string]any{"type": "other"}), nil, ErrType, "type other"},
		{"no file", one(nil, "none", map[string]any{"files": []any{}}), nil, ErrType, "0 files"},
		{"larger than the pool", one(nil, "none", map[string]any{"files": []any{map[string]any{"size": 1 << 40, "compression": "none"}}}), nil, ErrNoRoom, "1.0 TiB"},
		{"a file that is not there", image{Manifest: one(s.other.stream, "gzip", nil).Manifest}, nil, os.ErrNotExist, "open the file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPool(t, 96)
			f := newFiles(s.base.image(t, "none"), s.other.image(t, "none"))
			im := newImporter(t, p, f)
			for _, image := range []image{s.base.image(t, "none"), s.other.image(t, "none")} {
				if image.UUID == c.image.UUID {
					continue
				}
				if _, err := im.Install(t.Context(), "", image.Manifest, nil); err != nil {
					t.Fatal(err)
				}
			}
			if c.image.file != nil {
				f.images[c.image.UUID] = c.image.file
			}
			f.end = c.end
			before, records := p.list(), p.records(im)
			outcome, err := im.Install(t.Context(), "", c.image.Manifest, nil)
			if err == nil || outcome != "" || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("outcome %q, %v", outcome, err)
			}
			t.Log(err)
			if after := p.list(); after != before || p.records(im) != records {
				t.Errorf("the pool was\n%s\nand is\n%s\nrecords %s", before, after, p.records(im))
			}
		})
	}
}

// cut makes an image of the first half of the file, with the sum of that.
func (i image) cut() image {
	i.file = i.file[:len(i.file)/2]
	return i
}

// A pool that gets full in the midst of a receive.
func TestNoRoom(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 64)
	big := newImage(t, s.base.id, uuid.Nil, "gzip", s.base.stream, nil)
	f := newFiles(big)
	im := newImporter(t, p, f)
	if err := os.WriteFile(filepath.Join(p.dir, "ballast"), content(99, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run("zfs", "set", "quota=2M", p.name)
	// Its file alone would fit.
	small := newImage(t, s.base.id, uuid.Nil, "gzip", s.base.stream, map[string]any{"files": []any{map[string]any{"size": 1000, "compression": "gzip"}}})
	before := p.list()
	if _, err := im.Install(t.Context(), "", small.Manifest, nil); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "out of space") {
		t.Errorf("%v", err)
	}
	if p.list() != before || p.records(im) != "" {
		t.Errorf("the pool holds %s, records %s", p.list(), p.records(im))
	}
	p.run("zfs", "set", "quota=none", p.name)
	if _, err := im.Install(t.Context(), "", big.Manifest, nil); err != nil {
		t.Errorf("with room: %v", err)
	}
}

func TestNoPool(t *testing.T) {
	needZFS(t)
	im := newImporter(t, nil, newFiles())
	for _, name := range []string{"imgmnosuchpool", "-f", "a/b", "a@b", "a b"} {
		if err := im.Check(t.Context(), name); !errors.Is(err, ErrNoPool) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := im.Installed(t.Context(), name); !errors.Is(err, ErrNoPool) {
			t.Errorf("%s: %v", name, err)
		}
	}
	im.o.ZFSPath = t.TempDir()
	if err := im.Check(t.Context(), ""); !errors.Is(err, ErrNoZFS) {
		t.Error(err)
	}
	im.o.ZFSPath = need(t, "zfs") // the program instead of its folder
	if err := im.Check(t.Context(), "imgmnosuchpool"); !errors.Is(err, ErrNoPool) {
		t.Error(err)
	}
	im.o.ZFSPath = ""
	t.Setenv("PATH", "")
	if err := im.Check(t.Context(), "imgmnosuchpool"); !errors.Is(err, ErrNoPool) {
		t.Error("zfs is not found outside PATH:", err)
	}
}

// A cancelled install leaves the pool as it was, also when zfs waits for bytes.
func TestCancelled(t *testing.T) {
	s := needSamples(t)
	for _, format := range []string{"gzip", "bzip2", "xz", "none"} {
		t.Run(format, func(t *testing.T) {
			p := newPool(t, 96)
			image := s.base.image(t, format)
			f := newFiles(image)
			f.gate = make(chan struct{})
			im := newImporter(t, p, f)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f.half = cancel
			_, err := im.Install(ctx, "", image.Manifest, nil)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			p.wantImages(im)
			f.gate = nil
			if outcome, err := im.Install(t.Context(), "", image.Manifest, nil); err != nil || outcome != Done {
				t.Errorf("again: %v, %v", outcome, err)
			}
			p.wantImages(im, s.base)
		})
	}
}

// The image gets its name only after the last byte was known to be right.
func TestNotBeforeTheEnd(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	image := s.base.image(t, "none")
	// zfs has all of the stream long before the file ends.
	image.file = append(image.file, make([]byte, len(image.file))...)
	f := newFiles(image)
	f.gate = make(chan struct{})
	im := newImporter(t, p, f)
	half := make(chan struct{})
	f.half = sync.OnceFunc(func() { close(half) })
	ended := make(chan error, 1)
	go func() {
		_, err := im.Install(t.Context(), "", image.Manifest, nil)
		ended <- err
	}()
	<-half
	name := "/" + s.base.id.String()
	for list := p.list(); list != name+partial+"\n"+name+partial+"@v1"; list = p.list() {
		if len(ended) > 0 || strings.Contains(list, name+"\n") || strings.Contains(list, final) {
			t.Fatalf("before the file was known to be right the pool holds\n%s", list)
		}
		time.Sleep(busyPoll)
	}
	close(f.gate)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	p.wantImages(im, s.base)
	p.wantFiles(s.base)
}
