package manifest

import (
	"strings"
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
		if changed != (string(got.V2()) != before || got.Unusable() != m.Unusable()) {
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

	f(`"sha1":"`+sha1A+`","compression":"zstd"`, `"sha1":"`+sha1A+`","compression":"gzip","size":42`, gzip) // its bytes know better

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

// An image of which the size or the compression is not known says so, and one that no node can receive says why.
func TestIncomplete(t *testing.T) {
	f := func(imageType, file string, kind, incomplete, unusable string) {
		t.Helper()
		m := parse(t, strings.Replace(v2With(`,"files":[{"sha1":"`+sha1A+`",`+file+`}]`), "zone-dataset", imageType, 1))
		if kind != "-" {
			m, _ = m.WithFacts(0, Facts{SHA1: mustSum(t, sha1A), Size: 42, Compression: m.CompressionBy(0, kind)})
		}
		for _, c := range []struct{ got, want string }{{m.Incomplete(), incomplete}, {m.Unusable(), unusable}} {
			if !strings.Contains(c.got, c.want) || (c.want == "") != (c.got == "") {
				t.Errorf("%s, %s, file of kind %q: %q, want %q", imageType, file, kind, c.got, c.want)
			}
		}
		if f := &m.Files[0]; f.Complete() != (incomplete == "") || f.Unusable() != (unusable != "") {
			t.Errorf("%s: complete %v, unusable %v", file, f.Complete(), f.Unusable())
		}
	}
	const noSize, noCompression = "size is not known", "compression is not known"
	f("zone-dataset", `"size":42,"compression":"gzip"`, "-", "", "")
	f("zone-dataset", `"size":0,"compression":"gzip"`, "-", noSize, "")
	f("zone-dataset", `"size":null,"compression":"gzip"`, "gzip", "", "")
	f("zone-dataset", `"size":42,"compression":null`, "-", noCompression, "")
	f("zone-dataset", `"size":42,"compression":"LZ4"`, "-", noCompression+` yet: the source says "lz4"`, "")
	f("zone-dataset", `"size":42,"compression":"gz"`, "-", "", "")
	f("zone-dataset", `"size":42,"path":"x.zfs.gz"`, "-", "", "")
	for _, kind := range []string{"gzip", "bzip2", "xz", verify.KindZFS} {
		f("lx-dataset", `"compression":"zstd"`, kind, "", "")
	}
	for _, file := range []string{`"size":42`, `"size":42,"compression":"zstd"`, `"compression":"zstd"`, `"path":"x.zfs"`, `"path":"x.gz"`} {
		f("zvol", file, "zstd", "", "compression zstd: no node can receive it")
		f("lxd", file, "zstd", "", "")
		f("other", file, "", "", "")
	}
	f("zone-dataset", `"size":42`, "", "", "no node can receive it (the file is data of an unknown kind")
	f("zone-dataset", `"size":42,"path":"x.zfs"`, "", "", "")
	f("zone-dataset", `"size":42,"compression":"none"`, "zstd", "", "") // stated is stated
}

func mustSum(t *testing.T, s string) verify.Sum {
	t.Helper()
	sum, err := verify.ParseSum(s)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
