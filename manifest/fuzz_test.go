package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// seeds gives some of the real manifests, and the shapes that the rules turn on.
func seeds(f *testing.F) [][]byte {
	files, err := filepath.Glob("testdata/real/*/*64*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	var out [][]byte
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, data)
	}
	for _, s := range []string{
		v2With(``), v2With(fileA), v1With(fileA),
		v2With(`,"activated":true,"channels":["a"],"icon":{},"files":[{"stor":"x","size":"7","sha1":"` + strings.ToUpper(sha1A) + `"},{}]`),
		v1With(`,"restricted_to_uuid":"` + idC + `","image_size":"1","disabled":"true","files":[{"path":"../x.gz","url":"http://h/?#.xz","md5":"x"}]`),
		`{"activated":1,` + v2With(``)[1:], `[1,{},"x"]`, `{"u\u0075id":"` + idA + `"}`, "\xef\xbb\xbf{}",
	} {
		out = append(out, []byte(s))
	}
	return out
}

// checkManifest holds for whatever Parse accepts.
func checkManifest(t *testing.T, m Manifest, o ParseOptions) {
	if err := imgadmAccepts(m.V2(), false); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
		t.Fatalf("%v\n%s\nfrom %s", err, m.V2(), m.Raw())
	}
	n, unpack := inPacks([]Manifest{m}, 1)
	restored, _, refused := RestoreList(n, unpack, none, o)
	if len(refused) > 0 || !reflect.DeepEqual(restored, []Manifest{m}) {
		t.Fatalf("restored as another manifest: %+v, %v\nwant %+v\nfrom %s", restored, refused, m, m.Raw())
	}
	again, err := Parse(m.V2(), o)
	if err != nil {
		t.Fatalf("V2 is refused: %v\n%s\nfrom %s", err, m.V2(), m.Raw())
	}
	if !bytes.Equal(again.V2(), m.V2()) || again.UUID != m.UUID || !m.Published.IsZero() && !again.Published.Equal(m.Published) || again.State != m.State ||
		again.Public != m.Public || len(again.Files) != len(m.Files) {
		t.Fatalf("V2 is read as another manifest:\n%s\n%s\nfrom %s", m.V2(), again.V2(), m.Raw())
	}
	named := m.WithChannels([]string{"dev", "a\"b"})
	withChannels, err := Parse(named.V2Channels(), o)
	if err != nil || !slices.Equal(withChannels.Channels, named.Channels) || !bytes.Equal(withChannels.V2(), m.V2()) {
		t.Fatalf("channels: %v, %q\n%s\n%s", err, withChannels.Channels, named.V2Channels(), withChannels.V2())
	}
	v1 := m.V1("http://h", "")
	if !json.Valid(v1) {
		t.Fatalf("V1 is no JSON: %s\nfrom %s", v1, m.Raw())
	}
	paths := map[string]bool{}
	for i := range m.Files {
		p := m.FilePath(i)
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "/\x00") || paths[p] {
			t.Fatalf("path %q of %s", p, m.Raw())
		}
		paths[p] = true
		facts := Facts{Size: 7, Compression: "xz"}
		facts.SHA1[0] = 1
		full, changed := m.WithFacts(i, facts)
		if !json.Valid(full.V2()) || changed == bytes.Equal(full.V2(), m.V2()) {
			t.Fatalf("facts: changed %v\n%s\n%s", changed, m.V2(), full.V2())
		}
		if full.Files[i].SHA1.IsZero() || full.Files[i].Size == 0 {
			t.Fatalf("facts are lost: %s", full.V2())
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, private bool) {
		o := ParseOptions{ServePrivate: private}
		before := bytes.Clone(data)
		m, err := Parse(data, o)
		if !bytes.Equal(before, data) {
			t.Fatal("the input was written to")
		}
		if err != nil {
			var pe *ParseError
			if !errors.Is(err, ErrInvalid) || !errors.As(err, &pe) || len(err.Error()) > 1500 {
				t.Fatalf("%v", err)
			}
			return
		}
		checkManifest(t, m, o)
	})
}

func FuzzParseList(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
		f.Add([]byte("[" + string(s) + "," + v2With(fileA) + "]"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		images, skipped, err := ParseList(data, ParseOptions{})
		if err != nil {
			if !errors.Is(err, ErrInvalid) || len(images)+len(skipped) > 0 {
				t.Fatal(err, len(images), len(skipped))
			}
			return
		}
		for _, m := range images {
			checkManifest(t, m, ParseOptions{})
			alone, err := Parse(m.Raw(), ParseOptions{})
			if err != nil || !bytes.Equal(alone.V2(), m.V2()) {
				t.Fatalf("alone: %v\n%s", err, m.Raw())
			}
		}
		if list := BuildList(images); !json.Valid(list) {
			t.Fatalf("%s", list)
		}
		merged, _ := Merge([]Listing{{Source: "a", Images: images}, {Source: "b", Unlisted: images}})
		if len(merged) > len(images) {
			t.Fatal(len(merged), len(images))
		}
	})
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		"", "state=all&limit=5&sort=published_at.desc", "marker=2014-01-02T03:04Z", "marker=" + idA, "tag.a=1&tag.=&billing_tag=x", "public=", "account=" + idA,
	} {
		f.Add(s)
	}
	var images []Manifest
	for _, in := range []string{v2With(fileA), v1With(fileA + `,"tags":{"a":1,"b":"x"}`)} {
		m, err := Parse([]byte(in), ParseOptions{})
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, m)
	}
	find := func(uuid.UUID) (Manifest, bool) { return images[0], true }
	f.Fuzz(func(t *testing.T, query string) {
		for _, read := range []func([][2]string) (Query, error){ParseQuery, ParseDatasetsQuery} {
			q, err := read(params(query))
			if err != nil {
				var qe *QueryError
				if !errors.As(err, &qe) || qe.Field == "" || qe.Outer == "" || qe.Code == "" {
					t.Fatalf("%v", err)
				}
				continue
			}
			got, err := q.Select(images, find)
			if err != nil || got.Len() > len(images) || q.IsDefault() && got.Len() != len(images) {
				t.Fatal(got.Len(), err)
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"name=x", "name=~x", "name!=x", "tag.a.b=c", "uuid=" + idA, "public=TRUE", "=", "!=", "state=active", "tag.=~"} {
		f.Add(s)
	}
	m, err := Parse([]byte(v2With(fileA+`,"tags":{"a":1}`)), ParseOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := ParseFilter(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseFilter(filter.String())
		if err != nil || again != filter || again.Match(m) != filter.Match(m) {
			t.Fatalf("%q is written %q: %v", s, filter, err)
		}
	})
}
