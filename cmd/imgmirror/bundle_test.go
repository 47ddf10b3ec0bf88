package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/verify"
)

// TestFindVolumesOrder: a bundle comes before a delta on it, and of each come the volumes in their order.
func TestFindVolumesOrder(t *testing.T) {
	base := bundle.Held{UUID: uuid.UUID{7}, Files: []verify.Sum{{7}}}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	full := &bundle.Media{Index: bundle.Index{ID: uuid.UUID{2}, Created: noon, Images: []bundle.Image{{UUID: base.UUID, Files: []bundle.File{{SHA1: base.Files[0]}}}}}}
	delta := &bundle.Media{Index: bundle.Index{ID: uuid.UUID{1}, Created: noon, Requires: []bundle.Held{base}}}
	all := []volume{{"d", delta, 2}, {"b", full, 2}, {"c", delta, 1}, {"a", full, 1}}
	inOrder(all)
	var paths string
	for _, v := range all {
		paths += v.path
	}
	if paths != "abcd" {
		t.Errorf("order %s", paths)
	}
}

// TestNoteVolumes: what one volume brought counts, whatever the next one says.
func TestNoteVolumes(t *testing.T) {
	in := &importRun{added: make(map[string]bool)}
	report := func(id string, states ...string) admin.BundleImport {
		r := admin.BundleImport{Bundle: id}
		for i, s := range states {
			image := admin.ImportedImage{UUID: string(rune('a' + i)), State: s}
			if s == admin.ImageRefused {
				image.Error = &admin.Error{Code: "ChecksumError", Message: "it is damaged"}
			}
			r.Images = append(r.Images, image)
		}
		return r
	}
	in.note(report("one", admin.ImageAdded, admin.ImageRefused, admin.ImageWaiting, admin.ImagePresent))
	in.note(report("one", admin.ImagePresent, admin.ImageWaiting, admin.ImageAdded, admin.ImagePresent))
	in.note(report("two", admin.ImageAdded))
	var states []string
	for _, i := range in.images() {
		states = append(states, i.State)
	}
	if diff := cmp.Diff([]string{"added", "refused", "added", "present", "added"}, states); diff != "" {
		t.Error(diff)
	}
	if err := in.outcome(nil); err == nil || failure.Of(err).Code != "ChecksumError" || !strings.Contains(err.Error(), "1 of 5 images were refused: it is damaged") {
		t.Errorf("%v", err)
	}
}

// TestOlder: what may be new, or cannot be named, is not left out for its date.
func TestOlder(t *testing.T) {
	june := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	f := func(published time.Time, sum verify.Sum, want bool) {
		t.Helper()
		m := manifest.Manifest{Published: published, Files: []manifest.File{{SHA1: verify.Sum{1}}, {SHA1: sum}}}
		if got := older(m, june); got != want {
			t.Errorf("published %s, sha1 %s: %v", published, sum, got)
		}
	}
	f(june.Add(-1), verify.Sum{2}, true)
	f(june, verify.Sum{2}, false)
	f(time.Time{}, verify.Sum{2}, false)
	f(june.Add(-1), verify.Sum{}, false)
}
