package verify

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// stream is n bytes that begin as a ZFS stream does.
func stream(order binary.ByteOrder, n int) []byte {
	b := append(make([]byte, 16), noise(n-16)...)
	order.PutUint64(b[8:], zfsMagic)
	return b
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = "mine.zfs"
	if _, err := w.Write(data); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xzed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 16}.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t *testing.T, format tar.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "mine.zfs", Size: 100, Mode: 0o644, Format: format}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(noise(100)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("mine.zfs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(noise(100)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// at is n zero bytes with text at a place.
func at(n, place int, text string) []byte {
	b := make([]byte, n)
	copy(b[place:], text)
	return b
}

func readHead(t *testing.T, file []byte) Head {
	t.Helper()
	// A reader that gives a little at a time, as networks and pipes do.
	h, err := ReadHead(bufio.NewReaderSize(iotest.HalfReader(bytes.NewReader(file)), HeadSize))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// What holds a ZFS stream passes: whatever made it, in either byte order, in each of the compressions, however large.
func TestHeadOfStreams(t *testing.T) {
	f := func(file []byte, compression string) {
		t.Helper()
		h := readHead(t, file)
		if err := h.CheckStream(); err != nil || !h.Known() || h.Compression() != compression {
			t.Errorf("%d bytes, %x…: %+v, compression %s, %v; want a stream, %s", len(file), file[:16], h, h.Compression(), err, compression)
		}
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, n := range []int{16, 312, 4000, 200_000} {
			s := stream(order, n)
			f(s, "none")
			f(gzipped(t, s), "gzip")
			f(xzed(t, s), "xz")
		}
	}
	files, err := filepath.Glob("../cmd/imgmirror/demo/*/*.zfs*") // made by zfs send
	if err != nil || len(files) < 4 {
		t.Fatalf("%d sample images, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zfs": "none"}[filepath.Ext(name)]
		f(data, want)
	}
}

// What is something else is refused, and named.
func TestHeadOfOthers(t *testing.T) {
	f := func(file []byte, what string) {
		t.Helper()
		for _, packed := range []struct {
			prefix string
			file   []byte
		}{{"", file}, {"gzip of ", gzipped(t, file)}, {"xz of ", xzed(t, file)}} {
			h := readHead(t, packed.file)
			if err := h.CheckStream(); !errors.Is(err, ErrNoStream) || !strings.Contains(err.Error(), "the file is "+packed.prefix+what) {
				t.Errorf("%s: %v; want %q", packed.prefix, err, what)
			}
		}
	}
	var zst bytes.Buffer
	w, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(stream(binary.LittleEndian, 5000)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	f(zst.Bytes(), "zstd")
	f([]byte("\x52\x2a\x4d\x18\x04\x00\x00\x00abcd\x28\xb5\x2f\xfd"), "zstd")
	f([]byte("\x04\x22\x4d\x18\x64\x40\xa7\x00"), "lz4")
	f([]byte("\x02\x21\x4c\x18\x64\x40\xa7\x00"), "lz4")
	f([]byte("\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x26"), "lzma")
	f([]byte("LZIP\x01\x0c\x00"), "lzip")
	f([]byte("\x1f\x9d\x90abc"), "data compressed by compress(1)")
	f(zipped(t), "a zip archive")
	f([]byte("7z\xbc\xaf\x27\x1c\x00\x04"), "a 7z archive")
	f(tarred(t, tar.FormatUSTAR), "a tar archive")
	f(tarred(t, tar.FormatGNU), "a tar archive")
	f(tarred(t, tar.FormatPAX), "a tar archive")
	f([]byte("<!DOCTYPE html>\n<html><title>Login</title>"), "a saved web page")
	f([]byte("\xef\xbb\xbf\r\n  <!-- proxy -->\n<HTML lang=en>"), "a saved web page")
	f([]byte(`{"code":"ResourceNotFound","message":"image not found"}`), "JSON")
	f([]byte("[\n  {\"v\": 2}\n]"), "JSON")
	f([]byte("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), "XML")
	f([]byte("404 page not found\n"), "plain text")
	f([]byte("QFI\xfb\x00\x00\x00\x03"), "a QCOW disk image")
	f([]byte("KDMV\x01\x00\x00\x00"), "a VMDK disk image")
	f([]byte("hsqs\x07\x00\x00\x00"), "a squashfs image")
	f(at(4096, 510, "\x55\xaa"), "a raw disk image")
	f(at(4096, 512, "EFI PART"), "a raw disk image")
	f(at(4096, 1024+56, "\x53\xef\x01\x00\x01\x00"), "an ext2")
	f([]byte("\x7fELF\x02\x01\x01\x00"), "an ELF binary")
	f(make([]byte, 4096), "nothing but zero bytes")
	g := func(file []byte, what string) {
		t.Helper()
		if err := readHead(t, file).CheckStream(); !errors.Is(err, ErrNoStream) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v; want %q", err, what)
		}
	}
	g(nil, "the file is empty")
	g(gzipped(t, gzipped(t, stream(binary.LittleEndian, 400))), "gzip of gzip-compressed data")
	g(xzed(t, gzipped(t, stream(binary.LittleEndian, 400))), "xz of gzip-compressed data")
	g(gzipped(t, nil), "the file is gzip of nothing")
	g(xzed(t, nil), "the file is xz of nothing")
	g(noise(5000), "data of an unknown kind")
	g(stream(binary.LittleEndian, 400)[1:], "data of an unknown kind")
	g(at(40000, 32769, "CD001"), "an ISO 9660 image")
}

// A compressed file that does not decompress is refused; one of unknown contents is let pass, and is not known.
func TestHeadOfBroken(t *testing.T) {
	s := stream(binary.LittleEndian, 200_000)
	f := func(file []byte, what string) {
		t.Helper()
		h := readHead(t, file)
		if err := h.CheckStream(); !errors.Is(err, ErrNoStream) || h.Broken == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v, %v; want broken %s", h, err, what)
		}
	}
	f(gzipped(t, s)[:12], "gzip")
	f(gzipped(t, s)[:1000], "gzip")
	f([]byte("\x1f\x8b\x08"+strings.Repeat("p", 5000)), "gzip")
	f(xzed(t, s)[:10], "xz")
	f(xzed(t, s)[:1000], "xz")
	flipped := xzed(t, s)
	flipped[17] ^= 1
	f(flipped, "xz")
	f([]byte("\xfd7zXZ\x00"+strings.Repeat("p", 100_000)), "xz")
	f([]byte("BZh91AY&SY"+strings.Repeat("p", 5000)), "bzip2")
	f([]byte("BZh is no compression"), "bzip2")

	for _, file := range [][]byte{gzipped(t, noise(200_000)), xzed(t, noise(200_000))} {
		if h := readHead(t, file); h.CheckStream() != nil || h.Known() || h.Broken != nil {
			t.Errorf("noise: %+v, %v", h, h.CheckStream())
		}
	}
}

// What ReadHead looked at is still there, and a reader's fault is told.
func TestReadHead(t *testing.T) {
	file := gzipped(t, stream(binary.LittleEndian, 300_000))
	in := bufio.NewReaderSize(bytes.NewReader(file), HeadSize)
	if _, err := ReadHead(in); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(in); err != nil || !bytes.Equal(all, file) {
		t.Errorf("%d bytes are left of %d, %v", len(all), len(file), err)
	}
	broken := errors.New("broken")
	if _, err := ReadHead(bufio.NewReaderSize(io.MultiReader(bytes.NewReader(file[:100]), iotest.ErrReader(broken)), HeadSize)); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

// Whatever a file begins with, looking at it ends, in little memory.
func FuzzReadHead(f *testing.F) {
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x28\x00\x00\x00"))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"))
	f.Add([]byte("BZh91AY&SY"))
	f.Add(make([]byte, 1100))
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, more := range []bool{true, false} {
			h := headOf(file, more)
			if err := h.CheckStream(); err == nil && h.Compression() == "none" && h.Kind != KindZFS {
				t.Fatalf("%+v passes for a stream", h)
			}
		}
	})
}
