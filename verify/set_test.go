package verify

import (
	"fmt"
	"testing"
)

// A Writer of some digests and a Follower of the others have all of them.
func TestFollower(t *testing.T) {
	for set := SHA1; set <= All; set++ {
		for _, n := range []int{0, 1, blockSize, 3*blockSize + 9} {
			data := noise(n)
			w, f := NewWriterOf(set), NewFollower(All&^set)
			w.Write(data)
			f.Write(data[:n/3])
			f.Write(data[n/3:])
			got := w.Digests()
			if want := direct(data); f.Complete(got) != want {
				t.Errorf("set %b, %d bytes: got %+v, want %+v", set, n, f.Complete(got), want)
			}
			if none := (Digests{}); set&SHA1 == 0 && got.SHA1 != none.SHA1 || set&SHA256 == 0 && got.SHA256 != none.SHA256 ||
				set&MD5 == 0 && got.MD5 != none.MD5 {
				t.Errorf("set %b, %d bytes: the Writer took more: %+v", set, n, got)
			}
		}
	}
}

// What a Want has decides, so that Check is never given a digest that was not taken.
func TestDeciding(t *testing.T) {
	data := noise(1000)
	d := direct(data)
	for _, c := range []struct {
		want Want
		set  Set
	}{
		{Want{SHA1: d.SHA1}, SHA1},
		{Want{SHA1: d.SHA1, Size: d.Size}, SHA1},
		{Want{SHA1: d.SHA1, MD5: d.MD5[:]}, SHA1 | MD5},
		{Want{SHA1: d.SHA1, SHA256: d.SHA256[:]}, SHA1 | SHA256},
		{Want{SHA1: d.SHA1, SHA256: d.SHA256[:], MD5: d.MD5[:]}, All},
		{Want{MD5: d.MD5[:]}, All},
		{Want{SHA256: d.SHA256[:]}, All},
		{Want{Size: d.Size}, All},
	} {
		if got := c.want.Deciding(); got != c.set {
			t.Errorf("%+v: %b decide, want %b", c.want, got, c.set)
		}
		w := NewWriterOf(c.want.Deciding())
		w.Write(data)
		if err := c.want.Check(w.Digests()); err != nil {
			t.Errorf("%+v: %v", c.want, err)
		}
	}
}

// BenchmarkVerdict shows what the digests cost that the verdict does not wait for.
func BenchmarkVerdict(b *testing.B) {
	data := noise(64 << 20)
	for _, set := range []Set{SHA1, SHA1 | SHA256, All} {
		b.Run(fmt.Sprintf("%03b", set), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				w := NewWriterOf(set)
				for rest := data; len(rest) > 0; {
					n := copy(w.Buffer(), rest)
					w.Commit(n)
					rest = rest[n:]
				}
				w.Digests()
			}
		})
	}
}
