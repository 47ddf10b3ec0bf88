package zfsimport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz"
)

// need skips the test when program is not installed, or fails it under CI=true.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	for _, dir := range sbin {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, program))
	}
	if err != nil {
		missing(t, "the program "+program)
	}
	return path
}

// missing ends the test for want of a component.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s (e2e/install.sh installs what the tests need)", what)
	}
	t.Skipf("missing: %s (e2e/install.sh installs what the tests need)", what)
}

// compress is the data as a file of that format.
func compress(t testing.TB, format string, data []byte, options ...string) []byte {
	t.Helper()
	if format == "none" {
		return data
	}
	cmd := exec.Command(need(t, format), append([]string{"-c"}, options...)...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// content is data that compresses about as binaries do.
func content(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, 0, size+512)
	for len(b) < size {
		switch r.IntN(4) {
		case 0:
			for range 1 + r.IntN(200) {
				b = append(b, byte(r.Uint32()))
			}
		case 1:
			b = append(b, make([]byte, r.IntN(300))...)
		default:
			if len(b) > 0 {
				from := r.IntN(len(b))
				b = append(b, b[from:min(len(b), from+r.IntN(200))]...)
			}
		}
	}
	return b[:size]
}

func decode(t *testing.T, format string, file io.Reader) ([]byte, error) {
	t.Helper()
	d, err := newDecoder(t.Context(), format, bufio.NewReader(file))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(d)
	if closed := d.Close(); closed != nil {
		t.Errorf("close: %v", closed)
	}
	return out, err
}

func TestDecode(t *testing.T) {
	for _, format := range []string{"gzip", "bzip2", "xz", "none"} {
		t.Run(format, func(t *testing.T) {
			for _, size := range []int{0, 1, 100, 70_000, 3_000_000} {
				if size == 0 && format == "none" {
					continue
				}
				data := content(uint64(size), size)
				file := compress(t, format, data)
				if has, err := sniff(bufio.NewReader(bytes.NewReader(file))); err != nil || has != format {
					t.Errorf("%d bytes: taken for %s, %v", size, has, err)
				}
				for name, r := range map[string]io.Reader{
					"whole": bytes.NewReader(file), "in pieces": iotest.OneByteReader(bytes.NewReader(file)), "end with data": iotest.DataErrReader(bytes.NewReader(file)),
				} {
					if got, err := decode(t, format, r); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%d bytes, %s: got %d bytes, %v", size, name, len(got), err)
					}
				}
			}
		})
	}
}

// Files that were put together of several are read to their end; what gzip(1) does
// not mind after it is not minded.
func TestDecodeSeveral(t *testing.T) {
	a, b := content(1, 1_500_000), content(2, 1_000_000)
	for _, format := range []string{"gzip", "bzip2", "xz"} {
		file := append(compress(t, format, a), compress(t, format, b, "-1")...)
		if got, err := decode(t, format, bytes.NewReader(file)); err != nil || !bytes.Equal(got, append(a[:len(a):len(a)], b...)) {
			t.Errorf("%s: %d bytes, %v", format, len(got), err)
		}
		if format != "gzip" {
			continue // these are stricter
		}
		for _, tail := range []string{"\x00", strings.Repeat("\x00", 5000), "something else", "BZ"} {
			got, err := decode(t, format, strings.NewReader(string(file)+tail))
			if err != nil || len(got) != len(a)+len(b) {
				t.Errorf("%s followed by %.10q: %d bytes, %v", format, tail, len(got), err)
			}
		}
	}
}

func TestDecodeWrong(t *testing.T) {
	data := content(3, 1_200_000)
	broken := errors.New("broken")
	for _, format := range []string{"gzip", "bzip2", "xz"} {
		file := compress(t, format, data)
		for _, size := range []int{3, 20, len(file) / 2, len(file) - 2} {
			if got, err := decode(t, format, bytes.NewReader(file[:size])); err == nil {
				t.Errorf("%s cut to %d of %d bytes: %d bytes and no error", format, size, len(file), len(got))
			}
			r := io.MultiReader(bytes.NewReader(file[:size]), iotest.ErrReader(broken))
			if _, err := decode(t, format, r); !errors.Is(err, broken) {
				t.Errorf("%s whose file breaks at %d: %v", format, size, err)
			}
		}
		for at := 12; at < len(file); at += len(file) / 9 {
			wrong := bytes.Clone(file)
			wrong[at] ^= 0x10
			if got, err := decode(t, format, bytes.NewReader(wrong)); err == nil && bytes.Equal(got, data) {
				continue // a bit without a meaning, in a header
			} else if err == nil {
				t.Errorf("%s with a wrong bit in byte %d: %d bytes and no error", format, at, len(got))
			}
		}
	}
}

// Close ends a decoder in mid-file, and what it runs.
func TestDecodeClosed(t *testing.T) {
	data := content(4, 4_000_000)
	for _, format := range []string{"gzip", "bzip2", "xz", "none"} {
		file := compress(t, format, data)
		d, err := newDecoder(t.Context(), format, bufio.NewReader(bytes.NewReader(file)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(d, make([]byte, 1000)); err != nil {
			t.Fatal(format, err)
		}
		d.Close()
		if p, ok := d.(*programDecoder); ok && p.child.cmd.ProcessState == nil {
			t.Errorf("%s: the program goes on", format)
		}
	}
}

// The library that stands in for a missing xz.
func TestDecodeWithoutXz(t *testing.T) {
	data := content(5, 300_000)
	file := compress(t, "xz", data)
	t.Setenv("PATH", t.TempDir())
	if got, err := decode(t, "xz", bytes.NewReader(file)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A file of many blocks, among them those in which a block's first bits occur by
// chance, comes out as it went in.
func TestDecodeManyBlocks(t *testing.T) {
	data := content(9, 37<<20)
	d, err := newDecoder(t.Context(), "bzip2", bufio.NewReaderSize(bytes.NewReader(compress(t, "bzip2", data)), inputBuffer))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes: %v", len(got), len(data), err)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := content(9, 64<<20)
	for _, c := range []struct {
		name, format string
		options      []string
	}{{"gzip", "gzip", nil}, {"bzip2", "bzip2", nil}, {"xz", "xz", []string{"-1"}}, {"xz-blocks", "xz", []string{"-1", "-T2", "--block-size=8MiB"}}, {"none", "none", nil}} {
		file := compress(b, c.format, data, c.options...)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				d, err := newDecoder(context.Background(), c.format, bufio.NewReaderSize(bytes.NewReader(file), inputBuffer))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, d); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
				d.Close()
			}
		})
	}
	for _, name := range []string{"gzip", "bzip2", "xz"} { // what else there is to choose
		file := compress(b, name, data)
		b.Run("program/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				cmd := exec.Command(need(b, name), "-dc")
				cmd.Stdin = bytes.NewReader(file)
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	file := compress(b, "xz", data)
	b.Run("library/xz", func(b *testing.B) { // where there is no program
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			r, err := xz.NewReader(bytes.NewReader(file))
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
				b.Fatal(n, err)
			}
		}
	})
}
