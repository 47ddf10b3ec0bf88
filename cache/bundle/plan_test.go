package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/verify"
)

func uuids(images []Image) (out []uuid.UUID) {
	for _, m := range images {
		out = append(out, m.UUID)
	}
	return out
}

func TestPlanOrder(t *testing.T) {
	s := newShelf(t).put(5, 4, 1).put(9, 0, 1).put(4, 2, 1).put(1, 0, 1).put(2, 0, 1)
	if got, want := uuids(s.plan(options()).Images), []uuid.UUID{id(2), id(4), id(5), id(9), id(1)}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// The same plan is the same index, byte for byte, and what it says can be read by people.
func TestPlanIndex(t *testing.T) {
	s, x := small(t)
	if again := s.plan(options()); !bytes.Equal(again.Bytes(), x.Bytes()) {
		t.Errorf("planned twice: %s and %s", x.Bytes(), again.Bytes())
	}
	for _, want := range []string{
		`"format": "imgmirror-bundle",`, `"version": 1,`, `"created": "2026-03-04T05:06:07Z",`, `"name": "mirror",`, `"volumes": 1,`,
		fmt.Sprintf(`"path": "%s/image-2-1.2.zfs.gz",`, id(2)), fmt.Sprintf(`"origin": %q,`, id(1)), `"size": 1300,`,
	} {
		if !strings.Contains(string(x.Bytes()), want) {
			t.Errorf("no %s in %s", want, x.Bytes())
		}
	}
	if x.Size() != 512+700+1300+1 {
		t.Errorf("Size is %d", x.Size())
	}
}

func TestPlanDelta(t *testing.T) {
	s := newShelf(t).put(1, 0, 10).put(2, 1, 20).put(3, 0, 30)
	base := s.plan(options())
	for n := 4; n <= 8; n++ {
		s.put(n, n%3, 40) // 4 is on 1, 5 on 2, 6 on nothing, …
	}
	o := options()
	o.Have, o.Since = base.Held(), "bundle "+base.ID.String()
	delta := s.plan(o)
	if got, want := uuids(delta.Images), []uuid.UUID{id(4), id(5), id(6), id(7), id(8)}; !slices.Equal(got, want) {
		t.Errorf("images %v, want %v", got, want)
	}
	var required []uuid.UUID
	for _, h := range delta.Requires {
		required = append(required, h.UUID)
	}
	slices.SortFunc(required, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	if want := []uuid.UUID{id(1), id(2), id(3)}; !slices.Equal(required, want) {
		t.Errorf("requires %v, want %v", required, want)
	}
	if delta.Since != o.Since || len(delta.Held()) != 8 {
		t.Errorf("since %q, held %d", delta.Since, len(delta.Held()))
	}

	// The base's images need not be given; what is there with other files is carried.
	s.exports = s.exports[3:4]
	alone := s.plan(o)
	if got := uuids(alone.Images); !slices.Equal(got, []uuid.UUID{id(4)}) || len(alone.Requires) != 1 || alone.Requires[0].UUID != id(1) {
		t.Errorf("images %v, requires %v", got, alone.Requires)
	}
	s = newShelf(t).put(1, 0, 11)
	if got := s.plan(o); len(got.Images) != 1 || len(got.Requires) != 0 {
		t.Errorf("an image with other files: %v, requires %v", uuids(got.Images), got.Requires)
	}

	list, err := Have{Created: o.Created, Mirror: o.Mirror, Images: base.Held()}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	have, err := ParseHave(list)
	if err != nil || !slices.EqualFunc(have.Images, base.Held(), func(a, b Held) bool { return a.UUID == b.UUID && slices.Equal(a.Files, b.Files) }) {
		t.Errorf("the list came back as %v, %v", have, err)
	}
}

func TestParseHaveRefuses(t *testing.T) {
	f := func(in, says string) {
		t.Helper()
		if _, err := ParseHave([]byte(in)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", in, err)
		}
	}
	with := func(images string) string {
		return `{"format":"imgmirror-have","version":1,"created":"2026-01-01T00:00:00Z","mirror":{"name":"","version":""},"images":[` + images + `]}`
	}
	one := fmt.Sprintf(`{"uuid":%q,"files":["%040x"]}`, id(1), 7)
	if _, err := ParseHave([]byte(with(one))); err != nil {
		t.Fatal(err)
	}
	f(``, "")
	f(strings.Replace(with(one), "-have", "-bundle", 1), "imgmirror-bundle")
	f(strings.Replace(with(one), "1,", "2,", 1), "version 2")
	f(with(one+","+one), "images[1]: uuid "+id(1).String())
	f(with(`{"uuid":"`+id(1).String()+`","files":[]}`), "0 files")
	f(with(one)+" x", "")
}

func TestPlanRefuses(t *testing.T) {
	f := func(s *shelf, o PlanOptions, is error, says string) {
		t.Helper()
		_, err := Plan(context.Background(), s.exports, o, s)
		if err == nil || !strings.Contains(err.Error(), says) || is != nil && !errors.Is(err, is) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	f(newShelf(t).put(2, 1, 10), options(), nil, "origin "+id(1).String())
	f(newShelf(t).put(2, 1, 10).put(1, 2, 10), options(), nil, "origins")
	f(newShelf(t).put(2, 0), options(), nil, id(2).String())
	s := newShelf(t).put(2, 0, 10)
	s.exports[0].Files[0].SHA1[0] ^= 1
	f(s, options(), verify.ErrMismatch, id(2).String())
	s = newShelf(t).put(2, 0, 10)
	s.exports[0].Files[0].SHA256 = [32]byte{}
	f(s, options(), ErrInvalid, "sha256 is missing")
	o := options()
	o.VolumeSize = 1 << 20
	f(newShelf(t).put(2, 0, 10), o, ErrVolumeSize, "too small")
	o.VolumeSize = 2 << 20
	s = newShelf(t).put(2, 0, 5<<20)
	sum := s.exports[0].Files[0].SHA1
	s.files[sum] = noise(5, 5<<20)
	f(s, o, verify.ErrMismatch, "image-2-1.2.zfs.gz")
	s.files[sum] = s.files[sum][:4<<20]
	f(s, o, verify.ErrMismatch, "ends there")
	o = options()
	o.ID = uuid.Nil
	f(newShelf(t).put(2, 0, 10), o, ErrInvalid, "id is missing")
}

// A file that fits a volume is never cut, and no volume is left half empty before one that is.
func TestPlanVolumes(t *testing.T) {
	o := options()
	o.VolumeSize = 4 << 20
	s := newShelf(t)
	for n, size := range []int{1 << 20, 3 << 20, 2 << 20, 9 << 20, 100, 3 << 20} {
		s.put(n+1, 0, size)
	}
	x := s.plan(o)
	var got []string
	for _, m := range x.Images {
		f := m.Files[0]
		at := fmt.Sprint(f.Volume)
		for _, p := range f.Parts {
			at += fmt.Sprintf("+%d", p.Volume)
		}
		got = append(got, at)
	}
	if want := []string{"1", "2", "3", "0+3+4+5", "5", "6"}; !slices.Equal(got, want) {
		t.Errorf("volumes %v, want %v", got, want)
	}
	for v := 1; v <= x.Volumes; v++ {
		if size := (Head{Index: x, Volume: v, Sig: make([]byte, 1<<10)}).Size(); size > o.VolumeSize {
			t.Errorf("volume %d: %d bytes with a signature", v, size)
		}
	}
}

// Names come from the manifests where they are safe on any disk, else they are plain.
func TestFileNames(t *testing.T) {
	f := func(want string, paths ...string) {
		t.Helper()
		compressions := []string{"gzip", "none", "xz", "bzip2"}[:len(paths)]
		got := fileNames(paths, compressions)
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", paths, got, want)
		}
		for _, name := range got {
			if !isFileName(name) {
				t.Errorf("%q is not safe", name)
			}
		}
	}
	f("base-1.0.zfs.gz", "base-1.0.zfs.gz")
	f("file.zfs.gz", "a b.gz")
	f("file.zfs.gz", "../x")
	f("file.zfs.gz", "/etc/passwd")
	f("file.zfs.gz", `a\b`)
	f("file.zfs.gz", "")
	f("file.zfs.gz", "..")
	f("file.zfs.gz", ".hidden")
	f("file.zfs.gz", "-rf")
	f("file.zfs.gz", "end.")
	f("file.zfs.gz", "manifest.json")
	f("file.zfs.gz", "x.DSmanifest")
	f("file.zfs.gz", "Icon.png")
	f("file.zfs.gz", "x.part-001")
	f("file.zfs.gz", strings.Repeat("x", 81))
	f("file.zfs.gz", "ü")
	f("a file-1.zfs", "a", "A")
	f("a file-1.zfs file-2.zfs.xz file-3.zfs.bz2", "a", "a", "a", "a")
	f("file-1.zfs _file-1.zfs", "file-1.zfs", "")
}
