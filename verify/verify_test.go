package verify

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func direct(b []byte) Digests {
	return Digests{SHA1: sha1.Sum(b), MD5: md5.Sum(b), SHA256: sha256.Sum256(b), Size: int64(len(b)), Format: KindOf(b[:min(len(b), kindLen)])}
}

func TestParseSum(t *testing.T) {
	const hex = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	ok := func(s string) {
		t.Helper()
		got, err := ParseSum(s)
		if err != nil || got.String() != hex || got.IsZero() {
			t.Errorf("ParseSum(%q) = %v, %v", s, got, err)
		}
	}
	bad := func(s string) {
		t.Helper()
		if got, err := ParseSum(s); err == nil || !got.IsZero() {
			t.Errorf("ParseSum(%q) = %v, %v; want an error and the zero sum", s, got, err)
		}
	}
	ok(hex)
	ok(strings.ToUpper(hex))
	bad("")
	bad(hex[1:])
	bad(hex + "0")
	bad(" " + hex[1:])
	bad(hex[:39] + "g")

	var v struct{ S Sum }
	if err := json.Unmarshal([]byte(`{"S":"`+hex+`"}`), &v); err != nil || v.S.String() != hex {
		t.Errorf("from JSON: %v, %v", v.S, err)
	}
	if b, err := json.Marshal(v); err != nil || string(b) != `{"S":"`+hex+`"}` {
		t.Errorf("to JSON: %s, %v", b, err)
	}
}

func TestWriter(t *testing.T) {
	data := noise(blocks*blockSize*2 + 77)
	for _, n := range []int{0, 1, 5, 6, 7, blockSize - slack, blockSize - slack + 1, blockSize - 1, blockSize, blockSize + 1, 3*blockSize + 9, len(data)} {
		w := NewWriter()
		if m, err := w.Write(data[:n]); m != n || err != nil {
			t.Fatalf("Write(%d) = %d, %v", n, m, err)
		}
		if got, want := w.Digests(), direct(data[:n]); got != want {
			t.Errorf("%d bytes: got %+v, want %+v", n, got, want)
		}
		if got := w.Digests(); got != direct(data[:n]) {
			t.Errorf("%d bytes: a second Digests differs", n)
		}
		if err := w.Close(); err != nil || w.Digests() != direct(data[:n]) {
			t.Errorf("%d bytes: Digests lost by Close (%v)", n, err)
		}
	}
}

func TestWriterClosedEarly(t *testing.T) {
	w := NewWriter()
	w.Write(noise(blocks * blockSize * 3))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFormat(t *testing.T) {
	f := func(data, want string) {
		t.Helper()
		w := NewWriter()
		for i := range len(data) { // a magic that comes byte by byte is found too
			w.Write([]byte{data[i]})
		}
		if got := w.Digests().Format; got != want {
			t.Errorf("format of %q = %q, want %q", data, got, want)
		}
	}
	f("", "empty")
	f("\x1f\x8b", "")
	f("\x1f\x8b\x08 and more", "gzip")
	f("BZh91AY", "bzip2")
	f("\xfd7zXZ\x00", "xz")
	f("\xfd7zXZ", "")
	f("plain", "text")
}

func TestCheck(t *testing.T) {
	got := direct([]byte("image"))
	other := direct([]byte("imagf"))
	f := func(w Want, says ...string) {
		t.Helper()
		err := w.Check(got)
		if len(says) == 0 {
			if err != nil {
				t.Errorf("unwanted: %v", err)
			}
			return
		}
		if !errors.Is(err, ErrMismatch) {
			t.Fatalf("%v does not match ErrMismatch", err)
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%q does not say %q", err, s)
			}
		}
	}
	f(Want{})
	f(Want{SHA1: got.SHA1, Size: 5, MD5: got.MD5[:], SHA256: got.SHA256[:]})
	f(Want{Size: 6}, "size is 5, want 6")
	f(Want{SHA1: other.SHA1}, got.SHA1.String(), other.SHA1.String())
	f(Want{SHA1: got.SHA1, MD5: other.MD5[:]}, "md5 is")
	f(Want{SHA1: got.SHA1, SHA256: other.SHA256[:]}, "sha256 is")
	f(Want{SHA1: other.SHA1, Size: 4, MD5: []byte{1}}, "size is", "sha1 is", "md5 is")

	if (Want{Size: 5}).Checkable() || !(Want{SHA1: got.SHA1}).Checkable() || !(Want{MD5: got.MD5[:]}).Checkable() || !(Want{SHA256: got.SHA256[:]}).Checkable() {
		t.Error("Checkable is wrong")
	}
}

func TestFile(t *testing.T) {
	data := noise(blockSize*2 + 3)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	got, err := File(ctx, path, Want{SHA1: sha1.Sum(data)})
	if err != nil || got != direct(data) {
		t.Errorf("File = %+v, %v", got, err)
	}
	got, err = File(ctx, path, Want{Size: 1})
	if !errors.Is(err, ErrMismatch) || got != direct(data) {
		t.Errorf("File of the wrong size = %+v, %v", got, err)
	}
	if _, err = File(ctx, path+"x", Want{}); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrMismatch) {
		t.Errorf("File of nothing: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err = File(ended, path, Want{}); !errors.Is(err, context.Canceled) {
		t.Errorf("File after the end of ctx: %v", err)
	}
}

func TestHashFrom(t *testing.T) {
	data := noise(blockSize + 10)
	w := NewWriter()
	defer w.Close()
	if err := HashFrom(context.Background(), w, iotest.DataErrReader(bytes.NewReader(data))); err != nil {
		t.Fatal(err)
	}
	if w.Digests() != direct(data) {
		t.Error("digests differ when the last bytes come with io.EOF")
	}
	broken := errors.New("broken")
	w = NewWriter()
	defer w.Close()
	if err := HashFrom(context.Background(), w, io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken))); err != broken {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

// The digests are those of the whole sequence, for each way to cut the sequence by Write or by Buffer and Commit.
func FuzzWriter(f *testing.F) {
	f.Add(uint64(1), uint32(0))
	f.Add(uint64(2), uint32(blockSize+1))
	f.Add(uint64(3), uint32(blocks*blockSize+12345))
	f.Fuzz(func(t *testing.T, seed uint64, size uint32) {
		data := noise(int(size % (1 << 22)))
		r := rand.New(rand.NewPCG(seed, seed))
		w := NewWriter()
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(blockSize))
			if r.IntN(2) == 0 {
				w.Write(rest[:n])
			} else {
				n = copy(w.Buffer(), rest[:n])
				w.Commit(n)
			}
			rest = rest[n:]
		}
		if got, want := w.Digests(), direct(data); got != want {
			t.Fatalf("seed %d size %d: got %+v, want %+v", seed, len(data), got, want)
		}
	})
}

func FuzzParseSum(f *testing.F) {
	f.Add("da39a3ee5e6b4b0d3255bfef95601890afd80709")
	f.Add("DA39A3EE5E6B4B0D3255BFEF95601890AFD8070é")
	f.Fuzz(func(t *testing.T, s string) {
		if sum, err := ParseSum(s); err == nil && sum.String() != strings.ToLower(s) {
			t.Fatalf("%q was read as %s", s, sum)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	data := noise(64 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		w := NewWriter()
		for rest := data; len(rest) > 0; { // a producer that fills whole buffers
			n := copy(w.Buffer(), rest)
			w.Commit(n)
			rest = rest[n:]
		}
		w.Digests()
	}
}
