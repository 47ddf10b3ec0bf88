package proxy

import (
	"context"
	"errors"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// downSource gives no list.
type downSource struct{ *fakeSource }

func (downSource) List(context.Context, manifest.Listing) (manifest.Listing, error) {
	return manifest.Listing{}, errors.New("down")
}

// A list that nothing is known of is a 503 in every form, whatever is asked of it; all else goes on.
func TestListNotKnown(t *testing.T) {
	f := newFixture(t)
	silent, err := catalog.New(catalog.Options{Sources: []catalog.SourceOptions{{Source: downSource{&fakeSource{name: "one"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Refresh(t.Context()); err == nil {
		t.Fatal("the source has answered")
	}
	f.options.Catalog = silent
	f.options.OnUnreachable = UnreachableNotFound // is about images, not about lists
	f.start()
	for _, path := range []string{"/images", "/images?name=x", "/images?marker=" + someUUID, "/datasets", "/datasets?os=x", "/datasets/base", "/"} {
		got := f.get(path, "If-None-Match: *")
		if got.status != 503 || got.header.Get("Retry-After") == "" || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d, %v", path, got.status, got.header)
		}
		if code, _, _ := got.errorBody(t); code != "RemoteSourceError" {
			t.Errorf("%s: %s", path, got.body)
		}
		if got := f.send("HEAD", path); got.status != 503 || got.body != "" {
			t.Errorf("HEAD %s: %d %q", path, got.status, got.body)
		}
	}
	for _, path := range []string{"/ping", "/readyz"} {
		if got := f.get(path); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}
