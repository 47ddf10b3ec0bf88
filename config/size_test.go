package config

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	f := func(s string, want Size) {
		t.Helper()
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", s, int64(got), err, int64(want))
		}
	}
	f("", 0)
	f("0", 0)
	f("0B", 0)
	f("1000", 1000)
	f("10GB", 10e9)
	f("10G", 10e9)
	f("10 gb", 10e9)
	f("64MiB", 64<<20)
	f("1.5TiB", 3<<39)
	f("0.5kB", 500)
	f(" 500GB ", 500e9)
	f("9223372036854775807", math.MaxInt64)
	f("9007199254740993B", 1<<53+1)

	bad := func(s string) {
		t.Helper()
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", s, int64(got))
		}
	}
	bad("-1")
	bad("-1GB")
	bad("B")
	bad("ten")
	bad("10 potatoes")
	bad("10MB/s")
	bad("9EB EB")
	bad("16EB")
	bad("9223372036854775808")
	bad("NaN")
	bad("Inf")
	bad("1e30GB")
}

func TestSizeString(t *testing.T) {
	f := func(s Size, want string) {
		t.Helper()
		if got := s.String(); got != want {
			t.Errorf("Size(%d) is %q, want %q", int64(s), got, want)
		}
	}
	f(0, "0B")
	f(1, "1B")
	f(1000, "1kB")
	f(1024, "1KiB")
	f(1500, "1500B")
	f(10e9, "10GB")
	f(64<<20, "64MiB")
	f(1.5e9, "1500MB")
	f(1<<60, "1EiB")
	f(math.MaxInt64, "9223372036854775807B")
	f(-5, "-5B")
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"", "10GB", "1.5 TiB", "1,000", "9007199254740993B", "8EiB", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		size, err := ParseSize(s)
		if err != nil {
			return
		}
		if size < 0 {
			t.Fatalf("ParseSize(%q) = %d", s, int64(size))
		}
		if again, err := ParseSize(size.String()); err != nil || again != size {
			t.Errorf("ParseSize(%q) = %d, printed %s, read back as %d, %v", s, int64(size), size, int64(again), err)
		}
	})
}
