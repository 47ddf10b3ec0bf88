package e2e

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// TestWireListImages: spec 2.4.
func TestWireListImages(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	none := []string{}
	list := func(name, query string, want ...string) row {
		if want == nil {
			want = none
		}
		return row{name: name, path: "/images?" + query, list: want}
	}
	bad := func(name, query, field string) row {
		return row{name: name, path: "/images?" + query, status: 422, code: "InvalidParameter", field: field}
	}
	check(t, m.url, []row{
		list("no parameter", "", all...),
		list("unknown parameters", "colour=red&limits=1", all...),
		list("state active", "state=active", all...),
		list("state all", "state=all", all...),
		list("state disabled", "state=disabled"),
		list("state unactivated", "state=unactivated"),
		list("state creating", "state=creating"),
		list("state failed", "state=failed"),
		bad("state unknown", "state=x", "state"),
		list("name", "name=zeta", "zeta-1.0.0", "zeta-2.0.0"),
		list("name, none such", "name=zet"),
		list("name substring", "name=~et", "beta-1.0.0", "zeta-1.0.0", "zeta-2.0.0"),
		list("name substring, case", "name=~ET"),
		list("name, tilde alone", "name=~", all...),
		list("version", "version=2.0.0", "gamma-2.0.0", "zeta-2.0.0"),
		list("version substring", "version=~2.", "gamma-2.0.0", "zeta-2.0.0"),
		list("os", "os=linux", "beta-1.0.0", "gamma-2.0.0"),
		list("owner", "owner="+creatorID, "beta-1.0.0"),
		list("type", "type=zvol", "gamma-2.0.0"),
		list("type not", "type=!zone-dataset", "beta-1.0.0", "gamma-2.0.0"),
		list("public", "public=true", all...),
		list("not public", "public=false"),
		bad("public unknown", "public=x", "public"),
		list("account", "account="+creatorID, all...),
		list("account and the same owner", "account="+creatorID+"&owner="+creatorID, "beta-1.0.0"),
		list("account and another owner", "account="+unknownID+"&owner="+creatorID, "beta-1.0.0"),
		bad("account is no uuid", "account=x", "account"),
		list("channel means nothing", "channel=x", all...),
		list("tag", "tag.role=db", "alpha-1.0.0"),
		list("tag of another value", "tag.role=web"),
		list("tag number", "tag.n=3", "alpha-1.0.0"),
		list("tag boolean", "tag.flag=true", "alpha-1.0.0"),
		list("tag present", "tag.role=", "alpha-1.0.0"),
		list("tag object present", "tag.deep=", "alpha-1.0.0"),
		list("two tags", "tag.role=db&tag.n=3", "alpha-1.0.0"),
		list("two tags, one wrong", "tag.role=db&tag.n=4"),
		list("billing_tag", "billing_tag=gold", "alpha-1.0.0"),
		list("billing_tag, two", "billing_tag=gold&billing_tag=tin"),
		list("uuid", "uuid="+betaID, "beta-1.0.0"),
		list("origin", "origin="+zeta1ID, "gamma-2.0.0"),
		list("limit", "limit=2", "alpha-1.0.0", "beta-1.0.0"),
		list("limit 0", "limit=0", all...),
		list("limit above 1000", "limit=5000", all...),
		bad("limit negative", "limit=-1", "limit"),
		bad("limit no number", "limit=x", "limit"),
		list("marker", "marker="+gammaID, "gamma-2.0.0", "zeta-1.0.0", "zeta-2.0.0"),
		list("marker, inclusive, and limit", "marker="+betaID+"&limit=2", "beta-1.0.0", "gamma-2.0.0"),
		list("marker that the filters hide", "marker="+deltaID, "zeta-1.0.0", "zeta-2.0.0"),
		list("marker with a filter", "marker="+betaID+"&os=smartos", "zeta-1.0.0", "zeta-2.0.0"),
		list("marker date", "marker=2026-01-04T00:00:00Z", "zeta-1.0.0", "zeta-2.0.0"),
		list("marker date, an instant and no text", "marker=2026-01-04T01:00:00.000%2B01:00", "zeta-1.0.0", "zeta-2.0.0"),
		list("marker day", "marker=2026-01-05", "zeta-2.0.0"),
		list("marker date, descending", "marker=2026-01-02T00:00:00.500Z&sort=published_at.desc", "gamma-2.0.0", "beta-1.0.0", "alpha-1.0.0"),
		list("marker uuid, descending", "marker="+betaID+"&sort=published_at.desc", "beta-1.0.0", "alpha-1.0.0"),
		bad("marker neither", "marker=x", "marker"),
		{name: "marker unknown", path: "/images?marker=" + unknownID, status: 404, code: "ResourceNotFound"},
		list("sort", "sort=published_at", all...),
		list("sort asc", "sort=published_at.asc", all...),
		list("sort ASC", "sort=published_at.ASC", all...),
		list("sort desc", "sort=published_at.desc", "zeta-2.0.0", "zeta-1.0.0", "gamma-2.0.0", "beta-1.0.0", "alpha-1.0.0"),
		list("sort desc, then limit", "sort=published_at.desc&limit=2", "zeta-2.0.0", "zeta-1.0.0"),
		bad("sort direction", "sort=published_at.up", "sort"),
		bad("sort attribute", "sort=name", "sort"),
		{name: "inclAdminFields", path: "/images?inclAdminFields=true", status: 401, code: "UnauthorizedError"},
		list("no inclAdminFields", "inclAdminFields=false", all...),
		bad("bad inclAdminFields", "inclAdminFields=x", "inclAdminFields"),
		list("together", "os=linux&version=2.0.0", "gamma-2.0.0"),
		list("a parameter twice: the first", "name=alpha&name=beta", "alpha-1.0.0"),
		list("a plus and an escape", "name=alph%61", "alpha-1.0.0"),
	})
}

// TestWireListForm: the list's validators and its compressed form (spec 2.6).
func TestWireListForm(t *testing.T) {
	t.Parallel()
	m, _ := wire(t, nil)
	plain := curl(t, m.url+"/images")
	etag := plain.header.Get("ETag")
	if len(etag) < 3 || etag[0] != '"' || etag[len(etag)-1] != '"' {
		t.Fatalf("ETag %q is not quoted and strong", etag)
	}
	for _, hidden := range []string{"billing_tags", "traits", `"acl"`, "channels", privateID, `"disabled":true`} {
		if strings.Contains(string(plain.body), hidden) {
			t.Errorf("the list has %s", hidden)
		}
	}
	check(t, m.url, []row{
		{name: "not modified", path: "/images", args: []string{"-H", "If-None-Match: " + etag}, status: 304, header: []string{"ETag: " + etag}},
		{name: "modified", path: "/images", args: []string{"-H", `If-None-Match: "x"`}, list: all},
		{name: "a filtered list", path: "/images?os=linux", header: []string{"ETag"}, list: []string{"beta-1.0.0", "gamma-2.0.0"}},
		{name: "identity unless asked for", path: "/images", header: []string{"!Content-Encoding"}},
	})

	got := curl(t, m.url+"/images", "-H", "Accept-Encoding: gzip")
	if got.header.Get("Content-Encoding") != "gzip" {
		return // SHOULD NOT (spec 2.6): the plain form is right
	}
	if vary := got.header.Get("Vary"); !strings.Contains(strings.ToLower(vary), "accept-encoding") {
		t.Errorf("Vary %q", vary)
	}
	z, err := gzip.NewReader(strings.NewReader(string(got.body)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil || string(text) != string(plain.body) {
		t.Errorf("unpacked it is not the same list (%v)", err)
	}
	if !json.Valid(text) {
		t.Error("not JSON")
	}
}
