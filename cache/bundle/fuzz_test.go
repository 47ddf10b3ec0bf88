package bundle

import (
	"bytes"
	"context"
	"io"
	"testing"
)

// Whatever comes, Read ends, and hands over files of the sizes that the index has.
func FuzzRead(f *testing.F) {
	s, x := small(f)
	whole := s.tar(Head{Index: x, Volume: 1})
	f.Add(whole)
	f.Add(s.tar(Head{Index: x, Volume: 1, Sig: []byte(hashed)}))
	f.Add(whole[:3000])
	f.Add(whole[blockSize:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k := &keeper{}
		k.file = func(p *Piece) error {
			if p.Size != k.head.Index.Images[p.Image].Files[p.File].Size {
				t.Fatalf("%s: %d bytes are handed over", p.Path, p.Size)
			}
			if n, err := io.Copy(io.Discard, p); err == nil && n != p.Size {
				t.Fatalf("%s: ends after %d bytes of %d", p.Path, n, p.Size)
			}
			return nil
		}
		h, err := Read(context.Background(), struct{ io.Reader }{bytes.NewReader(b)}, k)
		if err == nil && int64(len(b)) != h.Size() {
			t.Fatalf("%d bytes were taken for a bundle of %d", len(b), h.Size())
		}
		if err == nil && k.begun != 1 {
			t.Fatalf("Begin was called %d times", k.begun)
		}
	})
}

// What is taken for an index holds to its own rules, and reads the same when it is written again.
func FuzzParseIndex(f *testing.F) {
	good, err := encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	_, x := small(f)
	f.Add(good)
	f.Add(x.Bytes())
	f.Add([]byte(`{"format":"imgmirror-bundle","version":1}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseIndex(b)
		if err != nil {
			return
		}
		again, err := encode(x)
		if err != nil {
			t.Fatal(err)
		}
		y, err := ParseIndex(again)
		if err != nil {
			t.Fatalf("%s\nis refused when written as\n%s\n%v", b, again, err)
		}
		third, err := encode(y)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s\nand\n%s", again, third)
		}
		for v := 1; v <= x.Volumes; v++ {
			h := Head{Index: x, Volume: v}
			at := int64(0)
			for _, e := range h.Entries() {
				if e.At != at || e.Data <= e.At || e.Size < 1 && e.Image >= 0 {
					t.Fatalf("entry %+v at %d", e, at)
				}
				at = e.end()
			}
			if at+trailer != h.Size() {
				t.Fatalf("size %d, entries end at %d", h.Size(), at)
			}
		}
	})
}
