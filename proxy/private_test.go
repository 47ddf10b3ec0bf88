package proxy

import (
	"strings"
	"testing"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// TestPrivateImages: without serve_private no client gets a private image, whatever account is named; with it, a named
// account gets what is its own, public, or shared with it by the acl, on the list and by uuid, after a restart too.
func TestPrivateImages(t *testing.T) {
	const owner, friend, stranger = "930896af-bf8c-48d4-885c-6573a94b1853", "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"
	listing := manifest.Listing{Source: "one", Kind: "imgapi", Fetched: time.Unix(1e9, 0)}
	for _, i := range []image{
		{uuid: id(1), name: "public"},
		{uuid: id(2), name: "shared", extra: `,"public":false,"acl":["` + friend + `"]`},
		{uuid: id(3), name: "own", extra: `,"public":false`},
		{uuid: id(4), name: "told", extra: `,"acl":["` + friend + `"]`},
	} {
		i.content = []byte(i.name)
		m, err := manifest.Parse([]byte(i.v2()), manifest.ParseOptions{}) // as the index reads it
		if err != nil {
			t.Fatal(err)
		}
		listing.Images = append(listing.Images, m)
	}
	for _, trusted := range []bool{false, true} {
		f := newFixture(t)
		cat, err := catalog.New(catalog.Options{
			Sources: []catalog.SourceOptions{{Source: f.source, ServePrivate: trusted}}, Index: fakeIndex{listing}, Offline: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		f.options.Catalog = cat
		f.start()
		for account, want := range map[string]string{
			"": "public shared own told", owner: "public shared own told", friend: "public shared told", stranger: "public told",
		} {
			if !trusted {
				want = "public told"
			}
			query := ""
			if account != "" {
				query = "?account=" + account
			}
			if got := names(t, f.get("/images"+query).body); got != want {
				t.Errorf("serve_private %t, account %q: the list is %q, want %q", trusted, account, got, want)
			}
			for n, name := range []string{"public", "shared", "own", "told"} {
				status := 404
				if strings.Contains(want, name) {
					status = 200
				}
				r := f.get("/images/" + id(n+1) + query)
				if r.status != status {
					t.Errorf("serve_private %t, account %q: image %s is %d, want %d", trusted, account, name, r.status, status)
				}
				if strings.Contains(r.body, `"acl"`) && !trusted {
					t.Errorf("the acl is shown: %s", r.body)
				}
			}
		}
	}
}
