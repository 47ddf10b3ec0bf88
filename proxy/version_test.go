package proxy

import "testing"

func TestSatisfiedBy(t *testing.T) {
	f := func(header string, want int) {
		t.Helper()
		if got := satisfiedBy(header); got != want {
			t.Errorf("%q: %d, want %d", header, got, want)
		}
	}
	f("", 1) // an old client
	f("*", 2)
	f("~1", 1)
	f("~2", 2)
	f("~1.0", 1)
	f("~2.0", 2)
	f("^1", 1)
	f("^2.0.0", 2)
	f("1.0.0", 1)
	f("2.0.0", 2)
	f("1", 1)
	f("2", 2)
	f("2.x", 2)
	f("x", 2)
	f(">=1", 2)
	f(">=1.5", 2)
	f("<2", 1)
	f(">=1 <2", 1)
	f(">=1.0.0 <1.5.0 || ~9", 1)
	f("~9 || ~2", 2)
	f("~99", 0)
	f("~3", 0)
	f("3.0.0", 0)
	f("1.5.0", 0)
	f(">2", 0)
	f(">1.0.0 <2.0.0", 0)
	f("~8 || ~9", 0)
	f("garbage", 0)
	f("~", 0)
	f("||", 0)
	f(string(make([]byte, 4000)), 0)
}

func FuzzSatisfiedBy(f *testing.F) {
	for _, s := range []string{"", "*", "~2", ">=1 <2", "~9 || ~2", "^1.x", "1 - 2", "||", "=v2.0.0-beta+x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if len(header) > 128 && satisfiedBy(header) > 0 {
			t.Fatal("a header of that length is no range")
		}
		// A further alternative takes nothing away.
		if header != "" && len(header) < 100 && satisfiedBy(header) > satisfiedBy(header+" || ~99") {
			t.Fatalf("%q: refused with an alternative", header)
		}
	})
}
