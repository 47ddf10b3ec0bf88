package manifest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// image makes a small v2 manifest: id, sha1 ("" for none), and members more.
func image(t *testing.T, id, sha1, more string) Manifest {
	t.Helper()
	files := ""
	if sha1 != "" {
		files = `,"files":[{"sha1":"` + sha1 + `","size":42,"compression":"gzip"}]`
	}
	return parse(t, strings.Replace(v2With(files+more), idA, id, 1))
}

// summary writes a merge as one line an image: id source[+] holder…
func summary(merged []Merged) (out []string) {
	for _, m := range merged {
		s := m.Manifest.UUID.String()[:1] + " " + m.Source
		if m.Listed {
			s += "+"
		}
		for _, h := range m.Holders {
			s += " " + h.Source
		}
		out = append(out, s)
	}
	return out
}

// Spec 5.3, 7, A35.
func TestMerge(t *testing.T) {
	list := func(source string, images ...Manifest) Listing { return Listing{Source: source, Images: images} }
	f := func(name string, ls []Listing, want []string, conflicts ...Conflict) {
		t.Helper()
		merged, got := Merge(ls)
		if diff := cmp.Diff(want, summary(merged)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(conflicts, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for _, m := range merged {
			if m.Holders[0].Source != m.Source || string(m.Holders[0].Manifest.V2()) != string(m.Manifest.V2()) {
				t.Errorf("%s: %s is not its own first holder", name, m.Manifest.UUID)
			}
		}
	}
	a1, a2, b1, c1 := image(t, idA, sha1A, ""), image(t, idA, sha1B, ""), image(t, idB, sha1B, ""), image(t, idC, sha1A, "")
	a0, aNone := parse(t, v2With(`,"files":[{"size":42,"compression":"gzip"}]`)), image(t, idA, "", "")
	uuidA := a1.UUID

	f("nothing", nil, nil)
	f("one source", []Listing{list("x", c1, a1, b1)}, []string{"a x+ x", "b x+ x", "c x+ x"})
	f("same bytes", []Listing{list("x", a1), list("y", b1, a1), list("z", a1)}, []string{"a x+ x y z", "b y+ y"})
	f("other bytes A35", []Listing{list("x", a1), list("y", a2), list("z", a1)}, []string{"a x+ x z"}, Conflict{uuidA, "x", "y"})
	longer := parse(t, v2With(`,"files":[{"sha1":"`+sha1A+`","size":43,"compression":"gzip"}]`))
	sizeless := parse(t, v2With(`,"files":[{"sha1":"`+sha1A+`","compression":"gzip"}]`))
	f("other size", []Listing{list("x", a1), list("y", longer), list("z", a1)}, []string{"a x+ x z"}, Conflict{uuidA, "x", "y"})
	f("other size first", []Listing{list("y", longer), list("x", a1)}, []string{"a y+ y"}, Conflict{uuidA, "y", "x"})
	f("size not stated", []Listing{list("x", sizeless), list("y", a1)}, []string{"a x+ x y"})
	f("twice in one source", []Listing{list("x", a1, a1, a2)}, []string{"a x+ x"})
	f("no sha1 in the winner", []Listing{list("x", a0), list("y", a1)}, []string{"a x+ x"})
	f("no sha1 in the other", []Listing{list("x", a1), list("y", a0)}, []string{"a x+ x"})
	f("no sha1 at all", []Listing{list("x", a0), list("y", a0)}, []string{"a x+ x"})
	f("no files", []Listing{list("x", aNone), list("y", a1)}, []string{"a y+ y"})
	f("no files, and unlisted elsewhere", []Listing{list("x", aNone), {Source: "y", Unlisted: []Manifest{a1}}}, []string{"a y+ y"})
	aCreating := parse(t, strings.Replace(v2With(""), `"state":"active"`, `"state":"creating"`, 1))
	f("no files yet", []Listing{list("x", aCreating), list("y", a1)}, []string{"a x+ x"})

	two := parse(t, v2With(`,"files":[{"sha1":"`+sha1A+`"},{"sha1":"`+sha1B+`"}]`))
	half := parse(t, v2With(`,"files":[{"sha1":"`+sha1A+`"},{}]`))
	f("two files", []Listing{list("x", two), list("y", two), list("z", half)}, []string{"a x+ x y"})
	f("one file more", []Listing{list("x", two), list("y", a1)}, []string{"a x+ x"}, Conflict{uuidA, "x", "y"})

	private := parse(t, strings.Replace(v2With(fileA), `"public":true`, `"public":false`, 1))
	trusted, err := Parse(private.Raw(), ParseOptions{ServePrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	f("private hides nobody's", []Listing{list("x", private), list("y", a1)}, []string{"a y+ y"})
	f("private served", []Listing{list("x", trusted), list("y", a1)}, []string{"a x+ x y"})

	unlisted := func(source string, images ...Manifest) Listing { return Listing{Source: source, Unlisted: images} }
	off := parse(t, strings.Replace(v2With(fileA), `"state":"active","disabled":false`, `"state":"disabled","disabled":true`, 1))
	f("disabled here, listed there", []Listing{unlisted("x", off), list("y", a1)}, []string{"a y+ y x"})
	f("unlisted", []Listing{unlisted("x", a1)}, []string{"a x x"})
	f("unlisted here, listed there", []Listing{unlisted("x", a1), list("y", a1)}, []string{"a x+ x y"})
	f("unlisted here, others' listed", []Listing{unlisted("x", a1), list("y", a2)}, []string{"a x x"}, Conflict{uuidA, "x", "y"})
	f("both in one source", []Listing{{Source: "x", Images: []Manifest{a1}, Unlisted: []Manifest{a1, b1}}}, []string{"a x+ x", "b x x"})

	child := image(t, idA, sha1A, `,"origin":"`+idC+`"`)
	otherChild := image(t, idA, sha1B, `,"origin":"`+idC+`"`)
	f("origin wins", []Listing{list("x", a1), list("y", a1), list("z", child)}, []string{"a z+ z x y"})
	f("first origin wins", []Listing{list("x", a1), list("y", child), list("z", child)}, []string{"a y+ y x z"})
	f("origin of other bytes", []Listing{list("x", a1), list("y", otherChild)}, []string{"a x+ x"}, Conflict{uuidA, "x", "y"})
	f("origin kept", []Listing{list("x", child), list("y", a1)}, []string{"a x+ x y"})
	if merged, _ := Merge([]Listing{list("x", a1), list("y", child)}); !merged[0].Manifest.HasOrigin() {
		t.Error("the origin is lost")
	}
}

func TestMergeOrder(t *testing.T) {
	var images []Manifest
	for i, date := range []string{"2013-01-01T00:00:00Z", "", "2012-01-01T00:00:00Z", "2012-01-01T00:00:00.001Z", "", "1960-01-01T00:00:00Z"} {
		for _, last := range []string{"2", "1"} {
			id := fmt.Sprintf("%08d-0000-4000-8000-00000000000%s", i, last)
			in := strings.Replace(v2With(fileA), idA, id, 1)
			in = strings.Replace(in, `"2014-01-02T03:04:05Z"`, `"`+date+`"`, 1)
			images = append(images, parse(t, in))
		}
	}
	merged, _ := Merge([]Listing{{Source: "x", Images: images}})
	var got []string
	for _, m := range merged {
		id := m.Manifest.UUID.String()
		got = append(got, id[7:8]+"/"+id[35:])
	}
	want := []string{"1/1", "1/2", "4/1", "4/2", "5/1", "5/2", "2/1", "2/2", "3/1", "3/2", "0/1", "0/2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// However lists overlap, each uuid comes out once, from the first source that has it, with every source that has its bytes.
func TestMergeAgainstPlainRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pool := mustList(t, manyImages(40, false))
	for i := range 30 { // the same uuids with other bytes
		in := strings.Replace(string(pool[i].Raw()), fmt.Sprintf("%040x", i+1), sha1B, 1)
		pool = append(pool, parse(t, in))
	}
	for range 50 {
		var ls []Listing
		for s := range 4 {
			l := Listing{Source: fmt.Sprint(s)}
			seen := map[uuid.UUID]bool{}
			for range r.IntN(50) {
				if m := pool[r.IntN(len(pool))]; !seen[m.UUID] {
					seen[m.UUID] = true
					l.Images = append(l.Images, m)
				}
			}
			ls = append(ls, l)
		}
		want := map[uuid.UUID][]string{}
		winner := map[uuid.UUID]Manifest{}
		left := 0
		for _, l := range ls {
			for _, m := range l.Images {
				w, ok := winner[m.UUID]
				switch {
				case !ok:
					winner[m.UUID] = m
					fallthrough
				case w.Files[0].SHA1 == m.Files[0].SHA1:
					want[m.UUID] = append(want[m.UUID], l.Source)
				default:
					left++
				}
			}
		}
		merged, conflicts := Merge(ls)
		got := map[uuid.UUID][]string{}
		for _, m := range merged {
			for _, h := range m.Holders {
				got[m.Manifest.UUID] = append(got[m.Manifest.UUID], h.Source)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(conflicts) != left {
			t.Fatalf("%s\n%d conflicts, want %d", diff, len(conflicts), left)
		}
	}
}
