package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// shelf is a small store: images 1 to 9 in order, and what is stored but never listed.
type shelf struct {
	images []Manifest
	all    map[uuid.UUID]Manifest
}

func shelfID(n int) string { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", n) }

func newShelf(t *testing.T) shelf {
	t.Helper()
	s := shelf{all: map[uuid.UUID]Manifest{}}
	for i, more := range []string{
		1: `,"name":"base","version":"1.0","os":"smartos","type":"zone-dataset"`,
		2: `,"name":"base","version":"2.0","os":"smartos","type":"zone-dataset","published_at":"2014-01-02T00:00:00Z","tags":{"role":"os","n":1.0,"b":true,"o":{},"z":null,"long":"` + strings.Repeat("x", 101) + `"}`,
		3: `,"name":"base-64","version":"2.0","os":"smartos","type":"zone-dataset","published_at":"2014-01-02T00:00:00Z","origin":"` + shelfID(1) + `","tags":{"role":"os","n":2}`,
		4: `,"name":"ubuntu","version":"14.04","os":"linux","type":"zvol","published_at":"2014-01-02T00:00:00.5Z","tags":{"role":"vm","e":""}`,
		5: `,"name":"ubuntu","version":"16.04","os":"linux","type":"lx-dataset","published_at":"2014-01-03T00:00:00Z","owner":"` + idC + `"`,
		6: `,"name":"layer","version":"x","os":"linux","type":"docker","published_at":"2014-01-04T00:00:00Z","tags":{"docker:id":"1"},"billing_tags":["a","b"]`,
		7: `,"name":"private","version":"1","os":"linux","type":"other","published_at":"2014-01-05T00:00:00Z","public":false,"acl":["` + idA + `"],"owner":"` + idC + `"`,
		8: `,"name":"Base","version":"3.0","os":"smartos","type":"zone-dataset","published_at":"2014-01-06T00:00:00Z"`,
		9: `,"name":"gone","version":"1","os":"linux","type":"other","published_at":"2014-01-07T00:00:00Z","state":"disabled"`,
	} {
		if i == 0 {
			continue
		}
		in := `{"v":2,"uuid":"` + shelfID(i) + `"` + more
		for key, value := range map[string]string{"state": `"active"`, "public": `true`, "owner": `"` + idB + `"`} {
			if !strings.Contains(more, `"`+key+`"`) {
				in += `,"` + key + `":` + value
			}
		}
		m, err := Parse([]byte(in+fileA+`}`), ParseOptions{ServePrivate: true})
		if err != nil {
			t.Fatal(err)
		}
		s.all[m.UUID] = m
		s.images = append(s.images, m)
	}
	return s
}

// params reads "a=b&c=d", not decoded.
func params(query string) (out [][2]string) {
	for kv := range strings.SplitSeq(query, "&") {
		if kv != "" {
			name, value, _ := strings.Cut(kv, "=")
			out = append(out, [2]string{name, value})
		}
	}
	return out
}

// run answers with the images' numbers.
func (s shelf) run(t *testing.T, read func([][2]string) (Query, error), query string) string {
	t.Helper()
	q, err := read(params(query))
	if err != nil {
		t.Errorf("%s: %v", query, err)
		return ""
	}
	got, err := q.Select(s.images, func(id uuid.UUID) (Manifest, bool) { m, ok := s.all[id]; return m, ok })
	if err != nil {
		t.Errorf("%s: %v", query, err)
	}
	out := ""
	for i := range got.All {
		out += strings.TrimLeft(s.images[i].UUID.String()[:8], "0")
	}
	return out
}

// Spec 2.4, row by row, and decisions A6 to A12. Image 1 has no date; 2 and 3 share theirs; 7 is
// private, of a source with serve_private; 9 is disabled.
func TestQuery(t *testing.T) {
	s := newShelf(t)
	f := func(query, want string) {
		t.Helper()
		if got := s.run(t, ParseQuery, query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	const all = "12345678"

	f("", all)
	f("unknown=x&foo", all)
	f("channel=dev", all) // A38

	f("state=active", all)
	f("state=all", all) // A12
	f("state=", all)
	for _, state := range []string{"disabled", "unactivated", "creating", "failed"} {
		f("state="+state, "")
	}

	f("name=base", "12")
	f("name=~base", "123")
	f("name=~", all)
	f("name=bas", "")
	f("name=", all)
	f("version=2.0", "23")
	f("version=~.04", "45")
	f("os=linux", "4567")
	f("os=~lin", "")
	f("owner="+idC, "57")
	f("type=zvol", "4")
	f("type=!zvol", "1235678")
	f("type=!zone-dataset&os=linux", "4567")
	f("name=base&version=2.0", "2")
	f("name=base&name=ubuntu", "12") // the first counts

	f("public=true", "1234568")
	f("public=false", "7")

	f("account="+idC, all)                // owner of 5 and 7
	f("account="+idA, all)                // on the acl of 7
	f("account="+unsetOwner, "1234568")   // a stranger
	f("account="+idC+"&owner="+idC, "57") // own images
	f("account="+idA+"&owner="+idC, "57") // another's: public or shared
	f("account="+unsetOwner+"&owner="+idC, "5")
	f("account="+idA+"&public=false", "7")
	f("account=", all)

	f("tag.role=os", "23")
	f("tag.role=os&tag.n=2", "3")
	f("tag.role=os&tag.role=vm", "")
	f("tag.n=1", "2")
	f("tag.n=1.0", "2")
	f("tag.b=true", "2")
	f("tag.o={}", "")
	f("tag.z=null", "")
	f("tag.long="+strings.Repeat("x", 101), "")
	f("tag.long=", "2")
	f("tag.o=", "2")
	f("tag.z=", "2")
	f("tag.e=", "4")
	f("tag.role=", "234")
	f("tag.none=", "")
	f("tag.docker:id=1", "6")

	f("billing_tag=a", "6")
	f("billing_tag=a&billing_tag=b", "6")
	f("billing_tag=a&billing_tag=c", "")

	f("uuid="+shelfID(4), "4") // A11
	f("uuid="+shelfID(9), "")
	f("uuid=x", "")
	f("origin="+shelfID(1), "3")
	f("origin="+unsetOwner, "")

	f("limit=3", "123")
	f("limit=0", all) // A9
	f("limit=", all)
	f("limit=100000000000000000000000", all)
	f("limit=2&sort=published_at.desc", "87") // limit after sort
	f("limit=1&name=ubuntu", "4")
	f("limit=2&marker="+shelfID(3), "34")

	f("sort=published_at", all)
	f("sort=published_at.asc", all)
	f("sort=published_at.ASC", all)
	f("sort=published_at.desc", "87654321")
	f("sort=published_at.DESC&os=smartos", "8321")

	f("marker="+shelfID(1), all)
	f("marker="+shelfID(3), "345678")                        // A7: 2 has the same date
	f("marker="+shelfID(3)+"&sort=published_at.desc", "321") // ties reversed
	f("marker="+shelfID(2)+"&sort=published_at.desc", "21")
	f("marker="+shelfID(8), "8")
	f("marker="+shelfID(9), "") // found among all that are stored, but hidden
	f("marker="+shelfID(9)+"&sort=published_at.desc", "87654321")
	f("marker="+shelfID(4)+"&os=smartos", "8")  // not returned: it fails the filter
	f("marker=2014-01-02T00:00:00Z", "2345678") // A8: inclusive
	f("marker=2014-01-02", "2345678")
	f("marker=2014-01-02T02:00:00.000+02:00", "2345678") // instants, not strings
	f("marker=2014-01-02T00:00:00.001Z", "45678")
	f("marker=2014-01-02T00:00Z&sort=published_at.desc", "321")
	f("marker=2013-01-01&sort=published_at.desc", "1") // no date is oldest
	f("marker=2020-01-01", "")
	f("marker=1960", "2345678")
	f("marker=", all)

	f("inclAdminFields=false", all)
}

// Spec 2.4, last column; 2.8.
func TestQueryErrors(t *testing.T) {
	f := func(query, outer, field, code string) {
		t.Helper()
		_, err := ParseQuery(params(query))
		var qe *QueryError
		if !errors.As(err, &qe) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", query, err)
			return
		}
		if qe.Outer != outer || qe.Field != field || qe.Code != code || qe.Message == "" || len(qe.Message) > 300 {
			t.Errorf("%s: %+v", query, qe)
		}
	}
	bad := func(field string, values ...string) {
		t.Helper()
		for _, v := range values {
			f(field+"="+v, "InvalidParameter", field, "Invalid")
		}
	}
	bad("state", "Active", "deleted", "~active")
	bad("public", "yes", "TRUE", "1", "")
	bad("account", "bob", strings.ToUpper(idA), idA+"x")
	bad("limit", "ten", "-1", "1.5", "+5", "0x10", " 5", "1e3")
	bad("marker", "yesterday", strings.ToUpper(idA), "2014-13-01", "2014-01-01T25:00:00Z", strings.Repeat("9", 5000))
	bad("sort", "name", "published_at.", "published_at.up", "published_at.desc.asc", ".desc", "-published_at")
	bad("inclAdminFields", "1", "yes", "")
	f("inclAdminFields=true", "UnauthorizedError", "inclAdminFields", "NotAllowed")
	f("name=x&state=all&limit=x", "InvalidParameter", "limit", "Invalid")

	if _, err := ParseQuery(params("limit=1&limit=x")); err != nil {
		t.Errorf("the first counts: %v", err)
	}
}

func TestQueryUnknownMarker(t *testing.T) {
	q, err := ParseQuery(params("marker=" + idA))
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.Select(newShelf(t).images, func(uuid.UUID) (Manifest, bool) { return Manifest{}, false })
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), idA) {
		t.Errorf("%v", err)
	}
}

// A6: no cap without limit, 1000 with a larger one. A client that pages as imgadm does sees each image once.
func TestQueryPaging(t *testing.T) {
	merged, _ := Merge([]Listing{{Source: "x", Images: mustList(t, manyImages(2500, false))}})
	var images []Manifest
	all := map[uuid.UUID]Manifest{}
	for _, m := range merged {
		images = append(images, *m.Manifest)
		all[m.Manifest.UUID] = *m.Manifest
	}
	page := func(query string) []Manifest {
		q, err := ParseQuery(params(query))
		if err != nil {
			t.Fatal(err)
		}
		got, err := q.Select(images, func(id uuid.UUID) (Manifest, bool) { m, ok := all[id]; return m, ok })
		if err != nil {
			t.Fatal(err)
		}
		var selected []Manifest
		for i := range got.All {
			selected = append(selected, images[i])
		}
		if len(selected) != got.Len() {
			t.Fatalf("%s: Len is %d for %d images", query, got.Len(), len(selected))
		}
		return selected
	}
	if got := page(""); len(got) != 2500 {
		t.Errorf("no limit: %d", len(got))
	}
	for _, sort := range []string{"", "&sort=published_at.desc"} {
		var seen []uuid.UUID
		for marker := ""; ; {
			got := page("limit=5000" + sort + marker)
			if marker != "" {
				if got[0].UUID != seen[len(seen)-1] {
					t.Fatalf("the page does not begin at its marker")
				}
				got = got[1:]
			}
			for _, m := range got {
				seen = append(seen, m.UUID)
			}
			if len(got) < 999 {
				break
			}
			marker = "&marker=" + seen[len(seen)-1].String()
		}
		if len(seen) != 2500 {
			t.Fatalf("%d images", len(seen))
		}
		for i := range seen {
			want := images[i]
			if sort != "" {
				want = images[len(images)-1-i]
			}
			if seen[i] != want.UUID {
				t.Fatalf("%q: out of order at %d", sort, i)
			}
		}
	}
}

func TestQueryIsDefault(t *testing.T) {
	for query, want := range map[string]bool{
		"": true, "state=active": true, "state=all": true, "limit=0": true, "sort=published_at": true, "sort=published_at.asc": true,
		"channel=x": true, "unknown=1": true, "inclAdminFields=false": true, "name=": true,
		"state=disabled": false, "name=x": false, "limit=1": false, "sort=published_at.desc": false, "marker=2014": false,
		"marker=" + unsetOwner: false, "tag.a=": false, "billing_tag=a": false, "public=true": false, "account=" + idA: false,
	} {
		q, err := ParseQuery(params(query))
		if err != nil || q.IsDefault() != want {
			t.Errorf("%q: %v %v", query, q.IsDefault(), err)
		}
	}
	if !(Query{}).IsDefault() {
		t.Error("the zero Query")
	}
}

// Spec 3.2.
func TestDatasetsQuery(t *testing.T) {
	s := newShelf(t)
	f := func(query, want string) {
		t.Helper()
		if got := s.run(t, ParseDatasetsQuery, query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	const all = "123458" // neither docker, nor private, nor disabled
	f("", all)
	f("limit=2&marker="+idA+"&sort=name&state=nonsense&public=x&tag.role=os", all)
	f("channel=dev", all)
	f("name=base", "12") // A27: exact
	f("name=bas", "")
	f("name=~bas", "123")
	f("version=2.0", "23")
	f("version=~.04", "45")
	f("os=linux", "45")
	f("os=~linux", "")
	f("type=zvol", "4")
	f("type=!zvol", "")
	f("creator_uuid="+idC, "5")
	f("owner_uuid="+idC, "5")
	f("owner_uuid=x", "")
	f("restricted_to_uuid="+idA, "")
	f("restricted_to_uuid=", all)
	f("name=base&name=ubuntu", "12")
	q, err := ParseDatasetsQuery(params("limit=3"))
	if err != nil || !q.IsDefault() {
		t.Error("limit is ignored", err)
	}
}

// Select leaves what it was given as it was.
func TestSelectDoesNotWrite(t *testing.T) {
	s := newShelf(t)
	before := make([]string, 0, len(s.images))
	for _, m := range s.images {
		before = append(before, string(m.V2()))
	}
	for _, query := range []string{"", "sort=published_at.desc", "limit=2&os=linux", "marker=" + shelfID(3)} {
		s.run(t, ParseQuery, query)
	}
	var after []string
	for _, m := range s.images {
		after = append(after, string(m.V2()))
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}

// A condition on tags reads the manifest's text. A query of 8 KiB holds a thousand of them, which a stranger may all
// make the same.
func TestRepeatedTagCountsOnce(t *testing.T) {
	q, err := ParseQuery(params("tag.role=os&billing_tag=a&" + strings.Repeat("tag.role=os&billing_tag=a&", 500) + "tag.role=vm&tag.n=2"))
	if err != nil || len(q.match) != 4 {
		t.Errorf("%d conditions, want 4; %v", len(q.match), err)
	}
}
