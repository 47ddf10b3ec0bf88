package manifest

import (
	"testing"

	"imgmirror/verify"
)

// Spec 1.4 (sniffing), 5.6 (sha1 and size filled in).
func TestWithFacts(t *testing.T) {
	sum, other := mustSum(t, sha1A), mustSum(t, sha1B)
	f := func(file, want string, facts Facts) {
		t.Helper()
		m := parse(t, v2With(`,"files":[{"sha1":"`+sha1B+`","size":1,"compression":"none"},{`+file+`}],"x":1`))
		before := string(m.V2())
		got, changed := m.WithFacts(1, facts)
		if text := v2With(`,"files":[{"sha1":"` + sha1B + `","size":1,"compression":"none"},{` + want + `}],"x":1`); string(got.V2()) != text {
			t.Errorf("%s with %+v: %s\nwant %s", file, facts, got.V2(), text)
		}
		if changed != (string(got.V2()) != before) {
			t.Errorf("%s with %+v: changed %v", file, facts, changed)
		}
		if string(m.V2()) != before || string(got.Raw()) != string(m.Raw()) {
			t.Error("the manifest itself was changed")
		}
		checkView(t, got)
		if _, twice := got.WithFacts(1, facts); twice {
			t.Errorf("%s with %+v: changed again", file, facts)
		}
	}
	gzip := Facts{SHA1: sum, Size: 42, Compression: "gzip"}
	const all = `"sha1":"` + sha1A + `","size":42,"compression":"gzip"`
	f(all, all, gzip)
	f(all, all, Facts{SHA1: other, Size: 43, Compression: "xz"}) // what the source states is never overridden
	f(`"size":42,"compression":"gzip"`, `"size":42,"compression":"gzip","sha1":"`+sha1A+`"`, gzip)
	f(`"sha1":"`+sha1A+`","compression":"gzip"`, `"sha1":"`+sha1A+`","compression":"gzip","size":42`, gzip)
	f(`"sha1":"`+sha1A+`","size":42`, `"sha1":"`+sha1A+`","size":42,"compression":"gzip"`, gzip)
	f(`"path":"x.gz"`, `"compression":"xz","sha1":"`+sha1A+`","size":42`, Facts{SHA1: sum, Size: 42, Compression: "xz"})
	f(`"path":"x.gz","sha1":"`+sha1A+`"`, `"sha1":"`+sha1A+`","compression":"gzip"`, Facts{})
	f(`"path":"x.gz","sha1":"`+sha1A+`"`, `"sha1":"`+sha1A+`","compression":"gzip"`, Facts{Compression: "tar"})
	f(`"path":"x.gz","sha1":"`+sha1A+`"`, `"sha1":"`+sha1A+`","compression":"none"`, Facts{Compression: "none"})

	m := parse(t, v2With(`,"files":[{}]`))
	for _, i := range []int{-1, 1} {
		if _, changed := m.WithFacts(i, gzip); changed {
			t.Errorf("file %d", i)
		}
	}
	if _, changed := (Manifest{}).WithFacts(0, gzip); changed {
		t.Error("facts about nothing")
	}
	got, _ := m.WithFacts(0, gzip)
	if err := imgadmAccepts(got.V2(), true); err != nil {
		t.Error(err)
	}
	if m.Files[0].Size != 0 {
		t.Error("Files is shared")
	}
}

func mustSum(t *testing.T, s string) verify.Sum {
	t.Helper()
	sum, err := verify.ParseSum(s)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
