package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
)

// disk has the files of some images; sources give none.
type disk struct{ images []string }

func (d disk) File(context.Context, cache.Blob, []cache.Source) (*cache.Reader, error) {
	return nil, verify.ErrUnavailable
}

func (d disk) Peek(b cache.Blob) (cache.Info, bool) {
	return cache.Info{}, slices.Contains(d.images, b.Image.String())
}

// With "notfound" an image that cannot be had now is not found by its manifest either, nor is what is built on it:
// imgadm goes on to its next source at a 404 of the manifest only.
func TestManifestOutOfReach(t *testing.T) {
	f := newFixture(t,
		image{uuid: id(1), name: "cached-base", content: []byte("1")}.v2(),
		image{uuid: id(2), name: "cached-leaf", content: []byte("2"), extra: `,"origin":"` + id(1) + `"`}.v2(),
		image{uuid: id(3), name: "base", content: []byte("3")}.v2(),
		image{uuid: id(4), name: "cached-on-uncached", content: []byte("4"), extra: `,"origin":"` + id(3) + `"`}.v2(),
		image{uuid: id(5), name: "self", content: []byte("5"), extra: `,"origin":"` + id(5) + `"`}.v2(),
	)
	f.source.get = func(context.Context, uuid.UUID) (manifest.Manifest, error) {
		return manifest.Manifest{}, errors.New("down")
	}
	f.options.Files = mirror.Files{Store: disk{[]string{id(1), id(2), id(4)}}}
	f.options.OnUnreachable = UnreachableNotFound
	f.start()
	routes := []string{"/images/", "/datasets/"}
	for _, route := range routes {
		for _, n := range []int{3, 4, 5} {
			got := f.wantError("GET", route+id(n), 404, "ResourceNotFound", "image not found: the image's sources cannot be reached")
			if strings.Contains(got.body, "no file") {
				t.Error(got.body)
			}
			if got := f.send("HEAD", route+id(n)); got.status != 404 {
				t.Errorf("HEAD %s%s: %d", route, id(n), got.status)
			}
		}
		for _, n := range []int{1, 2} {
			if got := f.get(route + id(n)); got.status != 200 {
				t.Errorf("%s%s, which is cached: %d %s", route, id(n), got.status, got.body)
			}
		}
	}
	f.wantError("GET", "/images/"+id(3)+"/file", 404, "ResourceNotFound", "image not found: the image's sources cannot be reached")
	if got := f.send("HEAD", "/images/"+id(3)+"/file"); got.status != 404 {
		t.Errorf("HEAD of a file: %d", got.status)
	}
	if got := f.get("/images"); got.status != 200 || !strings.Contains(got.body, id(3)) {
		t.Errorf("the list: %d %s", got.status, got.body)
	}
}

// With "error" the manifest stays, and no source is asked about it.
func TestManifestOutOfReachIsTold(t *testing.T) {
	f := newFixture(t, image{uuid: id(3), name: "base", content: []byte("3")}.v2())
	f.source.get = func(context.Context, uuid.UUID) (manifest.Manifest, error) {
		t.Error("the source is asked")
		return manifest.Manifest{}, errors.New("down")
	}
	f.options.Files = mirror.Files{Store: disk{}}
	f.start()
	if got := f.get("/images/" + id(3)); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	f.wantError("GET", "/images/"+id(3)+"/file", 503, "RemoteSourceError", "")
}
