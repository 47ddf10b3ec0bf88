package index

import (
	"testing"

	"imgmirror/cache/disk"
	"imgmirror/manifest"
)

// TestValidatorsComeLast: wherever the saving of a list breaks off, no validator that was saved vouches for a list that was not: a
// source that answered "not modified" to it would leave the old images listed for ever.
func TestValidatorsComeLast(t *testing.T) {
	for writes := range 12 {
		left := 1 << 30
		ix := open(t, Options{Room: func() (disk.Room, error) {
			left--
			return disk.Room{Free: 1 << 40, ReadOnly: left < 0}, nil
		}})
		before := manifest.Listing{Source: "a", Kind: "imgapi", ETag: "before", Images: someManifests(t, 400)}
		if err := ix.SaveListing(before); err != nil {
			t.Fatal(err)
		}
		after := manifest.Listing{Source: "a", Kind: "imgapi", ETag: "after", Images: before.Images[:1]}
		left = writes
		failed := ix.SaveListing(after) != nil
		left = 1 << 30
		ix = reopen(t, ix)
		lists, err := ix.Listings()
		if err != nil || len(lists) != 1 {
			t.Fatalf("%d lists, %v", len(lists), err)
		}
		if l := lists[0]; l.ETag == "after" && len(l.Images) != 1 {
			t.Errorf("after %d writes: validators of the new list, and %d images", writes, len(l.Images))
		} else if !failed && l.ETag != "after" {
			t.Errorf("after %d writes: saved, and the validators are %q", writes, l.ETag)
		}
		if !failed {
			return
		}
	}
	t.Error("the list is never saved whole")
}
