package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"imgmirror/verify"
)

// large gives a shelf of a few files of n bytes together.
func large(b *testing.B, n int) (*shelf, Head) {
	s := newShelf(b).put(1, 0, n/4, n/4).put(2, 1, n/2)
	return s, Head{Index: s.plan(options()), Volume: 1}
}

const benchSize = 256 << 20

func BenchmarkWrite(b *testing.B) {
	s, h := large(b, benchSize)
	b.SetBytes(h.Size())
	for b.Loop() {
		if err := Write(context.Background(), io.Discard, h, 0, s, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads as a store does, which takes all digests as well.
func BenchmarkRead(b *testing.B) {
	s, h := large(b, benchSize)
	tar := s.tar(h)
	hashing := func(p *Piece) error {
		w := verify.NewWriter()
		defer w.Close()
		if err := verify.HashFrom(b.Context(), w, p); err != nil {
			return err
		}
		return judge(w.Digests(), p.Entry, h.Index.Images[p.Image].Files[p.File])
	}
	checking := func(p *Piece) error { return nil }
	for _, kind := range []struct {
		name string
		file func(*Piece) error
	}{{"stored", hashing}, {"present", checking}} {
		b.Run(kind.name, func(b *testing.B) {
			b.SetBytes(h.Size())
			for b.Loop() {
				k := keeper{file: kind.file}
				_, err := Read(context.Background(), struct{ io.Reader }{bytes.NewReader(tar)}, &k)
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAgainstCopy writes a bundle to a file and reads it into files, with
// all digests, and does cp and sha1sum of as many bytes in between: the ratios
// are times against the latter. BUNDLE_BENCH_MB sets the size.
func BenchmarkAgainstCopy(b *testing.B) {
	cp, sha1sum := need(b, "cp"), need(b, "sha1sum")
	size := 256 << 20
	if mb, err := strconv.Atoi(os.Getenv("BUNDLE_BENCH_MB")); err == nil {
		size = mb << 20
	}
	dir := b.TempDir()
	s := &diskShelf{shelf: newShelf(b), dir: dir}
	for n := range 4 {
		s.put(n+1, 0, size/4)
	}
	s.spill()
	h := Head{Index: s.plan(options()), Volume: 1}
	tar := filepath.Join(dir, "bundle.tar")
	var times [3]time.Duration // export, import, copy
	timed := func(i int, do func() error) {
		b.Helper()
		began := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		times[i] += time.Since(began)
	}
	for b.Loop() {
		timed(0, func() error {
			return toFile(tar, func(w io.Writer) error { return Write(context.Background(), w, h, 0, s, nil) })
		})
		timed(1, func() error {
			f, err := os.Open(tar)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = Read(context.Background(), f, &keeper{file: func(p *Piece) error { return store(filepath.Join(dir, "stored"), p, h) }})
			return err
		})
		timed(2, func() error {
			to := filepath.Join(dir, "copy")
			if err := exec.Command(cp, tar, to).Run(); err != nil {
				return err
			}
			if err := exec.Command("sync", to).Run(); err != nil {
				return err
			}
			return exec.Command(sha1sum, to).Run()
		})
	}
	b.ReportMetric(float64(times[0])/float64(times[2]), "export/copy")
	b.ReportMetric(float64(times[1])/float64(times[2]), "import/copy")
	b.ReportMetric(float64(times[2].Seconds())/float64(b.N), "s/copy")
}

// store does to a piece what a store does: all digests, and a synced file.
func store(path string, p *Piece, h Head) error {
	return toFile(path, func(w io.Writer) error {
		hash := verify.NewWriter()
		defer hash.Close()
		for {
			buf := hash.Buffer()
			n, err := p.Read(buf)
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			hash.Commit(n)
			if errors.Is(err, io.EOF) {
				return judge(hash.Digests(), p.Entry, h.Index.Images[p.Image].Files[p.File])
			}
			if err != nil {
				return err
			}
		}
	})
}

func toFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Sync()
}

// diskShelf is a shelf whose files lie on disk.
type diskShelf struct {
	*shelf
	dir string
}

func (d *diskShelf) spill() {
	for sum, b := range d.files {
		if err := os.WriteFile(filepath.Join(d.dir, sum.String()), b, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	clear(d.files)
}

func (d *diskShelf) File(_ context.Context, sum verify.Sum) (io.ReadCloser, error) {
	return os.Open(filepath.Join(d.dir, sum.String()))
}

// BenchmarkDigests is what the digests alone cost.
func BenchmarkDigests(b *testing.B) {
	data := noise(1, benchSize)
	b.SetBytes(benchSize)
	for b.Loop() {
		w := verify.NewWriter()
		if err := verify.HashFrom(context.Background(), w, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		w.Digests()
	}
}

func BenchmarkParseIndex(b *testing.B) {
	s := newShelf(b)
	for i := range 1000 {
		s.put(i+1, 0, 1)
	}
	x := s.plan(options())
	b.SetBytes(int64(len(x.Bytes())))
	for b.Loop() {
		if _, err := ParseIndex(x.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
