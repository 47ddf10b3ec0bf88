package manifest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// inPacks has the texts of images in packs of per images, in the memory that each call is given. broken packs fail.
func inPacks(images []Manifest, per int, broken ...int) (n int, _ Unpack) {
	packs := slices.Collect(slices.Chunk(images, per))
	return len(packs), func(pack int, room []byte) (texts [][]byte, next []byte, err error) {
		room = room[:cap(room)]
		for i := range room {
			room[i] = '#' // whoever still reads a text of the pack before finds no text
		}
		room = room[:0]
		var ends []int
		for _, m := range packs[pack] {
			room = append(room, m.Raw()...)
			ends = append(ends, len(room))
		}
		if slices.Contains(broken, pack) {
			return nil, room, errors.New("broken")
		}
		at := 0
		for _, end := range ends {
			texts = append(texts, room[at:end:end])
			at = end
		}
		return texts, room, nil
	}
}

func none(uuid.UUID) bool { return false }

// A restored list is what lists show, in their order and with the texts in the answer, then all else; each image as
// it was, byte for byte, whatever its pack was.
func TestRestoreList(t *testing.T) {
	images := append(mixedList(t), image(t, "dddddddd-0000-4000-8000-000000000004", sha1A, `,"activated":false,"channels":["dev"]`), parse(t, strings.Replace(v2With(""), idA, idC, 1)))
	merged, _ := Merge([]Listing{{Source: "a", Images: images}})
	var want, behind []Manifest
	for _, m := range merged {
		if m.Manifest.onLists() {
			want = append(want, *m.Manifest)
		} else {
			behind = append(behind, *m.Manifest)
		}
	}
	if len(want) < 20 || len(behind) == 0 {
		t.Fatalf("%d images on the list, and %d behind", len(want), len(behind))
	}
	for _, per := range []int{1, 3, 1000} {
		for name, order := range map[string]func([]Manifest){
			"as listed": func([]Manifest) {},
			"backwards": slices.Reverse[[]Manifest],
			"by uuid": func(all []Manifest) {
				slices.SortFunc(all, func(a, b Manifest) int { return bytes.Compare(a.UUID[:], b.UUID[:]) })
			},
			"some twice": func(all []Manifest) { copy(all[len(all)/2:], all[:len(all)/2]) },
		} {
			from := slices.Clone(images)
			if name == "some twice" {
				from = slices.Concat(images, images)
			}
			order(from)
			n, unpack := inPacks(from, per)
			got, list, faults := RestoreList(n, unpack, none, ParseOptions{})
			if len(faults) > 0 || len(got) != len(want)+len(behind) {
				t.Fatalf("%s, %d in a pack: %d images of %d, %v", name, per, len(got), len(want)+len(behind), faults)
			}
			sameTexts(t, got[:len(want)], want)
			sameTexts(t, got[len(want):], behind)
			if !bytes.Equal(list, BuildList(want)) || !LieIn(list, got[:len(want)]) {
				t.Errorf("%s, %d in a pack: the images do not lie in the list\n%s", name, per, list)
			}
			if PackList(slices.Clone(got[:len(want)]), list); !LieIn(list, got[:len(want)]) {
				t.Errorf("%s, %d in a pack: packed anew", name, per)
			}
		}
	}
}

// What cannot be read is left out, and so is what the caller has by itself.
func TestRestoreListWithout(t *testing.T) {
	images := mustList(t, manyImages(20, false))
	n, unpack := inPacks(images, 4, 1)
	got, list, faults := RestoreList(n, unpack, func(id uuid.UUID) bool { return id == images[0].UUID }, ParseOptions{})
	want := slices.Concat(images[1:4], images[8:])
	slices.SortFunc(want, func(a, b Manifest) int { return a.orderKey().compare(b.orderKey()) })
	if len(faults) != 1 || len(got) != len(want) {
		t.Fatalf("%d images of %d, %v", len(got), len(want), faults)
	}
	sameTexts(t, got, want)
	if !LieIn(list, got) {
		t.Error("the images do not lie in the list")
	}
	n, unpack = inPacks(nil, 4)
	if got, list, faults := RestoreList(n, unpack, none, ParseOptions{}); len(got)+len(faults) > 0 || string(list) != "[]" {
		t.Errorf("of nothing: %d images, %s, %v", len(got), list, faults)
	}
}

// LieIn is about memory, not about bytes alone.
func TestLieIn(t *testing.T) {
	images := mixedList(t)
	if list := BuildList(images); LieIn(list, images) {
		t.Error("images lie in a list that was made of them")
	}
	list := PackList(images, nil)
	for name, x := range map[string]struct {
		images []Manifest
		want   bool
	}{"all": {images, true}, "one less": {images[1:], false}, "none": {nil, false}} {
		if got := LieIn(list, x.images); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if LieIn(nil, images) || LieIn(nil, nil) {
		t.Error("images lie nowhere")
	}
}
