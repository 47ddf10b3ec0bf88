package bundle

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// need gives the path of a program, or skips a test on a machine that lacks it.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing, and nothing may be skipped here", program)
		}
		t.Skipf("%s is missing", program)
	}
	return path
}

func id(n int) uuid.UUID {
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[8:], uint64(n))
	u[6], u[8] = 0x40, 0x80
	return u
}

func noise(seed, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func digests(b []byte) verify.Digests {
	w := verify.NewWriter()
	w.Write(b)
	return w.Digests()
}

// shelf is a mirror of a few images, and the Content of bundles of them.
type shelf struct {
	t       testing.TB
	exports []Export
	files   map[verify.Sum][]byte
	opened  int
	seeks   bool // files can be sought in
}

func newShelf(t testing.TB) *shelf {
	return &shelf{t: t, files: make(map[verify.Sum][]byte), seeks: true}
}

// put adds image n with files of these sizes; origin 0: none.
func (s *shelf) put(n, origin int, sizes ...int) *shelf {
	s.t.Helper()
	var files []string
	e := Export{}
	for i, size := range sizes {
		b := noise(100*n+i, size)
		d := digests(b)
		s.files[d.SHA1] = b
		e.Files = append(e.Files, d)
		files = append(files, fmt.Sprintf(`{"sha1":%q,"size":%d,"compression":"gzip"}`, d.SHA1, size))
	}
	text := fmt.Sprintf(`{"v":2,"uuid":%q,"name":"image-%d","version":"1.%d","type":"zone-dataset","os":"smartos","owner":%q,`+
		`"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:%02dZ","description":"<b>&</b>",`, id(n), n, n, id(99), n%60)
	if origin != 0 {
		text += fmt.Sprintf(`"origin":%q,`, id(origin))
	}
	return s.add(text+`"files":[`+strings.Join(files, ",")+`]}`, e)
}

func (s *shelf) add(text string, e Export) *shelf {
	s.t.Helper()
	m, err := manifest.Parse([]byte(text), manifest.ParseOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	e.Manifest = m
	s.exports = append(s.exports, e)
	return s
}

func (s *shelf) Manifest(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	for _, e := range s.exports {
		if e.Manifest.UUID == id {
			return e.Manifest, nil
		}
	}
	return manifest.Manifest{}, fmt.Errorf("image %s: %w", id, fs.ErrNotExist)
}

func (s *shelf) File(_ context.Context, sum verify.Sum) (io.ReadCloser, error) {
	b, ok := s.files[sum]
	if !ok {
		return nil, fmt.Errorf("file %s: %w", sum, fs.ErrNotExist)
	}
	s.opened++
	if s.seeks {
		return struct {
			io.ReadSeeker
			io.Closer
		}{bytes.NewReader(b), io.NopCloser(nil)}, nil
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func options() PlanOptions {
	return PlanOptions{ID: id(7777), Created: time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC), Mirror: Mirror{Name: "mirror", Version: "1.2"}}
}

func (s *shelf) plan(o PlanOptions) Index {
	s.t.Helper()
	x, err := Plan(context.Background(), s.exports, o, s)
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// tar writes a volume.
func (s *shelf) tar(h Head) []byte {
	s.t.Helper()
	var b bytes.Buffer
	if err := Write(context.Background(), &b, h, 0, s, nil); err != nil {
		s.t.Fatal(err)
	}
	if int64(b.Len()) != h.Size() {
		s.t.Fatalf("the tar has %d bytes, Size says %d", b.Len(), h.Size())
	}
	return b.Bytes()
}

// small gives a shelf of three images, one of them on top of another, and an index of them.
func small(t testing.TB) (*shelf, Index) {
	s := newShelf(t).put(2, 1, 700).put(1, 0, 512).put(3, 0, 1300, 1)
	return s, s.plan(options())
}

// keeper is a Sink that keeps all, and judges files as a mirror does.
type keeper struct {
	head      Head
	begun     int
	manifests []manifest.Manifest
	files     map[string][]byte // by "image/file"; parts joined as they come
	wrong     map[string]error
	begin     func(Head) error
	file      func(*Piece) error // in place of the keeping
}

func (k *keeper) Begin(_ context.Context, h Head, manifests [][]byte) (err error) {
	k.head = h
	k.begun++
	if k.files == nil {
		k.files, k.wrong = map[string][]byte{}, map[string]error{}
	}
	if k.begin != nil {
		return k.begin(h)
	}
	k.manifests, err = h.Index.Manifests(manifests)
	return err
}

func (k *keeper) File(_ context.Context, p *Piece) error {
	if k.file != nil {
		return k.file(p)
	}
	b, err := io.ReadAll(p)
	key := fmt.Sprintf("%d/%d", p.Image, p.File)
	if err != nil {
		return err
	}
	if err := judge(digests(b), p.Entry, k.head.Index.Images[p.Image].Files[p.File]); err != nil {
		k.wrong[key] = err
		return nil
	}
	if have := int64(len(k.files[key])); have != p.Begin {
		return fmt.Errorf("part at %d, have %d", p.Begin, have)
	}
	k.files[key] = append(k.files[key], b...)
	return nil
}

// check holds what was kept against the shelf.
func (k *keeper) check(t testing.TB, s *shelf) {
	t.Helper()
	n := 0
	for i, im := range k.head.Index.Images {
		want, err := s.Manifest(context.Background(), im.UUID)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.manifests[i]; !bytes.Equal(got.Raw(), want.Raw()) {
			t.Errorf("manifest of %s: %q, want %q", im.UUID, got.Raw(), want.Raw())
		}
		for j, f := range im.Files {
			n++
			if got := k.files[fmt.Sprintf("%d/%d", i, j)]; !bytes.Equal(got, s.files[f.SHA1]) {
				t.Errorf("%s: %d bytes, want %d, or others", f.Path, len(got), len(s.files[f.SHA1]))
			}
		}
	}
	if n != len(k.files) {
		t.Errorf("%d files, want %d", len(k.files), n)
	}
}
