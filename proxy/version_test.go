package proxy

import "testing"

func TestVersionSatisfiable(t *testing.T) {
	f := func(header string, want bool) {
		t.Helper()
		if got := versionSatisfiable(header); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	f("", true) // an old client
	f("*", true)
	f("~1", true)
	f("~2", true)
	f("~1.0", true)
	f("~2.0", true)
	f("^1", true)
	f("^2.0.0", true)
	f("1.0.0", true)
	f("2.0.0", true)
	f("1", true)
	f("2", true)
	f("2.x", true)
	f("x", true)
	f(">=1", true)
	f(">=1.5", true)
	f("<2", true)
	f(">=1 <2", true)
	f(">=1.0.0 <1.5.0 || ~9", true)
	f("~9 || ~2", true)
	f("~99", false)
	f("~3", false)
	f("3.0.0", false)
	f("1.5.0", false)
	f(">2", false)
	f(">1.0.0 <2.0.0", false)
	f("~8 || ~9", false)
	f("garbage", false)
	f("~", false)
	f("||", false)
	f(string(make([]byte, 4000)), false)
}

func FuzzVersionSatisfiable(f *testing.F) {
	for _, s := range []string{"", "*", "~2", ">=1 <2", "~9 || ~2", "^1.x", "1 - 2", "||", "=v2.0.0-beta+x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if len(header) > 128 && versionSatisfiable(header) {
			t.Fatal("a header of that length is no range")
		}
		// A further alternative takes nothing away.
		if header != "" && len(header) < 100 && versionSatisfiable(header) && !versionSatisfiable(header+" || ~99") {
			t.Fatalf("%q: refused with an alternative", header)
		}
	})
}
