package via

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/uuid"
)

func TestParse(t *testing.T) {
	a, b := NewID(), NewID()
	f := func(want []string, values ...string) {
		t.Helper()
		if got := Parse(values...); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", values, got, want)
		}
	}
	f(nil)
	f(nil, "1.1 varnish, 1.0 fred (squid/5)")
	f([]string{a}, Format(a))
	f([]string{a, b}, Format(a, b))
	f([]string{a, b}, "1.1 proxy,1.1 "+a+" (comment)", " HTTP/1.1 "+b+", 1.1 "+a)
	f(nil, "1.1 imgmirror-", "1.1 imgmirror-00112233445566zz", a, "1.1 imgmirror-0011223344556677889900")
	if a == b {
		t.Error("two mirrors have one id")
	}
}

func TestPaths(t *testing.T) {
	ids := []uuid.UUID{{1}, {2}, {3}, {4}}
	ways := map[uuid.UUID][]string{{1}: {"b"}, {2}: {"b"}, {3}: nil, {4}: {"b", "c"}}
	doc, err := json.Marshal(NewPaths(ids, func(id uuid.UUID) []string { return ways[id] }))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"rest":["b"],"others":[{"through":[],"images":["03000000-0000-0000-0000-000000000000"]},` +
		`{"through":["b","c"],"images":["04000000-0000-0000-0000-000000000000"]}]}`; string(doc) != want {
		t.Errorf("%s, want %s", doc, want)
	}
	p, err := ParsePaths(doc)
	if err != nil {
		t.Fatal(err)
	}
	want := map[uuid.UUID][]string{{1}: {"a", "b"}, {3}: {"a"}, {4}: {"a", "b", "c"}, {9}: {"a", "b"}}
	if got := p.Ways("a", []uuid.UUID{{1}, {3}, {4}, {9}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if empty, err := json.Marshal(NewPaths(nil, nil)); err != nil || string(empty) != `{"rest":[],"others":[]}` {
		t.Errorf("%s, %v", empty, err)
	}
	for _, bad := range []string{"", "[]", `{"rest":1}`} {
		if _, err := ParsePaths([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
